"""(eˣ − 1)/x."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..core import as_float_array


@jax.custom_jvp
def exprel(x: ArrayLike) -> Float[Array, "..."]:
    """$(e^x - 1)/x$, continued by 1 at zero; accurate for every `x` and infinitely differentiable.

    It measures the time that an exponential process effectively had: $\\int_0^t e^{-rs}\\,ds = t\\,$`exprel(-r t)`,
    for every rate including zero.
    """
    x = as_float_array("x", x)
    safe = jnp.where(x == 0, 1.0, x)
    return jnp.where(x == 0, 1.0, jnp.expm1(safe) / safe)


@exprel.defjvp
def _exprel_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    x = jnp.asarray(x)
    return exprel(x), _exprel_derivative(x) * dx


def _exprel_derivative(x: Array) -> Array:
    """(eˣ − exprel(x))/x, by its series Σ xᵏ/(k!(k+2)) where the difference would cancel."""
    small = jnp.abs(x) < 1.0
    safe = jnp.where(small, 1.0, x)
    # exprel(x) = (eˣ − 1)/x; for large |x| the difference below does not cancel.
    direct = (jnp.exp(safe) - exprel(safe)) / safe
    series = jnp.zeros_like(x)
    y = jnp.where(small, x, 0.0)
    for k in range(18, -1, -1):
        # Horner on Σ_k x^k / (k! (k + 2)).
        series = series * y + 1.0 / (math.factorial(k) * (k + 2))
    return jnp.where(small, series, direct)
