r"""Averages over Langevin dynamics on the sphere: they show what single iterates hide.

Set-up. Directions $\theta$ on the unit sphere of $\mathbb R^d$ move by Langevin dynamics at temperature $D$
(`SphericalLangevin`) in the energy $L = -\langle T, \theta^{\otimes k}\rangle$ of a symmetric tensor of order $k$. Time
is that of the flow.

Without energy the dynamics is Brownian motion. Linear and quadratic functions of $\theta$ decay at the rates $(d-1)D$ and
$2dD$ of the Laplacian, exactly and from any start,

$$\mathbb E\theta_t = e^{-(d-1)Dt}\,\theta_0,\qquad
\mathbb E\,\theta_t\theta_t^\top - \tfrac1dI = e^{-2dDt}\big(\theta_0\theta_0^\top - \tfrac1dI\big).$$

With a small energy and uniform starts the same rates lead to the averages of Gibbs' law $\propto e^{-L/D}$. To first
order in $1/D$ these hold the partial trace $P$ of the tensor and nothing else of it, for odd and even $k$:

$$\mathbb E\theta_t = \frac{1 - e^{-(d-1)Dt}}{D}\;\frac{k!!}{d(d+2)\cdots(d+k-1)}\,P + O(D^{-3}),$$

$$\mathbb E\,\theta_t\theta_t^\top - \tfrac1dI = \frac{1 - e^{-2dDt}}{D}\;\frac{k\,(k-1)!!}{d(d+2)\cdots(d+k)}
\Big(P - \tfrac{\operatorname{tr}P}dI\Big) + O(D^{-2}).$$

Uniform starts keep the mean at zero for even $k$, and odd $k$ move the second moment by $O(D^{-2})$ only.

Source: "Improved high-dimensional estimation with Langevin dynamics and stochastic weight averaging" 2026, arXiv
2603.06028, for the idea that averaged iterates compute partial traces.
"""

import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import (
    AbstractRule,
    AbstractSolution,
    AbstractTask,
    Assumption,
    Kind,
    as_float_array,
    check_count,
    check_positive,
    enforce,
    require,
    tolerance_for,
)
from ..special import exprel
from ._partial_trace import odd_factorial, partial_trace
from ._spherical import AbstractSpherical
from ._spherical_langevin import SphericalLangevin
from ._tensor_pca import TensorPCATask, check_direction

# The typical energy, in temperatures, up to which the first order is offered.
_WEAK = 0.5


class SphereMoments(eqx.Module):
    r"""Averages over directions on the sphere.

    **Attributes:**

    - `mean`: $\mathbb E\theta$, shape `(in,)`.
    - `second`: $\mathbb E\theta\theta^\top$, shape `(in, in)`.
    """

    mean: Float[Array, "*times in"]
    second: Float[Array, "*times in in"]


class AbstractSphereMoments(AbstractSolution[SphereMoments]):
    """Moments that relax at the rates of Brownian motion on the sphere.

    **Attributes:**

    - `initial`, `final`: the moments at time zero and in the end.
    - `temperature`: $D$.
    """

    initial: eqx.AbstractVar[SphereMoments]
    final: eqx.AbstractVar[SphereMoments]
    temperature: eqx.AbstractVar[Float[Array, ""]]

    def state(self, t: Float[Array, ""]) -> SphereMoments:
        """The moments at time `t`, averaged over noise (and starts, where these are random)."""
        return self._between(lambda rate: jnp.exp(-rate * t), lambda rate: -jnp.expm1(-rate * t))

    def time_average(self, t: ArrayLike) -> SphereMoments:
        """The moments averaged over the time up to `t` as well: those of averaged iterates."""
        t = as_float_array("t", t).astype(self.temperature.dtype)
        t = require(t, t >= 0, f"`t` must be a time, t >= 0; got {t}.")
        return self._between(lambda rate: exprel(-rate * t), lambda rate: 1 - exprel(-rate * t))

    def limit(self) -> SphereMoments:
        """The moments as t → ∞."""
        return self.final

    def vector_field(self, t: Float[Array, ""], state: SphereMoments) -> SphereMoments:
        """Relaxation, at one rate for the mean and another for second moments."""
        del t
        rates, final = self._rates(), self.final
        return SphereMoments(rates.mean * (final.mean - state.mean), rates.second * (final.second - state.second))

    def reduce(self, model: AbstractSpherical) -> SphereMoments:
        """The moments of a single direction, to be averaged over runs."""
        return _moments_of(check_direction(model, self.initial.mean.size))

    def _rates(self) -> SphereMoments:
        size = self.initial.mean.size
        return SphereMoments((size - 1) * self.temperature[None], 2 * size * self.temperature[None, None])

    def _between(self, kept: Any, reached: Any) -> SphereMoments:
        # What has no preferred direction does not move.
        uniform = _uniform(self.initial.mean.size, self.initial.mean.dtype)

        def weigh(rate: Array, still: Array, start: Array, end: Array) -> Array:
            return still + kept(rate) * (start - still) + reached(rate) * (end - still)

        return jax.tree.map(weigh, self._rates(), uniform, self.initial, self.final)


