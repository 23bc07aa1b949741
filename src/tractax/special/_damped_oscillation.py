"""Damped oscillations, through critical damping."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ._broadcast import broadcast


def damped_oscillation(
    t: ArrayLike, decay: ArrayLike, stiffness: ArrayLike
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    r"""$e^{-\kappa t}\cos qt$ and $e^{-\kappa t}\sin(qt)/q$ with $q = \sqrt{k - \kappa^2}$, real or imaginary.

    Every solution of $\ddot x + 2\kappa\dot x + kx = 0$ is $x(0)$ times the first plus $\dot x(0) + \kappa x(0)$ times
    the second.

    **Arguments:**

    - `t`: the time, non-negative, possibly infinite.
    - `decay`: $\kappa \ge 0$.
    - `stiffness`: $k$; negative where the solution grows.

    **Returns:**

    Both functions, with the broadcast shape; smooth where damping is critical, and without overflow where it is strong.
    """
    t, decay, stiffness = broadcast(t, decay, stiffness)
    # So late a time that products with it stay finite.
    t = jnp.minimum(t, jnp.finfo(t.dtype).max ** 0.25)
    square = stiffness - decay**2
    phase_square = square * t**2
    under, over = phase_square > 1, phase_square < -1
    rate = jnp.sqrt(jnp.where(under | over, jnp.abs(square), 1.0))

    fast = decay + rate
    slow = stiffness / jnp.where(fast == 0, 1.0, fast)
    slowly, quickly = (jnp.exp(jnp.where(over, -x * t, 0.0)) for x in (slow, fast))
    envelope = jnp.exp(-decay * t)
    phase = rate * jnp.where(under, t, 0.0)
    near_cosine, near_sine = _near_critical(jnp.where(under | over, 0.0, phase_square))

    cosine = jnp.where(under, envelope * jnp.cos(phase), envelope * near_cosine)
    sine = jnp.where(under, envelope * jnp.sin(phase) / rate, envelope * near_sine * t)
    return jnp.where(over, (slowly + quickly) / 2, cosine), jnp.where(over, (slowly - quickly) / (2 * rate), sine)


def _near_critical(w: Array) -> tuple[Array, Array]:
    """cos √w and sin(√w)/√w for |w| <= 1, as power series."""
    cosine = sine = jnp.ones_like(w)
    for k in range(9, 0, -1):
        cosine = 1 - cosine * w / (2 * k * (2 * k - 1))
        sine = 1 - sine * w / (2 * k * (2 * k + 1))
    return cosine, sine
