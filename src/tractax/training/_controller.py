"""Steps adapted to an error tolerance, which give up on a run that leaves the finite numbers."""

from collections.abc import Callable
from typing import Any

import diffrax
import jax.numpy as jnp
import optimistix
from jaxtyping import Array, Float, PyTree


def default_controller(t1: Float[Array, ""]) -> "GivingUp":
    """Tight tolerances for the precision of `t1`, the end of the run."""
    double = t1.dtype == jnp.float64
    controller = diffrax.PIDController(rtol=1e-8 if double else 1e-5, atol=1e-12 if double else 1e-8, norm=_norm)
    return GivingUp(controller, 1e-6 * jnp.finfo(t1.dtype).eps * t1)  # pyright: ignore


class GivingUp(diffrax.AbstractAdaptiveStepSizeController):
    """A controller that ends the run before the next step would be shorter than `shortest`.

    Unlike `dtmin` of `diffrax.PIDController` it sets no result: a result that may change costs small networks half as
    much again. The times that were not reached say that the run was given up.
    """

    controller: diffrax.PIDController
    shortest: Float[Array, ""]

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
        return GivingUp(self.controller.wrap(direction), self.shortest)  # pyright: ignore

    def init(
        self, terms: Any, t0: Any, t1: Any, y0: PyTree, dt0: Any, args: Any, func: Any, error_order: Any
    ) -> tuple[Any, Any]:
        """The end of the first step."""
        return self.controller.init(terms, t0, t1, y0, dt0, args, func, error_order)

    def adapt_step_size(
        self, t0: Any, t1: Any, y0: PyTree, y1_candidate: PyTree, args: Any, y_error: Any, error_order: Any, state: Any
    ) -> tuple[Any, Any, Any, Any, Any, diffrax.RESULTS]:
        """Whether to keep a step, and the next one."""
        keep, next_t0, next_t1, made_jump, state, result = self.controller.adapt_step_size(
            t0, t1, y0, y1_candidate, args, y_error, error_order, state
        )
        give_up = next_t1 - next_t0 < self.shortest
        next_t0, next_t1 = (jnp.where(give_up, jnp.inf, t) for t in (next_t0, next_t1))
        return keep, next_t0, next_t1, made_jump, state, result


def _norm(error: PyTree) -> Array:
    """The root mean square, with NaN as an infinite error, so that steps shrink instead of being retried."""
    rms = optimistix.rms_norm(error)
    return jnp.where(jnp.isnan(rms), jnp.inf, rms)
