"""What a simulation recorded."""

from typing import Any, Literal

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ._checks import as_float_array, require
from ._result import RESULTS, succeeded


class Trajectory(diffrax.AbstractPath):
    """A simulated training run.

    **Attributes:**

    - `ts`: the recorded times, shape `(times,)`, in units of the rule's flow time.
    - `observed`: what `observe` returned, every array with a leading axis of length `times`. Slots after an event or
      a failure hold `inf`.
    - `model`: the network at the last time.
    - `stats`: statistics of the integration (steps taken, accepted, rejected), depending on the rule.
    - `result`: a `tx.RESULTS` code; `RESULTS.successful` if all went well.

    It is also a path in time: `evaluate(t)` interpolates the recorded observables linearly.
    """

    ts: Float[Array, " times"]
    observed: PyTree
    model: PyTree
    stats: dict[str, Any]
    result: RESULTS

    @property
    def t0(self) -> Float[Array, ""]:
        """The first recorded time."""
        return self.ts[0]

    @property
    def t1(self) -> Float[Array, ""]:
        """The last recorded time."""
        return self.ts[-1]

    def evaluate(self, t0: ArrayLike, t1: ArrayLike | None = None, left: bool = True) -> PyTree:
        """The observables at `t0`, linearly interpolated; with `t1`, the increment from `t0` to `t1`.

        **Raises:**

        `ValueError` for a time that is no scalar, or outside the recorded times.
        """
        arrays, static = eqx.partition(self.observed, eqx.is_array)
        if t1 is not None:
            change = jax.tree.map(jnp.subtract, self._interpolate(arrays, t1), self._interpolate(arrays, t0))
            return eqx.combine(change, static)
        return eqx.combine(self._interpolate(arrays, t0), static)

    def _interpolate(self, arrays: PyTree, t: ArrayLike) -> PyTree:
        t = as_float_array("t0", t).astype(self.ts.dtype)
        if t.ndim != 0:
            raise ValueError(f"`t0` must be one time, a scalar; got shape {t.shape}. Use jax.vmap(trajectory.evaluate).")
        inside = (t >= self.ts[0]) & (t <= self.ts[-1])
        t = require(t, inside, "`t0` must lie between the first and the last recorded time.")
        last = self.ts.shape[0] - 1
        after = jnp.clip(jnp.searchsorted(self.ts, t), min(1, last), last)
        before = jnp.maximum(after - 1, 0)
        gap = self.ts[after] - self.ts[before]
        weight = jnp.where(gap == 0, 0.0, (t - self.ts[before]) / jnp.where(gap == 0, 1.0, gap))

        def between(x: Array) -> Array:
            w = weight.astype(x.dtype)
            # At a recorded time a missing neighbour (inf) has no say.
            return jnp.where(w == 0, x[before], jnp.where(w == 1, x[after], (1 - w) * x[before] + w * x[after]))

        return jax.tree.map(between, arrays)


OnFailure = Literal["raise", "return", "mask"]


def settle(trajectory: Trajectory, on_failure: OnFailure) -> Trajectory:
    """The trajectory of a finished run; if it failed: a run-time error, or returned as it is, or with NaN for numbers."""
    failed = jnp.logical_not(succeeded(trajectory.result))
    if on_failure == "raise":
        arrays, static = eqx.partition(trajectory, eqx.is_array)
        return eqx.combine(trajectory.result.error_if(arrays, failed), static)
    if on_failure == "mask":
        recorded = (trajectory.observed, trajectory.model)
        numbers, rest = eqx.partition(recorded, eqx.is_inexact_array)
        masked = jax.tree.map(lambda x: jnp.where(failed, jnp.nan, x), numbers)
        return eqx.tree_at(lambda t: (t.observed, t.model), trajectory, eqx.combine(masked, rest))
    return trajectory
