r"""A river whose valley narrows or widens: noise pushes descent towards where it is wide.

Set-up. Two parameters and

$$L = \tfrac12h(y)x^2 - cy,$$

a valley whose curvature $h$ depends on the position $y$ along the river. Steps of `ScheduledDescent` with rates
$\eta_k$ on batches of $B$ see the gradient $h(y)x - \sigma\xi$ across, with $\xi$ of mean zero and variance $1/B$, and
$\tfrac12h'(y)x^2 - c$ along.

Theory. While $y$ moves slowly, $x^2$ is on average what it would settle at if $y$ stood still, so that

$$y\leftarrow y + \eta\big[c - \tfrac12h'(y)\,m^*(h(y))\big],\qquad m^*(h) = \frac{\eta\sigma^2}{Bh(2 - \eta h)}.$$

The push is proportional to $\eta$: a large rate goes no further than where $h'm^* = 2c$, and a decay of the rate sets it
free. For a river of slope $c\propto\eta$, as strong as the push, and a fixed $\eta^2k$, the mean of $y$ differs from the
quasi-static one by $O(\eta)$.

Loss: as above. Time: steps.

Source: the toy model of Wen et al. 2024 (arXiv 2410.05192), whose valleys are those of a general loss; the quasi-static
step is derived here.
"""

from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ...core import (
    AbstractRule,
    AbstractSolution,
    AbstractTask,
    Assumption,
    Kind,
    check_count,
    check_finite,
    check_positive,
    enforce,
)
from ._river_valley import AbstractRiver, RiverPoint, RiverState, noise_power, river_case, settled_spread
from ._scheduled_descent import ScheduledDescent


class NarrowingValley(AbstractRiver):
    r"""$L = \tfrac12h(y)x^2 - cy$, with mini-batches whose gradient across the valley is $h(y)x - \sigma\xi$.

    An example is a standard normal $\xi$; the loss of a batch is $L - \sigma\bar\xi x$.

    **Arguments:**

    - `curvature`: $h$, a function of one number, positive and differentiable by JAX; such as `jnp.exp`.
    - `descent`: $c$, the slope of the river.
    - `noise`: $\sigma\ge0$.

    **Raises:**

    `ValueError` for a curvature that is no function, negative noise, or anything but finite numbers.
    """

    curvature: Callable
    descent: Float[Array, ""]
    noise: Float[Array, ""]

    def __init__(self, curvature: PyTree, descent: ArrayLike, noise: ArrayLike):
        if not callable(curvature):
            raise ValueError(f"`curvature` must be a function of the position along the river; got {curvature!r}.")
        self.curvature = curvature
        self.descent = check_finite("descent", descent, scalar=True)
        self.noise = check_positive("noise", noise, zero=True, scalar=True)

    def curvature_at(self, y: Float[Array, ""]) -> Float[Array, ""]:
        """$h(y)$."""
        return jnp.asarray(self.curvature(y), y.dtype)


