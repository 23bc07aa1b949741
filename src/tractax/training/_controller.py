"""Steps adapted to an error tolerance, which give up on a run that leaves the finite numbers."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax.numpy as jnp
import optimistix
from jaxtyping import Array, Bool, Float, Int, PyTree


def default_controller(t1: Float[Array, ""], budget: Any = None) -> "GivingUp":
    """Tight tolerances for the precision of `t1`, the end of the run."""
    double = t1.dtype == jnp.float64
    controller = diffrax.PIDController(rtol=1e-8 if double else 1e-5, atol=1e-12 if double else 1e-8, norm=_norm)
    return GivingUp(controller, 1e-6 * jnp.finfo(t1.dtype).eps * t1, budget)  # pyright: ignore


class Pause(eqx.Module):
    """Where a run stands.

    **Attributes:**

    - `time`: how far it has come.
    - `length`: of its next step.
    - `steps`: those tried.
    - `paused`: whether it used up its budget of steps before it arrived.
    """

    time: Float[Array, ""]
    length: Float[Array, ""]
    steps: Int[Array, ""]
    paused: Bool[Array, ""]


class GivingUp(diffrax.AbstractAdaptiveStepSizeController):
    """A controller that ends the run before the next step would be shorter than `shortest`, or after `budget` steps.

    With a budget its state is `(state of the controller, Pause)`. Unlike `dtmin` of `diffrax.PIDController` it sets no
    result: a result that may change costs small networks half as much again. The times that were not reached say that
    the run was given up.
    """

    controller: diffrax.PIDController
    shortest: Float[Array, ""]
    budget: Int[Array, ""] | None = None

    @property
    def rtol(self) -> Any:
        """The relative tolerance."""
        return self.controller.rtol

    @property
    def atol(self) -> Any:
        """The absolute tolerance."""
        return self.controller.atol

    @property
    def norm(self) -> Callable[[PyTree], Any]:
        """What is kept below the tolerances."""
        return self.controller.norm

    def wrap(self, direction: Any) -> "GivingUp":
        """For integration in a direction of time."""
        return GivingUp(self.controller.wrap(direction), self.shortest, self.budget)  # pyright: ignore

    def init(
        self, terms: Any, t0: Any, t1: Any, y0: PyTree, dt0: Any, args: Any, func: Any, error_order: Any
    ) -> tuple[Any, Any]:
        """The end of the first step."""
        end, state = self.controller.init(terms, t0, t1, y0, dt0, args, func, error_order)
        if self.budget is None:
            return end, state
        t0 = jnp.asarray(t0, self.shortest.dtype)
        return end, (state, Pause(t0, jnp.asarray(end, t0.dtype) - t0, jnp.int32(0), jnp.asarray(False)))

    def adapt_step_size(
        self, t0: Any, t1: Any, y0: PyTree, y1_candidate: PyTree, args: Any, y_error: Any, error_order: Any, state: Any
    ) -> tuple[Any, Any, Any, Any, Any, diffrax.RESULTS]:
        """Whether to keep a step, and the next one."""
        inner, pause = (state, None) if self.budget is None else state
        keep, next_t0, next_t1, made_jump, inner, result = self.controller.adapt_step_size(
            t0, t1, y0, y1_candidate, args, y_error, error_order, inner
        )
        give_up = next_t1 - next_t0 < self.shortest
        if pause is not None:
            steps = pause.steps + 1
            spent = steps >= self.budget
            pause = Pause(next_t0, next_t1 - next_t0, steps, spent & ~give_up)
            give_up = give_up | spent
        next_t0, next_t1 = (jnp.where(give_up, jnp.inf, t) for t in (next_t0, next_t1))
        return keep, next_t0, next_t1, made_jump, inner if pause is None else (inner, pause), result


def _norm(error: PyTree) -> Array:
    """The root mean square, with NaN as an infinite error, so that steps shrink instead of being retried."""
    rms = optimistix.rms_norm(error)
    return jnp.where(jnp.isnan(rms), jnp.inf, rms)
