"""∫₀ᵗ e^{-r s} ds."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ._exprel import exprel


@jax.jit
def decay_integral(r: ArrayLike, t: ArrayLike) -> Float[Array, "..."]:
    """$\\int_0^t e^{-rs}\\,ds = (1 - e^{-rt})/r$: the time that a process decaying at rate `r` effectively had.

    **Arguments:**

    - `r`: the rate, non-negative; at zero the integral is `t`.
    - `t`: the time, non-negative, possibly infinite.

    **Returns:**

    The integral, with the broadcast shape; accurate and differentiable for every rate, zero included.
    """
    r, t = jnp.broadcast_arrays(jnp.asarray(r), jnp.asarray(t))
    # r = 0 at t = ∞ is taken as early, where the integral is t.
    early = (r == 0) | (r * jnp.where(r == 0, 0.0, t) < 1)
    t_early, r_late = jnp.where(early, t, 0.0), jnp.where(early, 1.0, r)
    x = jnp.where(r == 0, 0.0, r) * jnp.where(jnp.isfinite(t_early), t_early, 0.0)
    # The limit by itself, since the slope of exp(-r t) in r would be 0 · ∞.
    ended = jnp.isinf(t)
    late = jnp.where(ended, 1.0, -jnp.expm1(-r_late * jnp.where(ended, 1.0, t))) / r_late
    return jnp.where(early, t_early * exprel(-x), late)
