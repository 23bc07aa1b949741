"""When a recorded curve first reaches a level."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float


@jax.jit
def crossing_times(
    ts: Float[Array, " times"], values: Float[Array, "times curves"], levels: ArrayLike
) -> Float[Array, " curves"]:
    """The first time at which each curve crosses its level.

    Between two recorded times the crossing is found by inverse cubic interpolation through the four nearest points where
    the curve is monotone there, and by linear interpolation elsewhere.

    **Arguments:**

    - `ts`: the recorded times, increasing, shape `(times,)`; at least two.
    - `values`: the curves, shape `(times, curves)`.
    - `levels`: one level, or one per curve.

    **Returns:**

    The times, shape `(curves,)`; NaN for a curve that never crosses. What is not finite (times after an event) crosses
    nothing.
    """
    if ts.shape[0] < 2 or values.ndim != 2 or values.shape[0] != ts.shape[0]:
        raise ValueError(
            f"`values` must have shape (times, curves) with the {ts.shape[0]} (at least 2) times of `ts`; "
            f"got {values.shape}."
        )
    levels = jnp.broadcast_to(jnp.asarray(levels, values.dtype), values.shape[1:])
    return jax.vmap(lambda curve, level: _crossing(ts, curve, level), in_axes=(1, 0))(values, levels)


def _crossing(ts: Array, curve: Array, level: Array) -> Array:
    below, known = curve < level, jnp.isfinite(curve)
    crosses = (below[1:] != below[:-1]) & known[1:] & known[:-1]
    i = jnp.argmax(crosses)
    x0, x1, t0, t1 = curve[i], curve[i + 1], ts[i], ts[i + 1]
    linear = t0 + (level - x0) * (t1 - t0) / jnp.where(x1 == x0, 1.0, x1 - x0)
    if ts.shape[0] < 4:
        return jnp.where(jnp.any(crosses), linear, jnp.nan)
    start = jnp.clip(i - 1, 0, ts.shape[0] - 4)
    x = jax.lax.dynamic_slice(curve, (start,), (4,))
    t = jax.lax.dynamic_slice(ts, (start,), (4,))
    steps = jnp.diff(x)
    monotone = jnp.all(steps > 0) | jnp.all(steps < 0)
    gaps = jnp.where(jnp.eye(4, dtype=bool), 1.0, x[:, None] - x[None, :])
    gaps = jnp.where(monotone, gaps, 1.0)
    distances = jnp.where(jnp.eye(4, dtype=bool), 1.0, level - x[None, :])
    cubic = jnp.sum(t * jnp.prod(distances, axis=1) / jnp.prod(gaps, axis=1))
    # A cubic that leaves the bracket is not to be trusted.
    use_cubic = monotone & (cubic >= t0) & (cubic <= t1)
    return jnp.where(jnp.any(crosses), jnp.where(use_cubic, cubic, linear), jnp.nan)
