r"""Consensus-based optimisation, where it can be solved: quadratic losses and Gaussian clouds.

Set-up. A loss $L(x) = \tfrac12(x-x_*)^\top A(x-x_*)$ in $d$ dimensions. The consensus point of a cloud $\rho$ of
particles is $x_\alpha = \int x\,e^{-\alpha L}d\rho\,/\int e^{-\alpha L}d\rho$; for $\rho = \mathcal N(\mu, S)$

$$x_\alpha = (I + \alpha SA)^{-1}(\mu + \alpha SA\,x_*),\qquad
-\tfrac1\alpha\ln\!\int\! e^{-\alpha L}d\rho = \tfrac1{2\alpha}\ln\det(I + \alpha SA)
+ \tfrac12(\mu-x_*)^\top A(I+\alpha SA)^{-1}(\mu-x_*),$$

the second of which falls to the minimum of the loss as $\alpha\to\infty$ (Laplace's principle). Hence consensus hopping
(`tx.rules.ConsensusHopping`), $x\leftarrow x_\alpha$ of $\mathcal N(x, s^2I)$ with infinitely many samples, is exactly a
step of implicit Euler on gradient flow, of length $\tau = \alpha s^2$: along an eigenvalue $a$ of $A$ the distance from
$x_*$ shrinks by $1/(1+\tau a)$, at any $\tau$. With $N$ samples it fluctuates by $N^{-1/2}$. Time is $\tau$ times the
number of steps.

For $N$ particles of `tx.rules.ConsensusFlow` at $\alpha = 0$, whatever the loss, the mean variance obeys
$\mathbb E\,V(t) = V(0)\,e^{-(2\lambda - d\sigma^2(1-1/N))\,t}$, $V = \tfrac1N\sum_i\lVert X_i-\bar X\rVert^2$: they
agree in mean square if $2\lambda > d\sigma^2(1-1/N)$.

Source: Riedl, Klock, Geldhauser and Fornasier 2023, arXiv 2306.09778; formulas for quadratic losses are elementary.
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
    check_matrix,
    check_positive,
    check_psd,
    require,
)
from ..rules import ConsensusFlow, ConsensusHopping
from ._potential import Point, QuadraticTask, check_points, without_rounding


class Position(eqx.Module):
    """Where a point is.

    **Attributes:**

    - `position`: $x$, shape `(dimension,)`.
    """

    position: Float[Array, "*times dimension"]


class ConsensusDescent(AbstractSolution[Position]):
    r"""Consensus hopping with infinitely many samples on a quadratic loss: implicit Euler, as a function of time.

    Build it with `from_model`. At whole multiples of $\tau = \alpha s^2$ it is the iteration; in between, the flow that
    passes through it, $x_* + (I + \tau A)^{-t/\tau}(x_0 - x_*)$. Gradient flow is the limit $\tau\to0$.

    **Attributes:**

    - `initial`: the position at time zero.
    - `rates`: $\ln(1+\tau a)/\tau$ of every mode, shape `(dimension,)`.
    - `modes`: the eigenvectors of $A$, as columns.
    - `task`: the loss.
    """

    initial: Position
    rates: Float[Array, " dimension"]
    modes: Float[Array, "dimension dimension"]
    task: QuadraticTask
    kind: ClassVar[Kind] = "asymptotic"

    @classmethod
    def from_model(cls, model: PyTree, task: PyTree, rule: PyTree, *, check: bool = True) -> "ConsensusDescent":
        """The path of a point.

        **Arguments:**

        - `model`: a `Point` with a position of shape `(dimension,)`.
        - `task`: a `QuadraticTask`.
        - `rule`: a `tx.rules.ConsensusHopping`.
        - `check`: has no effect; any start, width and temperature is covered.

        **Raises:**

        `ValueError` for another kind of model, task or rule, or sizes that do not fit.
        """
        del check
        model, task, rule = _check_case(model, task, rule)
        curvatures, modes = jnp.linalg.eigh(task.hessian)
        tau = rule.time_per_step.astype(curvatures.dtype)
        rates = jnp.log1p(tau * jnp.maximum(without_rounding(curvatures), 0.0)) / tau
        return cls(Position(model.position), rates, modes, task)

    @classmethod
    def assumptions(cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """None beyond the loss being quadratic and samples being many."""
        _check_case(model, task, rule)
        return ()

    def state(self, t: Float[Array, ""]) -> Position:
        """The position at time `t`."""
        # Flat directions do not move, for ever.
        exponent = self.rates * jnp.where(self.rates == 0, 0.0, t.astype(self.rates.dtype))
        offset = self.modes.T @ (self.initial.position - self.task.minimum)
        return Position(self.task.minimum + self.modes @ (jnp.exp(-exponent) * offset))

    def limit(self) -> Position:
        """The minimum, in all directions that are not flat."""
        return self.state(jnp.asarray(jnp.inf, self.rates.dtype))

    def vector_field(self, t: Float[Array, ""], state: Position) -> Position:
        """The flow that passes through the iteration."""
        del t
        offset = self.modes.T @ (state.position - self.task.minimum)
        return Position(-self.modes @ (self.rates * offset))

    def reduce(self, model: Point) -> Position:
        """Where the point is."""
        return Position(check_points(model, self.task, population=False)[0].position)


def consensus_point(
    task: PyTree, mean: ArrayLike, covariance: ArrayLike, inverse_temperature: ArrayLike
) -> Float[Array, " dimension"]:
    r"""$x_\alpha$ of a Gaussian cloud on a quadratic loss.

    **Arguments:**

    - `task`: a `QuadraticTask`.
    - `mean`, `covariance`: $\mu$ and $S$ of the cloud, shapes `(dimension,)` and `(dimension, dimension)`; the covariance
      may be singular.
    - `inverse_temperature`: $\alpha \ge 0$.

    **Raises:**

    `ValueError` for another task, wrong shapes, an indefinite covariance or a negative temperature.
    """
    task, mean, covariance, alpha = _check_cloud(task, mean, covariance, inverse_temperature)
    axes, curvatures = _cloud_axes(task, covariance)
    moved = axes @ (alpha / (1 + alpha * curvatures) * (axes.T @ task.hessian @ (mean - task.minimum)))
    return mean - moved


def laplace_minimum(
    task: PyTree, mean: ArrayLike, covariance: ArrayLike, inverse_temperature: ArrayLike
) -> Float[Array, ""]:
    r"""$-\tfrac1\alpha\ln\mathbb E\,e^{-\alpha L}$ of a Gaussian cloud on a quadratic loss.

    It falls from the mean loss at $\alpha = 0$ to the minimum (of what the cloud covers) as $\alpha\to\infty$.

    **Arguments:**

    - `task`, `mean`, `covariance`, `inverse_temperature`: as in `consensus_point`.

    **Raises:**

    `ValueError` as `consensus_point` does.
    """
    task, mean, covariance, alpha = _check_cloud(task, mean, covariance, inverse_temperature)
    _, curvatures = _cloud_axes(task, covariance)
    cold = alpha > 0
    safe = jnp.where(cold, alpha, 1.0)
    widths = jnp.where(cold, jnp.log1p(safe * curvatures) / safe, curvatures)
    offset = consensus_point(task, mean, covariance, alpha) - task.minimum
    return jnp.sum(widths) / 2 + (mean - task.minimum) @ task.hessian @ offset / 2


def consensus_rate(rule: PyTree, *, particles: int, dimension: int) -> Float[Array, ""]:
    r"""$2\lambda - d\sigma^2(1-1/N)$, the rate at which the mean variance of the particles decays at $\alpha = 0$.

    Negative where noise drives them apart in mean square.

    **Arguments:**

    - `rule`: a `tx.rules.ConsensusFlow` with zero inverse temperature.
    - `particles`: $N$.
    - `dimension`: $d$, the number of parameters of one particle.

    **Raises:**

    `ValueError` for another rule, a temperature that is not infinite, no particles or no dimension.
    """
    if not isinstance(rule, ConsensusFlow):
        raise ValueError(f"`rule` must be a ConsensusFlow; got {type(rule).__name__}.")
    for name, number in (("particles", particles), ("dimension", dimension)):
        check_count(name, number)
    drift = require(
        rule.drift,
        rule.inverse_temperature == 0,
        "`rule` must have an inverse temperature of 0: the consensus is then the mean, whatever the loss.",
    )
    noise = jnp.zeros_like(drift) if rule.noise_scale is None else rule.noise_scale.astype(drift.dtype)
    return 2 * drift - dimension * noise**2 * (1 - 1 / particles)


def _cloud_axes(task: QuadraticTask, covariance: Array) -> tuple[Array, Array]:
    """A root R of the covariance along whose columns the loss is curved independently, and these curvatures."""
    values, vectors = jnp.linalg.eigh(covariance)
    root = vectors * jnp.sqrt(jnp.maximum(values, 0.0))[None, :]
    curvatures, rotation = jnp.linalg.eigh(root.T @ task.hessian @ root)
    return root @ rotation, jnp.maximum(curvatures, 0.0)


def _check_case(model: Any, task: Any, rule: Any) -> tuple[Point, QuadraticTask, ConsensusHopping]:
    if not isinstance(rule, ConsensusHopping):
        raise ValueError(f"`rule` must be ConsensusHopping for ConsensusDescent; got {type(rule).__name__}.")
    return *check_points(model, task, population=False), rule


def _check_cloud(task: Any, mean: Any, covariance: Any, alpha: Any) -> tuple[QuadraticTask, Array, Array, Array]:
    if not isinstance(task, QuadraticTask):
        raise ValueError(f"`task` must be a QuadraticTask; got {type(task).__name__}.")
    size, dtype = task.minimum.shape[0], task.minimum.dtype
    mean = check_matrix("mean", mean, (size,)).astype(dtype)
    covariance = check_psd("covariance", covariance, size).astype(dtype)
    alpha = check_matrix("inverse_temperature", check_positive("inverse_temperature", alpha, zero=True), ())
    return task, mean, covariance, alpha.astype(dtype)
