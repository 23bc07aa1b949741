r"""A river valley: what a learning rate gains along the river, and what its noise costs across the valley.

Set-up. Two parameters and

$$L = \tfrac12hx^2 - cy,$$

a valley of curvature $h$ across $x$ and a river that descends along $y$. Steps of `ScheduledDescent` with rates $\eta_k$
on batches of $B$ see the gradient $hx - \sigma\xi$ across, with $\xi$ of mean zero and variance $1/B$.

Theory. Averaged over the noise, $m = \mathbb E\,x^2$ and $y$ obey exactly

$$m\leftarrow(1 - \eta h)^2m + \eta^2\sigma^2/B,\qquad y\leftarrow y + \eta c.$$

At a constant rate $m$ settles at $m^* = \eta\sigma^2/(Bh(2 - \eta h))$, for $\eta h < 2$: the loss stays
$\tfrac12hm^*$ above the river, however far that has come. From there the rates $\eta_k = \eta/(2 + k\eta h)$,
$k = 0, 1, \dots$, give the smallest $m$ after any number of steps, $1/m_k = 1/m^* + kh^2B/\sigma^2$. A warmup, a long
stable phase and a short decay combine the progress of a large rate with the loss of a small one.

Loss: as above. Time: steps.

Source: the toy model of Wen et al. 2024 (arXiv 2410.05192) in its simplest form; moments and decay derived here.
"""

import abc
from typing import Any, ClassVar, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ...core import (
    AbstractRule,
    AbstractSampledTask,
    AbstractSolution,
    AbstractTask,
    Assumption,
    Kind,
    check_count,
    check_finite,
    check_positive,
    enforce,
    require,
)
from ._scheduled_descent import ScheduledDescent
from ._weight_decay import refuse_decay


class RiverPoint(eqx.Module):
    """Two parameters without a network.

    **Arguments:**

    - `x`: across the valley.
    - `y`: along the river.

    **Raises:**

    `ValueError` for anything but finite numbers.
    """

    x: Float[Array, "*times"]
    y: Float[Array, "*times"]

    def __init__(self, x: ArrayLike, y: ArrayLike):
        self.x, self.y = check_finite("x", x, scalar=True), check_finite("y", y, scalar=True)


class AbstractRiver(AbstractSampledTask):
    r"""$L = \tfrac12h(y)x^2 - cy$, with mini-batches whose gradient across the valley is $h(y)x - \sigma\xi$.

    An example is a standard normal $\xi$; the loss of a batch is $L - \sigma\bar\xi x$.
    """

    descent: eqx.AbstractVar[Float[Array, ""]]
    noise: eqx.AbstractVar[Float[Array, ""]]

    @abc.abstractmethod
    def curvature_at(self, y: Float[Array, ""]) -> Float[Array, ""]:
        """$h(y)$."""

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """The loss without noise."""
        return self.curvature_at(model.y) * model.x**2 / 2 - self.descent.astype(model.x.dtype) * model.y

    def sample(self, key: PRNGKeyArray, batch: int) -> Float[Array, " batch"]:
        """Standard normal numbers."""
        return jax.random.normal(key, (batch,), self.noise.dtype)

    def batch_loss(self, model: PyTree, batch: Float[Array, " batch"]) -> Float[Array, ""]:
        """The loss with the noise of a batch."""
        return self.loss(model) - (self.noise * jnp.mean(batch)).astype(model.x.dtype) * model.x


_River = TypeVar("_River", bound=AbstractRiver)


class RiverValley(AbstractRiver):
    r"""$L = \tfrac12hx^2 - cy$, with mini-batches whose gradient across the valley is $hx - \sigma\xi$.

    An example is a standard normal $\xi$; the loss of a batch is $L - \sigma\bar\xi x$.

    **Arguments:**

    - `curvature`: $h > 0$.
    - `descent`: $c$, the slope of the river.
    - `noise`: $\sigma\ge0$.

    **Raises:**

    `ValueError` for a curvature that is not positive, negative noise, or anything but finite numbers.
    """

    curvature: Float[Array, ""]
    descent: Float[Array, ""]
    noise: Float[Array, ""]

    def __init__(self, curvature: ArrayLike, descent: ArrayLike, noise: ArrayLike):
        self.curvature = check_positive("curvature", curvature, scalar=True)
        self.descent = check_finite("descent", descent, scalar=True)
        self.noise = check_positive("noise", noise, zero=True, scalar=True)

    def curvature_at(self, y: Float[Array, ""]) -> Float[Array, ""]:
        """The same everywhere."""
        return self.curvature.astype(y.dtype)


