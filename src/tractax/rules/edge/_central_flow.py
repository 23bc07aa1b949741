r"""Central flows: where descent goes on average, at the edge of stability.

Gradient descent with learning rate $\eta$ is stable while the sharpness $S$, the largest eigenvalue of the Hessian, is
below $2/\eta$. Beyond, it oscillates along the leading eigenvector $u$, and oscillations of variance $\sigma^2$ add
$\tfrac12\sigma^2\nabla S$ to the mean gradient, which lowers the sharpness. The central flow takes just as much of it as
keeps the sharpness at the edge,

$$\dot\theta = -\big(\nabla L + \tfrac12\sigma^2\nabla S\big),\qquad
\sigma^2 = \frac{2\,[\langle-\nabla L,\nabla S\rangle]_+}{\lVert\nabla S\rVert^2}\ \text{ at }S = \tfrac2\eta,\qquad
\sigma^2 = 0\ \text{ below},$$

with $\nabla S = \nabla^3L(u, u)$. Descent with a scalar RMSProp, $\nu\leftarrow\beta\nu + (1-\beta)\lVert g\rVert^2$,
$\theta\leftarrow\theta - \eta g/\sqrt\nu$, has the edge $S = 2\sqrt\nu/\eta$ and follows

$$\dot\theta = -\frac1{\sqrt\nu}\big(\nabla L + \tfrac12\sigma^2\nabla S\big),\qquad
\dot\nu = \frac{1-\beta}{\beta\eta}\big(\lVert\nabla L\rVert^2 + S^2\sigma^2 - \nu\big).$$

Where several eigenvalues are at the edge, oscillations of covariance $\Sigma\succeq0$ on the span $U$ of their
eigenvectors add $\tfrac12\nabla\langle\Sigma, H\rangle$, such that the Hessian on $U$ does not grow,
$\tfrac{d}{dt}U^\top HU\preceq0$, and $\Sigma$ acts only where it would,
$\langle\Sigma, \tfrac{d}{dt}U^\top HU\rangle = 0$.

The field jumps where the edge is reached. Here the excess of the sharpness instead relaxes at the rate of one step: its
growth is limited to $(2/\eta - S)/\eta$, that of the Hessian on $U$ to $(2/\eta - U^\top HU)/\eta$, which makes the field
continuous, no stiffer than the flow already is, and keeps the edge where it holds.

Assumes that no more eigenvalues reach the edge than the flow was told to follow. The flow describes descent smoothed over
its oscillations; no error bound is proven. Time: $t = \eta k$ after $k$ steps.

Source: Cohen, Damian, Talwalkar, Kolter and Lee 2024 (arXiv 2410.24206).
"""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ...core import (
    AbstractFlowRule,
    AbstractParameterFlow,
    AbstractTask,
    Objective,
    check_count,
    check_fraction,
    check_positive,
)
from ..descent._weight_decay import check_decay
from ._holding_covariance import holding_covariance
from ._sharpness import leading_eigenpairs


class Oscillation(eqx.Module):
    r"""What the central flow says about the oscillations around it.

    **Attributes:**

    - `sharpness`: $S$, the largest eigenvalue of the Hessian, weight decay included.
    - `variance`: $\sigma^2$, of the parameters along its eigenvector, or in all directions together; zero below the edge.
    - `loss`: $L + \tfrac12\langle\Sigma, H\rangle$, the mean loss of the oscillating iterates, weight decay included.
    - `curvatures`: the eigenvalues that the flow follows, descending, shape `(eigenvalues,)`. Where all of them are at
      the edge there may be more.
    - `covariance`: $\Sigma$ along their eigenvectors, shape `(eigenvalues, eigenvalues)`.
    """

    sharpness: Float[Array, "*times"]
    variance: Float[Array, "*times"]
    loss: Float[Array, "*times"]
    curvatures: Float[Array, "*times eigenvalues"]
    covariance: Float[Array, "*times eigenvalues eigenvalues"]


