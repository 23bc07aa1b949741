"""Internal stages by a three-term recurrence with tabulated coefficients."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

ScanKind = Literal["lax", "checkpointed", "bounded"]
# The vector field at a fraction of the step, on flat states.
Field = Callable[[Float[Array, ""], Float[Array, " size"]], Float[Array, " size"]]

# Copies of the stages kept when a step is differentiated in reverse; more saves time, fewer saves memory.
_CHECKPOINTS = 16


@dataclass(frozen=True, eq=False)
class Recurrence:
    r"""The stages of a family of methods,

    $$Y_j = a_j Y_0 + b_j Y_{j-1} + c_j Y_{j-2} + h\,(d_j F_{j-1} + e_j F_0), \qquad F_j = f(t_0 + x_j h, Y_j),$$

    with $Y_{-1} = Y_0$.

    **Arguments:**

    - `methods`: for each method, a row $(a_j, b_j, c_j, d_j, e_j, x_j)$ per stage.
    """

    methods: tuple[np.ndarray, ...]

    @property
    def stages(self) -> np.ndarray:
        """The number of stages of each method."""
        return np.asarray([len(rows) for rows in self.methods], np.int32)

    def run(
        self,
        choice: Int[Array, ""],
        enabled: Bool[Array, ""],
        field: Field,
        y0: Float[Array, " size"],
        f0: Float[Array, " size"],
        h: Float[Array, ""],
        kind: ScanKind,
    ) -> tuple[Float[Array, " size"], Float[Array, " size"]]:
        """The last stage $Y_s$ of the method numbered `choice`, and $F_s$; `(y0, f0)` unless `enabled`."""
        rows = jnp.asarray(np.concatenate(self.methods), y0.dtype)
        first = jnp.asarray(np.cumsum(self.stages, dtype=np.int32) - self.stages)[choice]
        last = first + jnp.where(enabled, jnp.asarray(self.stages)[choice], 0)

        def stage(carry):
            row, y, before, f = carry
            a, b, c, d, e, x = jax.lax.dynamic_index_in_dim(rows, row, keepdims=False)
            y, before = a * y0 + b * y + c * before + h * (d * f + e * f0), y
            return row + 1, y, before, field(x, y)

        _, y, _, f = eqxi.while_loop(
            lambda carry: carry[0] < last,
            stage,
            (first, y0, y0, f0),
            kind=kind,
            max_steps=int(self.stages[-1]),
            checkpoints=_CHECKPOINTS,
        )
        return y, f