class RiverState(eqx.Module):
    r"""Where noisy descent is on average.

    **Attributes:**

    - `spread`: $m = \mathbb E\,x^2$; of a single run, $x^2$.
    - `river`: $y$.
    """

    spread: Float[Array, "*times"]
    river: Float[Array, "*times"]


class RiverDescent(AbstractSolution[RiverState]):
    """Moments of noisy descent in a river valley under any schedule of learning rates, after every step.

    Build it with `from_model`. Time is in steps: `evaluate(t)` is the state after `round(t)` of them. After the schedule
    the last rate goes on for ever.

    **Attributes:**

    - `task`: the valley.
    - `path`: the states after 0, 1, … scheduled steps, every array with a leading axis of length `steps + 1`.
    - `rate`: the last rate.
    - `power`: $\\sigma^2/B$, the variance of the gradient.
    """

    task: RiverValley
    path: RiverState
    rate: Float[Array, ""]
    power: Float[Array, ""]
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: PyTree, task: AbstractTask, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "RiverDescent":
        r"""The solution for a point and a schedule.

        **Arguments:**

        - `model`, `task`: a `RiverPoint` and a `RiverValley`.
        - `rule`: a `ScheduledDescent`; without `batch_size` there is no noise.
        - `check`: whether to refuse rates of $\eta h\ge2$, at which the valley throws the iterates out.

        **Raises:**

        `ValueError` if they are of another kind, or a rate is too large.
        """
        model, task, rule = river_case(cls.__name__, RiverValley, model, task, rule)
        dtype = model.x.dtype
        power = noise_power(task, rule, dtype)
        h, c = task.curvature.astype(dtype), task.descent.astype(dtype)
        rates = rule.rates.astype(dtype)

        def step(spread: Array, rate: Array) -> tuple[Array, Array]:
            spread = (1 - rate * h) ** 2 * spread + rate**2 * power
            return spread, spread

        spreads = jax.lax.scan(step, model.x**2, rates)[1]
        river = model.y + c * jnp.cumsum(rates)
        path = RiverState(jnp.concatenate([(model.x**2)[None], spreads]), jnp.concatenate([model.y[None], river]))
        solution = cls(task, path, rates[-1], power)
        return enforce(solution, cls.__name__, cls.assumptions(model, task, rule)) if check else solution

    @classmethod
    def assumptions(cls, model: PyTree, task: AbstractTask, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """What the theory takes for granted: rates at which the valley is stable."""
        model, task, rule = river_case(cls.__name__, RiverValley, model, task, rule)
        largest = jnp.max(rule.rates) * task.curvature.astype(rule.rates.dtype)
        return (Assumption("stable rates, ηh < 2", jnp.where(largest < 2, 0.0, largest), 0.0),)

    def state(self, t: Float[Array, ""]) -> RiverState:
        """The state after the whole number of steps nearest to `t`."""
        dtype = self.path.spread.dtype
        steps = jnp.rint(t.astype(dtype))
        last = self.path.spread.shape[0] - 1
        index = jnp.minimum(steps, last).astype(jnp.int32)
        spread, river = self.path.spread[index], self.path.river[index]
        h, c, eta = self.task.curvature.astype(dtype), self.task.descent.astype(dtype), self.rate
        more = jnp.where(eta == 0, 0.0, jnp.maximum(steps - last, 0))
        kept = jnp.maximum((1 - eta * h) ** 2, jnp.finfo(dtype).tiny)
        left = kept**more
        lost = eta * h * (2 - eta * h)
        # The sum of a geometric series.
        series = jnp.where(lost == 0, more, (1 - left) / jnp.where(lost == 0, 1.0, lost))
        gained = jnp.where(self.power == 0, 0.0, eta**2 * self.power * series)
        return RiverState(left * spread + gained, river + jnp.where(c == 0, 0.0, c * eta * more))

    def reduce(self, model: PyTree) -> RiverState:
        """The state of one run; theory speaks of the mean over its noise."""
        return RiverState(model.x**2, model.y)

    def limit(self) -> RiverState:
        """The state after infinitely many steps at the last rate; the river is infinitely far."""
        return self.state(jnp.asarray(jnp.inf, self.path.spread.dtype))

    def loss(self, state: RiverState) -> Float[Array, "*times"]:
        r"""The mean loss in a given state, $\tfrac12hm - cy$."""
        h, c = self.task.curvature, self.task.descent
        return h.astype(state.spread.dtype) * state.spread / 2 - c.astype(state.river.dtype) * state.river


def stationary_spread(task: RiverValley, rate: ArrayLike, batch_size: int = 1) -> Float[Array, ""]:
    r"""$m^* = \eta\sigma^2/(Bh(2 - \eta h))$, the mean of $x^2$ at which a constant rate settles.

    **Arguments:**

    - `task`: the valley.
    - `rate`: $\eta$.
    - `batch_size`: $B$.

    **Raises:**

    `ValueError` for a rate that is not positive, or of $\eta h\ge2$.
    """
    eta, h = check_positive("rate", rate, scalar=True), task.curvature
    eta = require(eta, eta * h < 2, "`rate` must be below 2 / curvature; the spread grows without bound otherwise.")
    return settled_spread(eta, h, task.noise**2 / batch_size)


def settled_spread(rate: Array, curvature: Array, power: Array) -> Array:
    """The fixed point of the mean of x², for noise of this variance; infinite where the valley throws iterates out."""
    lost = curvature * (2 - rate * curvature)
    return jnp.where(lost > 0, rate * power / jnp.where(lost > 0, lost, 1.0), jnp.inf)


def optimal_decay(rate: ArrayLike, curvature: ArrayLike, steps: int) -> Float[Array, " steps"]:
    r"""$\eta_k = \eta/(2 + k\eta h)$: the rates that lower the noise of a stable phase as fast as possible.

    After any number of these steps the mean of $x^2$ is the smallest that any rates give.

    **Arguments:**

    - `rate`: $\eta$, of the stable phase before.
    - `curvature`: $h$.
    - `steps`: how many.

    **Returns:**

    Shape `(steps,)`.

    **Raises:**

    `ValueError` for a rate or curvature that is not positive, or fewer steps than one.
    """
    eta, h = check_positive("rate", rate, scalar=True), check_positive("curvature", curvature, scalar=True)
    steps = check_count("steps", steps)
    return eta / (2 + jnp.arange(steps, dtype=eta.dtype) * eta * h.astype(eta.dtype))


def warmup_stable_decay(
    rate: ArrayLike, curvature: ArrayLike, warmup: int, stable: int, decay: int
) -> Float[Array, " steps"]:
    r"""Rates that rise in proportion to the step, stay, and fall by `optimal_decay`.

    **Arguments:**

    - `rate`: $\eta$, of the stable phase.
    - `curvature`: $h$, of the valley whose noise is to be lowered.
    - `warmup`, `stable`, `decay`: the steps of the three phases; `decay` at least one.

    **Returns:**

    Shape `(warmup + stable + decay,)`, for `ScheduledDescent`.

    **Raises:**

    `ValueError` for a rate or curvature that is not positive, numbers of steps that are negative or not whole, or a decay
    of less than one step.
    """
    warmup, stable = check_count("warmup", warmup, least=0), check_count("stable", stable, least=0)
    decay = check_count("decay", decay)
    falling = optimal_decay(rate, curvature, decay)
    eta = 2 * falling[0]
    rising = eta * jnp.arange(1, warmup + 1, dtype=eta.dtype) / max(warmup, 1)
    return jnp.concatenate([rising, jnp.full((stable,), eta), falling])


def noise_power(task: AbstractRiver, rule: ScheduledDescent, dtype: Any) -> Array:
    """The variance of the gradient across the valley; without batches there is none."""
    return task.noise.astype(dtype) ** 2 / rule.batch_size if rule.batch_size else jnp.zeros((), dtype)


def river_case(
    theory: str, river: type[_River], model: Any, task: Any, rule: Any
) -> tuple[RiverPoint, _River, ScheduledDescent]:
    """Model, task and rule, if they are what a theory of this kind of river is about."""
    for name, value, kind in (("model", model, RiverPoint), ("task", task, river), ("rule", rule, ScheduledDescent)):
        if not isinstance(value, kind):
            raise ValueError(f"`{name}` must be a {kind.__name__} for {theory}; got {type(value).__name__}.")
    return model, task, refuse_decay(rule, theory)