class SphericalDiffusion(AbstractSphereMoments):
    """Brownian motion on the sphere from the model's direction; exact.

    Build it with `from_model`, for a task without energy.

    **Attributes:**

    - `initial`, `final`: the moments at time zero and in the end.
    - `temperature`: $D$.
    """

    initial: SphereMoments
    final: SphereMoments
    temperature: Float[Array, ""]
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: PyTree, task: AbstractTask, rule: AbstractRule, *, check: bool = True
    ) -> "SphericalDiffusion":
        """The moments from the model's direction, having checked that there is no energy.

        **Arguments:**

        - `model`, `task`, `rule`: with a `direction`, a `TensorPCATask`, a `SphericalLangevin`.
        - `check`: whether to refuse an energy.

        **Raises:**

        `ValueError` for another kind of model, task or rule, a temperature of zero, or an energy.
        """
        direction, task, temperature = _check_case(model, task, rule)
        solution = cls(_moments_of(direction), _uniform(direction.size, direction.dtype), temperature)
        return enforce(solution, cls.__name__, cls.assumptions(model, task, rule)) if check else solution

    @classmethod
    def assumptions(cls, model: PyTree, task: AbstractTask, rule: AbstractRule) -> tuple[Assumption, ...]:
        """That the energy is zero."""
        energy = _energy(model, task, rule)
        return (Assumption("no energy (root mean square, in temperatures)", energy, tolerance_for(energy)),)


class AveragedLangevin(AbstractSphereMoments):
    """Langevin dynamics from uniform starts, to first order in energy over temperature.

    Build it with `from_model`; the model gives the dimension, and its direction has no effect: the start is an average
    over all directions. The relative error falls as $D^{-2}$ for odd orders and as $D^{-1}$ for even ones.

    **Attributes:**

    - `initial`, `final`: the moments at time zero and in the end.
    - `temperature`: $D$.
    """

    initial: SphereMoments
    final: SphereMoments
    temperature: Float[Array, ""]
    kind: ClassVar[Kind] = "asymptotic"

    @classmethod
    def from_model(
        cls, model: PyTree, task: AbstractTask, rule: AbstractRule, *, check: bool = True
    ) -> "AveragedLangevin":
        """The averages, having checked that energies are small.

        **Arguments:**

        - `model`, `task`, `rule`: with a `direction`, a `TensorPCATask`, a `SphericalLangevin`.
        - `check`: whether to refuse a typical energy above half a temperature.

        **Raises:**

        `ValueError` for another kind of model, task or rule, a temperature of zero, or a large energy.
        """
        direction, task, temperature = _check_case(model, task, rule)
        k, size = task.order, direction.size
        uniform = _uniform(size, direction.dtype)
        trace = partial_trace(task.tensor).astype(direction.dtype) / temperature
        if k % 2 == 1:
            weight = odd_factorial(k) / math.prod(range(size, size + k, 2))
            final = SphereMoments(weight * trace, uniform.second)
        else:
            weight = k * odd_factorial(k - 1) / math.prod(range(size, size + k + 1, 2))
            final = SphereMoments(uniform.mean, uniform.second + weight * (trace - jnp.trace(trace) * uniform.second))
        solution = cls(uniform, final, temperature)
        return enforce(solution, cls.__name__, cls.assumptions(model, task, rule)) if check else solution

    @classmethod
    def assumptions(cls, model: PyTree, task: AbstractTask, rule: AbstractRule) -> tuple[Assumption, ...]:
        """That energies are small compared with the temperature."""
        return (Assumption("small energies (root mean square, in temperatures)", _energy(model, task, rule), _WEAK),)


def diffusion_average_square(duration: ArrayLike, *, size: int, temperature: ArrayLike = 1.0) -> Float[Array, "..."]:
    r"""$\mathbb E\lVert\bar\theta\rVert^2$ of the average $\bar\theta$ over one path of Brownian motion on the sphere.

    The noise that an average over time has left: $2(x - 1 + e^{-x})/x^2$ with $x = (d-1)Dt$, about $2/x$ at large times.

    **Arguments:**

    - `duration`: $t \ge 0$, the time of averaging.
    - `size`: $d \ge 2$.
    - `temperature`: $D > 0$.

    **Raises:**

    `ValueError` for a negative duration, a size below 2 or a temperature that is not positive.
    """
    size = check_count("size", size, least=2)
    duration = check_positive("duration", duration, zero=True)
    x = (size - 1) * check_positive("temperature", temperature).astype(duration.dtype) * duration
    late = jnp.where(x < 1, 1.0, x)
    early = jnp.where(x < 1, x, 0.0)
    slope = jax.jvp(exprel, (early,), (jnp.ones_like(early),))[1]
    return jnp.where(x < 1, 2 * jnp.exp(-early) * slope, 2 * (late + jnp.expm1(-late)) / late**2)


def _moments_of(direction: Float[Array, " in"]) -> SphereMoments:
    return SphereMoments(direction, direction[:, None] * direction[None, :])


def _uniform(size: int, dtype: Any) -> SphereMoments:
    return SphereMoments(jnp.zeros(size, dtype), jnp.eye(size, dtype=dtype) / size)


def _energy(model: Any, task: Any, rule: Any) -> Float[Array, ""]:
    """The typical energy in temperatures."""
    _, task, temperature = _check_case(model, task, rule)
    return task.typical_energy().astype(temperature.dtype) / temperature


def _check_case(model: Any, task: Any, rule: Any) -> tuple[Float[Array, " in"], TensorPCATask, Float[Array, ""]]:
    """The direction, the task and the temperature."""
    if not isinstance(task, TensorPCATask):
        raise ValueError(f"`task` must be a TensorPCATask; got {type(task).__name__}.")
    if not isinstance(rule, SphericalLangevin):
        raise ValueError(f"`rule` must be SphericalLangevin; got {type(rule).__name__}.")
    direction = check_direction(model, task.size)
    if direction.size < 2:
        raise ValueError(f"`model` must have at least 2 inputs, for a sphere to move on; got {direction.size}.")
    temperature = rule.temperature.astype(direction.dtype)
    message = f"`rule` must have a positive `temperature`; got {temperature}."
    return direction, task, require(temperature, temperature > 0, message)