class CentralFlow(AbstractParameterFlow):
    r"""The flow that gradient descent of learning rate $\eta$ follows on average, below and at the edge of stability.

    Compare it with the mean of `tx.GradientDescent(learning_rate)` over a window of steps, at the times $t = \eta k$.
    Below the edge it is gradient flow. Started beyond, it falls to the edge within a few steps' time.

    An evaluation takes one gradient, `iterations` Hessian-vector products, and a derivative of them for every pair of
    eigenvalues.

    **Arguments:**

    - `learning_rate`: $\eta > 0$; may be an array under `vmap`.
    - `eigenvalues`: how many of the largest eigenvalues the flow keeps from growing beyond the edge. If another one gets
      there, their order changes at every evaluation, and the integration takes tiny steps or fails.
    - `iterations`: of Lanczos's method for the sharpness; at most the number of parameters are made.
    - `weight_decay`: $\gamma \ge 0$, the coefficient of the penalty $\tfrac\gamma2\lVert\theta\rVert^2$, which adds
      $\gamma$ to the sharpness.

    **Raises:**

    `ValueError` for a learning rate that is not positive, fewer eigenvalues or iterations than one, or a negative
    decay.
    """

    learning_rate: Float[Array, ""]
    weight_decay: Float[Array, ""]
    eigenvalues: int = eqx.field(static=True)
    iterations: int = eqx.field(static=True)

    def __init__(
        self,
        learning_rate: ArrayLike,
        *,
        eigenvalues: PyTree = 1,
        iterations: PyTree = 32,
        weight_decay: ArrayLike = 0.0,
    ):
        self.learning_rate = check_positive("learning_rate", learning_rate, scalar=True)
        self.eigenvalues = check_count("eigenvalues", eigenvalues)
        self.weight_decay = check_decay(weight_decay)
        self.iterations = check_count("iterations", iterations)

    def vector_field(self, t: Any, params: PyTree, objective: Objective) -> PyTree:
        """The velocity of the parameters."""
        del t
        edge = _Edge(params, objective.penalised(self.weight_decay), self.eigenvalues, self.iterations)
        push = jnp.tensordot(self._covariance(edge), edge.steepening, 2) / 2
        return edge.unravel(-(edge.gradient + push))

    def oscillation(self, model: PyTree, task: AbstractTask) -> Oscillation:
        """The oscillations of descent where the flow passes this model.

        **Arguments:**

        - `model`: on the central flow. To record them, `observe=lambda model: rule.oscillation(model, task)`.
        - `task`: the task that it is trained on.
        """
        params, static = eqx.partition(model, eqx.is_inexact_array)
        objective = Objective(task, static, self.weight_decay)
        edge = _Edge(params, objective, self.eigenvalues, self.iterations)
        covariance = self._covariance(edge)
        variances = jnp.diagonal(covariance)
        loss = objective.loss(params) + edge.curvatures @ variances / 2
        return Oscillation(edge.curvatures[0], jnp.sum(variances), loss, edge.curvatures, covariance)

    def _covariance(self, edge: "_Edge") -> Array:
        eta = self.learning_rate.astype(edge.gradient.dtype)
        growth = -edge.steepening @ edge.gradient + jnp.diag(edge.curvatures - 2 / eta) / eta
        resistance = jnp.tensordot(edge.steepening, edge.steepening, (2, 2)) / 2
        if edge.curvatures.size == 1:
            return _ratio(growth, resistance[0, 0])
        return holding_covariance(growth, resistance)


class RMSPropState(eqx.Module):
    r"""The parameters, and $\nu$, the running mean of the squared gradient."""

    params: PyTree
    second_moment: Float[Array, ""]