class QuasiStaticRiver(AbstractSolution[RiverState]):
    r"""Noisy descent in a valley that changes slowly, after every step.

    Build it with `from_model`. Time is in steps: `evaluate(t)` is the state after `round(t)` of them, whose `spread` is
    the $m^*$ of the place and the rate. It speaks of the mean over the noise.

    **Attributes:**

    - `task`: the valley.
    - `path`: the states after 0, 1, … steps, every array with a leading axis of length `steps + 1`.
    """

    task: NarrowingValley
    path: RiverState
    kind: ClassVar[Kind] = "asymptotic"

    @classmethod
    def from_model(
        cls,
        model: PyTree,
        task: AbstractTask,
        rule: AbstractRule | None = None,
        *,
        steps: int | None = None,
        check: bool = True,
    ) -> "QuasiStaticRiver":
        r"""The solution for a point and a schedule.

        **Arguments:**

        - `model`, `task`: a `RiverPoint` and a `NarrowingValley`.
        - `rule`: a `ScheduledDescent`; without `batch_size` there is no noise.
        - `steps`: how many steps to solve; `None` for those of the schedule, whose last rate goes on beyond.
        - `check`: whether to refuse a valley that throws the iterates out, a start far up its side, or a spread that
          would have to change by a tenth or more within the time in which it relaxes.

        **Raises:**

        `ValueError` if they are of another kind, or for what `check` refuses.
        """
        model, task, rule = river_case(cls.__name__, NarrowingValley, model, task, rule)
        steps = rule.rates.shape[0] if steps is None else check_count("steps", steps)
        solution = cls(task, _path(model, task, rule, steps)[0])
        return enforce(solution, cls.__name__, cls.assumptions(model, task, rule, steps)) if check else solution

    @classmethod
    def assumptions(
        cls, model: PyTree, task: AbstractTask, rule: AbstractRule | None = None, steps: int | None = None
    ) -> tuple[Assumption, ...]:
        """What the theory takes for granted, measured along its own path."""
        model, task, rule = river_case(cls.__name__, NarrowingValley, model, task, rule)
        path, sharpness = _path(model, task, rule, rule.rates.shape[0] if steps is None else steps)
        spread = path.spread
        unstable = jnp.maximum(sharpness - 2, -sharpness)
        change = _ratio(jnp.abs(jnp.diff(spread)), 2 * sharpness[:-1] * spread[:-1])
        return (
            Assumption("a stable valley, 0 < ηh(y) < 2", jnp.max(jnp.where(unstable < 0, 0.0, 1 + unstable)), 0.0),
            Assumption("a start within the noise, x² ≲ m*", _ratio(model.x**2, spread[0]), 16.0),
            Assumption("a spread that changes slowly, |Δm*| ≪ 2ηh m*", jnp.max(change), 0.1),
        )

    @property
    def t1(self) -> Float[Array, ""]:
        """The horizon: the last step."""
        return jnp.asarray(self.path.river.shape[0] - 1, self.path.river.dtype)

    def state(self, t: Float[Array, ""]) -> RiverState:
        """The state after the whole number of steps nearest to `t <= t1`."""
        step = jnp.rint(t.astype(self.path.river.dtype)).astype(jnp.int32)
        return jax.tree.map(lambda x: x[step], self.path)

    def reduce(self, model: PyTree) -> RiverState:
        """The state of one run; theory speaks of the mean over its noise."""
        return RiverState(model.x**2, model.y)

    def loss(self, state: RiverState) -> Float[Array, "*times"]:
        r"""The mean loss in a given state, $\tfrac12h(y)m - cy$."""
        curvature = jnp.vectorize(self.task.curvature_at)(state.river)
        return curvature * state.spread / 2 - self.task.descent.astype(state.river.dtype) * state.river


def _path(model: RiverPoint, task: NarrowingValley, rule: ScheduledDescent, steps: int) -> tuple[RiverState, Array]:
    """Spread and position before and after every step, and ηh there."""
    dtype = model.y.dtype
    rates, power, c = rule.rates.astype(dtype), noise_power(task, rule, dtype), task.descent.astype(dtype)

    def step(y: Array, k: Array) -> tuple[Array, tuple[RiverState, Array]]:
        eta = rates[jnp.minimum(k, rates.shape[0] - 1)]
        h, bend = jax.value_and_grad(task.curvature_at)(y)
        spread = settled_spread(eta, h, power)
        # A valley that does not bend pushes nowhere, however wide the spread.
        push = jnp.where(bend == 0, 0.0, bend * spread / 2)
        return y + eta * (c - push), (RiverState(spread, y), eta * h)

    return jax.lax.scan(step, model.y, jnp.arange(steps + 1))[1]


def _ratio(part: Array, whole: Array) -> Array:
    """Infinite against nothing, unless there is no part either."""
    safe = jnp.where(whole > 0, whole, 1.0)
    return jnp.where(part == 0, 0.0, jnp.where(whole > 0, part / safe, jnp.inf))
