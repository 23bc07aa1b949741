r"""Equilibrium propagation: a gradient read off the equilibria of a network that is nudged towards its targets.

Set-up. Units at rest obey $0 = F(u) - \beta\,\partial\ell/\partial u$, with the loss $\ell$ of an example nudging them
with strength $\beta$. With $J = -\partial F/\partial u$ and $e = -\partial\ell/\partial u$ at $\beta = 0$, the true
gradient of the loss and what the rule puts in its place are

$$-\frac{d\ell}{d\theta} = \delta^\top\frac{\partial F}{\partial\theta},\quad \delta = J^{-\top}e,\qquad\qquad
d^{\,\top}\frac{\partial F}{\partial\theta},\quad d = \frac{du}{d\beta} = J^{-1}e.$$

They agree where $J$ is symmetric, as in a network with an energy. The derivative is estimated from nudges of finite
strength on a circle around zero, $\beta_k = re^{2\pi ik/N}$,

$$\hat d = \frac1{Nr}\sum_{k=0}^{N-1}(u(\beta_k) - u(0))\,e^{-2\pi ik/N}.$$

$N = 1$ is the one-sided difference, $N = 2$ the centred one; both need real nudges only. For a holomorphic force the
error is $O((r/\beta_*)^N)$, where $\beta_*$ is the distance to the nearest singularity of $u(\beta)$.

Loss: that of an `EquilibriumTask`, averaged over examples. Time: in units of the rule's time constant.

Sources: Scellier and Bengio 2017 (arXiv 1602.05179); Laborieux and Zenke 2023 (arXiv 2309.02214).
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, PyTree

from ...core import AbstractParameterFlow, Objective, check_count, check_positive
from ..descent._weight_decay import check_decay
from ._equilibrium_network import EquilibriumTask, check_network, root
from ._jacobian_homeostasis import jacobian_asymmetry


class EquilibriumPropagation(AbstractParameterFlow):
    r"""$\tau\dot\theta = \frac1n\sum_i\hat d_i^{\,\top}\,\partial F/\partial\theta - k\nabla\mathcal A - \gamma\theta$.

    It moves any `AbstractEquilibriumModel` on an `EquilibriumTask`. For steps, pass `solver=diffrax.Euler()` and
    `stepsize_controller=diffrax.ConstantStepSize()` with `dt0`, the learning rate, to `tx.train`.

    A circle that reaches beyond the nearest singularity gives nonsense, with one sign of it: the mean of the nudged
    states is no longer the free state. Where, with three points or more, these differ by more than the estimate itself
    moves the state, $r\lVert\hat d\rVert$, the velocity is NaN, and `tx.train` ends with `tx.RESULTS.diverged`. In a
    linear network that happens beyond $\beta_*$, which `LinearEquilibrium.radius` tells beforehand, or so close to it
    that the estimate is off by about its own size. Just beyond a branch point of a nonlinear network it may go unnoticed.

    **Arguments:**

    - `nudge`: $r > 0$; may be an array under `vmap`.
    - `points`: $N$: 1 for one-sided nudges, 2 for centred ones, more for a circle of complex ones.
    - `homeostasis`: $k \ge 0$, the strength of Jacobian homeostasis, which makes the Jacobian symmetric (see
      `jacobian_asymmetry`); `None` for none.
    - `time_constant`: $\tau > 0$.
    - `weight_decay`: $\gamma \ge 0$.

    **Raises:**

    `ValueError` for a nudge or time constant that is not positive, points that are no whole number, a negative strength
    or decay.
    """

    nudge: Float[Array, ""]
    points: int = eqx.field(static=True)
    homeostasis: Float[Array, ""] | None
    time_constant: Float[Array, ""]
    weight_decay: Float[Array, ""]

    def __init__(
        self,
        nudge: ArrayLike,
        points: PyTree = 2,
        *,
        homeostasis: ArrayLike | None = None,
        time_constant: ArrayLike = 1.0,
        weight_decay: ArrayLike = 0.0,
    ):
        points = check_count("points", points)
        self.nudge = check_positive("nudge", nudge, scalar=True)
        self.points = points
        self.homeostasis = (
            None if homeostasis is None else check_positive("homeostasis", homeostasis, zero=True, scalar=True)
        )
        self.time_constant = check_positive("time_constant", time_constant, scalar=True)
        self.weight_decay = check_decay(weight_decay)

    def responses(
        self, model: PyTree, task: PyTree
    ) -> tuple[Float[Array, "examples units"], Float[Array, "examples units"]]:
        r"""The free states $u(0)$ and the estimates $\hat d$ of $du/d\beta$ for all examples.

        **Raises:**

        `ValueError` if the task is no `EquilibriumTask` or the model does not fit it.
        """
        check_network(model, task)
        free = jax.vmap(model)(task.inputs)
        return free, jax.vmap(lambda u, x, y: self._response(model, task, u, x, y))(free, task.inputs, task.targets)

    def gradient(self, model: PyTree, task: PyTree) -> PyTree:
        """What the rule takes for the gradient of the task's loss: a PyTree of the model's trainable arrays."""
        return self._gradient(model, task)[0]

    def alignment(self, model: PyTree, task: PyTree) -> Float[Array, ""]:
        """The cosine between the rule's gradient and the true one, over all trainable arrays; an observable."""
        params, static = eqx.partition(model, eqx.is_inexact_array)
        true = ravel_pytree(Objective(task, static).gradient(params))[0]
        found = ravel_pytree(self.gradient(model, task))[0]
        return true @ found / (jnp.linalg.norm(true) * jnp.linalg.norm(found))

    def vector_field(self, t: Any, params: PyTree, objective: Objective) -> PyTree:
        """The velocity of the parameters."""
        del t
        model, task = objective.model(params), objective.task
        gradient, free = self._gradient(model, task)
        if self.homeostasis is not None and isinstance(task, EquilibriumTask):
            strength = self.homeostasis.astype(free.dtype)
            pull = jax.grad(lambda params: jacobian_asymmetry(objective.model(params), task.inputs, free))(params)
            gradient = jax.tree.map(lambda g, p: g + strength * p, gradient, pull)

        def velocity(w: Array, g: Array) -> Array:
            return -(g + self.weight_decay.astype(g.dtype) * w) / self.time_constant.astype(g.dtype)

        return jax.tree.map(velocity, params, gradient)

    def _gradient(self, model: PyTree, task: PyTree) -> tuple[PyTree, Array]:
        """The gradient, and the free states from which it was found."""
        free, responses = self.responses(model, task)
        params, static = eqx.partition(model, eqx.is_inexact_array)

        def work(params: PyTree) -> Array:
            forces = jax.vmap(eqx.combine(params, static).force)(free, task.inputs)
            return -jnp.mean(jnp.sum(responses * forces, axis=1))

        return jax.grad(work)(params), free

    def _response(self, model: PyTree, task: PyTree, free: Array, x: Array, y: Array) -> Array:
        dtype = free.dtype
        angles = 2 * jnp.pi * jnp.arange(self.points // 2 + 1, dtype=dtype) / self.points
        phases = jnp.cos(angles) if self.points <= 2 else jax.lax.complex(jnp.cos(angles), jnp.sin(angles))
        # States at conjugate nudges are conjugate: half of the circle is enough.
        on_axis = [True, *[False] * ((self.points - 1) // 2), *[True] * (self.points % 2 == 0)]
        weights = jnp.where(jnp.asarray(on_axis), 1.0, 2.0).astype(phases.dtype) / self.points
        model, task, start, x, y = _cast((model, task, free, x, y), phases.dtype)

        def nudged(beta: Array) -> Array:
            return root(lambda u: model.force(u, x) - beta * task.error(u, y), start)

        radius = self.nudge.astype(dtype)
        shifts = jax.vmap(nudged)(radius.astype(phases.dtype) * phases) - start[None, :]
        response = jnp.real(weights * jnp.conj(phases) @ shifts) / radius
        if self.points <= 2:
            return response
        drift = jnp.linalg.norm(jnp.real(weights @ shifts))
        rounding = 1000 * jnp.finfo(dtype).eps * (1 + jnp.linalg.norm(free))
        return jnp.where(drift <= radius * jnp.linalg.norm(response) + rounding, response, jnp.nan)


def _cast(tree: PyTree, dtype: Any) -> PyTree:
    return jax.tree.map(lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, tree)
