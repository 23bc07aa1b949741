r"""Learners that pull at each other average out their noise.

Set-up. $n$ learners $x_i\in\mathbb R^d$ on the same loss $f$, coupled by the Laplacian $\Lambda$ of a graph, each shaken
by its own white noise: $dx_i = -\nabla f(x_i)\,dt - \kappa\sum_j\Lambda_{ij}x_j\,dt + \sigma\,dW_i$. Time is flow time.

Theory. For $f = \tfrac12(x-x_*)^\top H(x-x_*)$, exact: in the modes $\ell$ of $\Lambda$ and $h$ of $H$ every component is
an Ornstein-Uhlenbeck process of rate $r = h + \kappa\ell$,

$$\mathbb E\,y = y_0e^{-rt},\qquad \mathbb E\,y^2 = y_0^2e^{-2rt} + \sigma^2\,\frac{1 - e^{-2rt}}{2r}.$$

The mode $\ell = 0$ is $\sqrt n$ times the mean $\bar x$, which relaxes as if alone and feels the noise $\sigma^2/n$; the
others make up the spread $\sum_i\lVert x_i - \bar x\rVert^2$, which coupling suppresses. For any loss with
$\nabla^2f\succeq\mu I$, of either sign, a bound: with $\lambda_2$ the smallest of the others and
$r = \mu + \kappa\lambda_2$,

$$\mathbb E\sum_i\lVert x_i(t)-\bar x(t)\rVert^2 \le e^{-2rt}\,\sum_i\lVert x_i(0)-\bar x(0)\rVert^2
+ (n-1)\,d\,\sigma^2\,\frac{1-e^{-2rt}}{2r},$$

with equality for the complete graph and $H = \mu I$.

Source: Bouvrie and Slotine 2013, arXiv 1312.1632, for the mechanism; the formulas follow from Ito's lemma.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import (
    AbstractRule,
    AbstractSolution,
    Assumption,
    Kind,
    check_count,
    check_finite,
    check_matrix,
    check_positive,
    require,
)
from ..rules import CoupledFlow, refuse_decay
from ..special import decay_integral
from ._potential import Point, QuadraticTask, check_points, without_rounding


class CoupledModes(eqx.Module):
    """The modes of a population: of theory the moments, of a simulation the modes and their squares.

    **Attributes:**

    - `first`: the mean of each mode, shape `(learners, dimension)`: a row for each mode of the graph, the mean of all
      learners (times the root of their number) first, and a column for each mode of the Hessian.
    - `second`: the mean square of each mode, of the same shape.
    """

    first: Float[Array, "*times learners dimension"]
    second: Float[Array, "*times learners dimension"]

    @property
    def spread(self) -> Float[Array, "*times"]:
        r"""$\mathbb E\sum_i\lVert x_i - \bar x\rVert^2$."""
        return jnp.sum(self.second[..., 1:, :], axis=(-2, -1))

    @property
    def error(self) -> Float[Array, "*times"]:
        r"""$\mathbb E\lVert\bar x - x_*\rVert^2$."""
        return jnp.sum(self.second[..., 0, :], axis=-1) / self.second.shape[-2]


class CoupledLearners(AbstractSolution[CoupledModes]):
    """The exact first and second moments of coupled noisy learners on a quadratic loss.

    Build it with `from_model`. What `reduce` reads off one simulation has these moments on average over the noise;
    without noise it is the same.

    **Attributes:**

    - `initial`: the modes at time zero.
    - `rates`: $r = h + \\kappa\\ell$, shape `(learners, dimension)`.
    - `graph_modes`, `curvature_modes`: the eigenvectors of the Laplacian and of the Hessian, as columns.
    - `noise_scale`: $\\sigma$.
    - `task`: the loss.
    """

    initial: CoupledModes
    rates: Float[Array, "learners dimension"]
    graph_modes: Float[Array, "learners learners"]
    curvature_modes: Float[Array, "dimension dimension"]
    noise_scale: Float[Array, ""]
    task: QuadraticTask
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(cls, model: PyTree, task: PyTree, rule: PyTree, *, check: bool = True) -> "CoupledLearners":
        """The solution for a population of points.

        **Arguments:**

        - `model`: a `Point` with a position of shape `(learners, dimension)`.
        - `task`: a `QuadraticTask`.
        - `rule`: a `tx.rules.CoupledFlow`.
        - `check`: has no effect; any start, graph and noise is covered.

        **Raises:**

        `ValueError` for another kind of model, task or rule, or sizes that do not fit.
        """
        del check
        model, task, rule = _check_case(model, task, rule)
        dtype = model.position.dtype
        values, graph_modes = laplacian_modes(rule)
        curvatures, curvature_modes = jnp.linalg.eigh(task.hessian)
        curvatures = without_rounding(curvatures)
        rates = curvatures.astype(dtype)[None, :] + rule.coupling.astype(dtype) * values.astype(dtype)[:, None]
        noise = jnp.zeros((), dtype) if rule.noise_scale is None else rule.noise_scale.astype(dtype)
        graph_modes, curvature_modes = oriented(graph_modes).astype(dtype), oriented(curvature_modes).astype(dtype)
        initial = _modes(model, task, graph_modes, curvature_modes)
        return cls(initial, rates, graph_modes, curvature_modes, noise, task)

    @classmethod
    def assumptions(cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """None beyond the loss being quadratic."""
        _check_case(model, task, rule)
        return ()

    def state(self, t: Float[Array, ""]) -> CoupledModes:
        """The moments at time `t`."""
        r, t = self.rates, t.astype(self.rates.dtype)
        decay = _exponential(-r, t)
        # What starts at rest stays so, however fast the mode grows.
        first = self.initial.first * jnp.where((self.initial.first == 0) & (decay == jnp.inf), 1.0, decay)
        noisy = self.noise_scale > 0
        shaken = self.noise_scale**2 * decay_integral(2 * r, jnp.where(noisy, t, 0.0))
        return CoupledModes(first, first**2 + shaken)

    def limit(self) -> CoupledModes:
        """The moments as t → ∞; infinite for a mode that nothing holds back."""
        return self.state(jnp.asarray(jnp.inf, self.rates.dtype))

    def vector_field(self, t: Float[Array, ""], state: CoupledModes) -> CoupledModes:
        """The flow of the moments."""
        del t
        return CoupledModes(-self.rates * state.first, self.noise_scale**2 - 2 * self.rates * state.second)

    def reduce(self, model: Point) -> CoupledModes:
        """The modes of an actual population, and their squares."""
        model, task = check_points(model, self.task, population=True)
        return _modes(model, task, self.graph_modes, self.curvature_modes)

    def mean_positions(self, state: CoupledModes) -> Float[Array, "learners dimension"]:
        r"""$\mathbb E\,x_i$ of every learner."""
        return self.graph_modes @ state.first @ self.curvature_modes.T + self.task.minimum[None, :]


def spread_bound(
    rule: PyTree,
    *,
    dimension: int,
    curvature: ArrayLike,
    t: ArrayLike = jnp.inf,
    initial_spread: ArrayLike = 0.0,
) -> Float[Array, ""]:
    r"""An upper bound on $\mathbb E\sum_i\lVert x_i - \bar x\rVert^2$ for any loss whose curvature is bounded below.

    **Arguments:**

    - `rule`: a `tx.rules.CoupledFlow`.
    - `dimension`: $d$, the number of parameters of one learner.
    - `curvature`: $\mu$, with $\nabla^2 f\succeq\mu I$ everywhere; negative where the loss is not convex.
    - `t`: time; infinity for the stationary state, where the bound is finite if $\mu + \kappa\lambda_2 > 0$.
    - `initial_spread`: $\sum_i\lVert x_i(0)-\bar x(0)\rVert^2$.

    **Raises:**

    `ValueError` for another rule, no dimension, a negative time or spread.
    """
    if not isinstance(rule, CoupledFlow):
        raise ValueError(f"`rule` must be a CoupledFlow; got {type(rule).__name__}.")
    dimension = check_count("dimension", dimension)
    values, _ = laplacian_modes(refuse_decay(rule, CoupledLearners.__name__))
    others = values.shape[0] - 1
    if others == 0:
        return jnp.zeros((), values.dtype)
    dtype = values.dtype
    start = check_positive("initial_spread", initial_spread, zero=True).astype(dtype)
    t = jnp.asarray(t, dtype)
    t = require(t, t >= 0, "`t` must be a time, t >= 0.")
    rate = check_finite("curvature", curvature).astype(dtype) + rule.coupling.astype(dtype) * jnp.min(values[1:])
    noise = jnp.zeros((), dtype) if rule.noise_scale is None else rule.noise_scale.astype(dtype)
    remembered = start * _exponential(-2 * rate, jnp.where(start > 0, t, 0.0))
    return remembered + others * dimension * noise**2 * decay_integral(2 * rate, jnp.where(noise > 0, t, 0.0))


def graph_laplacian(adjacency: ArrayLike) -> Float[Array, "nodes nodes"]:
    """The Laplacian of a graph: on the diagonal the degrees, elsewhere minus the weights of the edges.

    **Arguments:**

    - `adjacency`: symmetric, non-negative weights of edges, shape `(nodes, nodes)`; its diagonal has no effect.

    **Raises:**

    `ValueError` if it is not symmetric or has negative weights.
    """
    weights = check_positive("adjacency", check_matrix("adjacency", adjacency), zero=True)
    if weights.shape[0] != weights.shape[1]:
        raise ValueError(f"`adjacency` must be square; got shape {weights.shape}.")
    weights = require(weights, jnp.all(weights == weights.T), "`adjacency` must be symmetric.")
    return jnp.diag(jnp.sum(weights, axis=1)) - weights


def laplacian_modes(rule: CoupledFlow) -> tuple[Float[Array, " learners"], Float[Array, "learners learners"]]:
    """Eigenvalues and eigenvectors of the Laplacian, that of the mean of all learners first, whatever else is zero."""
    laplacian = rule.laplacian
    n = laplacian.shape[0]
    # Lifted above all others, the uniform mode is the last one, and mixes with no other mode.
    lift = 1 + 2 * n * jnp.max(jnp.abs(laplacian))
    values, modes = jnp.linalg.eigh(laplacian + lift / n)
    uniform = jnp.full((n, 1), n**-0.5, laplacian.dtype)
    zero = jnp.zeros(1, laplacian.dtype)
    return without_rounding(jnp.concatenate([zero, values[:-1]])), jnp.concatenate([uniform, modes[:, :-1]], axis=1)


def oriented(vectors: Float[Array, "size modes"]) -> Float[Array, "size modes"]:
    """Eigenvectors with signs that do not depend on how they were computed (if their eigenvalues are separate)."""
    # No simple vector is orthogonal to the roots of whole numbers.
    generic = jnp.sqrt(jnp.arange(1, vectors.shape[0] + 1, dtype=vectors.dtype))
    return vectors * jnp.where(generic @ vectors < 0, -1.0, 1.0)[None, :]


def _exponential(rate: Array, t: Array) -> Array:
    """exp(rate t), up to t = ∞; one for ever at rate zero."""
    ended = jnp.isinf(t)
    end = jnp.where(rate < 0, 0.0, jnp.where(rate > 0, jnp.inf, 1.0))
    return jnp.where(ended, end, jnp.exp(rate * jnp.where(ended, 0.0, t)))


def _modes(model: Point, task: QuadraticTask, graph_modes: Array, curvature_modes: Array) -> CoupledModes:
    modes = graph_modes.T @ (model.position - task.minimum[None, :]) @ curvature_modes
    return CoupledModes(modes, modes**2)


def _check_case(model: Any, task: Any, rule: Any) -> tuple[Point, QuadraticTask, CoupledFlow]:
    if not isinstance(rule, CoupledFlow):
        raise ValueError(f"`rule` must be a CoupledFlow for CoupledLearners; got {type(rule).__name__}.")
    model, task = check_points(model, task, population=True)
    rule.init(model)
    return model, task, refuse_decay(rule, CoupledLearners.__name__)
