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
    r"""The stages of a family of methods, as distances $D_j = Y_j - Y_0$ from the start, and sums of them,

    $$D_j = b_j D_{j-1} + c_j D_{j-2} + h\,(d_j F_{j-1} + e_j F_0), \qquad S_{j} = S_{j-1} + q_j D_j,$$

    with $F_j = f(t_0 + x_j h, Y_j)$ unless a stage evaluates the vector field at one of the sums instead,
    $F_j = f(t_0 + x_j h, Y_0 + p_j \cdot S_j)$.

    **Arguments:**

    - `methods`: for each method, a row $(b_j, c_j, d_j, e_j, x_j)$ per stage. If there are $k$ sums, then $k$ columns
      $q_j$ and $k$ columns $p_j$ follow; $p_j$ is zero or has a single one.
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
        first: tuple[Float[Array, " size"], Float[Array, " size"]] | None = None,
    ) -> tuple[Float[Array, " size"], Float[Array, " size"], Float[Array, "sums size"]]:
        """The stages of the method numbered `choice`; none unless `enabled`.

        `first` is a stage that the table does not have, before the others: its distance and vector field.

        **Returns:**

        The last distance $D_s$, the last vector field $F_s$, and the sums.
        """
        rows = jnp.asarray(np.concatenate(self.methods), y0.dtype)
        sums = (rows.shape[1] - 5) // 2
        start = jnp.asarray(np.cumsum(self.stages, dtype=np.int32) - self.stages)[choice]
        end = start + jnp.where(enabled, jnp.asarray(self.stages)[choice], 0)
        zero = jnp.zeros_like(y0)
        distance, f = (zero, f0) if first is None else first

        def stage(carry):
            row, distance, before, f, total = carry
            coefficients = jax.lax.dynamic_index_in_dim(rows, row, keepdims=False)
            b, c, d, e, x = coefficients[:5]
            add, pick = coefficients[5 : 5 + sums], coefficients[5 + sums :]
            distance, before = b * distance + c * before + h * (d * f + e * f0), distance
            total = total + add[:, None] * distance[None, :]
            point = (1 - jnp.sum(pick)) * distance + jnp.sum(pick[:, None] * total, axis=0)
            return row + 1, distance, before, field(x, y0 + point), total

        _, distance, _, f, total = eqxi.while_loop(
            lambda carry: carry[0] < end,
            stage,
            (start, distance, zero, f, jnp.zeros((sums, *y0.shape), y0.dtype)),
            kind=kind,
            max_steps=int(self.stages[-1]),
            checkpoints=_CHECKPOINTS,
        )
        return distance, f, total