class RMSPropCentralFlow(AbstractFlowRule[RMSPropState]):
    r"""The flow that `scalar_rmsprop` follows on average, below and at the edge of stability.

    Compare it with the mean of `tx.GradientDescent(learning_rate, optimiser)` over a window of steps, at the times
    $t = \eta k$, with the finished transformation `optimiser = scalar_rmsprop(learning_rate, decay, initial=...)`.

    **Arguments:**

    - `learning_rate`: $\eta > 0$; may be an array under `vmap`.
    - `decay`: $\beta$, between 0 and 1.
    - `initial`: $\nu$ at time zero, positive.
    - `iterations`: of Lanczos's method for the sharpness.
    - `weight_decay`: $\gamma \ge 0$, the coefficient of the penalty $\tfrac\gamma2\lVert\theta\rVert^2$.

    **Raises:**

    `ValueError` for a learning rate or an initial value that is not positive, a decay outside $(0, 1)$, fewer
    iterations than one, or a negative weight decay.
    """

    learning_rate: Float[Array, ""]
    decay: Float[Array, ""]
    initial: Float[Array, ""]
    weight_decay: Float[Array, ""]
    iterations: int = eqx.field(static=True)

    def __init__(
        self,
        learning_rate: ArrayLike,
        decay: ArrayLike,
        initial: ArrayLike,
        *,
        iterations: PyTree = 32,
        weight_decay: ArrayLike = 0.0,
    ):
        self.learning_rate = check_positive("learning_rate", learning_rate, scalar=True)
        self.decay = check_fraction("decay", decay, zero=False)
        self.initial = check_positive("initial", initial, scalar=True)
        self.weight_decay = check_decay(weight_decay)
        self.iterations = check_count("iterations", iterations)

    def init(self, params: PyTree) -> RMSPropState:
        """The parameters and the initial second moment."""
        dtype = jnp.result_type(*jax.tree.leaves(params))
        return RMSPropState(params, self.initial.astype(dtype))

    def params(self, state: RMSPropState) -> PyTree:
        """The parameters within the state."""
        return state.params

    def vector_field(self, t: Any, state: RMSPropState, objective: Objective) -> RMSPropState:
        """The velocity of the state."""
        del t
        edge, nu = _Edge(state.params, objective.penalised(self.weight_decay), 1, self.iterations), state.second_moment
        sharpness, steepening = edge.curvatures[0], edge.steepening[0, 0]
        eta, decay = (x.astype(edge.gradient.dtype) for x in (self.learning_rate, self.decay))
        power, memory, root = edge.gradient @ edge.gradient, (1 - decay) / decay, jnp.sqrt(nu)
        growth = -edge.gradient @ steepening - memory * (power - nu) / eta**2
        growth = growth + root / eta * (sharpness - 2 * root / eta)
        resistance = steepening @ steepening / 2 + memory * (sharpness / eta) ** 2
        variance = _ratio(growth, resistance)
        velocity = edge.unravel(-(edge.gradient + variance / 2 * steepening) / root)
        return RMSPropState(velocity, memory / eta * (power + sharpness**2 * variance - nu))

    def terms(self, state: RMSPropState, t0: Any, t1: Any, *, key: PRNGKeyArray | None) -> diffrax.ODETerm:
        """One `diffrax.ODETerm`."""
        del state, t0, t1, key
        return diffrax.ODETerm(self.vector_field)


class _Edge:
    """Gradient, leading eigenvalues and the gradients of the Hessian between their eigenvectors, as flat vectors."""

    def __init__(self, params: PyTree, objective: Objective, count: int, iterations: int):
        flat, self.unravel = ravel_pytree(params)

        def gradient(w: Array) -> Array:
            return jax.grad(lambda w: objective.loss(self.unravel(w)))(w)

        self.gradient, product = jax.linearize(gradient, flat)
        count = min(count, flat.size)
        self.curvatures, vectors = leading_eigenpairs(product, flat, count, max(count, iterations))
        vectors = jax.lax.stop_gradient(vectors)

        def steepening(u: Array, v: Array) -> Array:
            return jax.jvp(lambda w: jax.jvp(gradient, (w,), (u,))[1], (flat,), (v,))[1]

        first, second = np.triu_indices(count)
        place = np.zeros((count, count), int)
        place[first, second] = place[second, first] = np.arange(first.size)
        self.steepening = jax.vmap(steepening)(vectors[first], vectors[second])[place]


def _ratio(growth: Array, resistance: Array) -> Array:
    """The variance that holds the growth of the sharpness; none if nothing of the loss depends on it."""
    return jnp.where(resistance > 0, jnp.maximum(growth, 0.0) / jnp.where(resistance > 0, resistance, 1.0), 0.0)
