"""What a simulation recorded."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ._result import RESULTS


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
        """The observables at `t0`, linearly interpolated; with `t1`, the increment from `t0` to `t1`."""
        if t1 is not None:
            return jax.tree.map(jnp.subtract, self.evaluate(t1), self.evaluate(t0))
        arrays, static = eqx.partition(self.observed, eqx.is_array)
        path = diffrax.LinearInterpolation(self.ts, arrays)
        return eqx.combine(path.evaluate(jnp.asarray(t0, self.ts.dtype), left=left), static)
