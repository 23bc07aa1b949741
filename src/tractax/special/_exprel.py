"""(eˣ − 1)/x."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..core import as_float_array


@jax.jit
def exprel(x: ArrayLike) -> Float[Array, "..."]:
    """$(e^x - 1)/x$, continued by 1 at zero; accurate for every `x` and infinitely differentiable.

    It measures the time that an exponential process effectively had: $\\int_0^t e^{-rs}\\,ds = t\\,$`exprel(-r t)`,
    for every rate including zero.
    """
    return _exprel(as_float_array("x", x))


@jax.custom_jvp
def _exprel(x: Array) -> Array:
    plain = (x != 0) & (x < jnp.inf)
    safe = jnp.where(plain, x, 1.0)
    return jnp.where(plain, jnp.expm1(safe) / safe, jnp.where(x == 0, 1.0, x))


@_exprel.defjvp
def _exprel_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    return _exprel(x), _exprel_derivative(x) * dx


def _exprel_derivative(x: Array) -> Array:
    """(x eˣ − eˣ + 1)/x², by its series Σ xᵏ/(k!(k+2)) where that would cancel."""
    small = jnp.abs(x) < 1.0
    safe = jnp.where(small, 1.0, x)
    direct = jnp.exp(safe) * (1 - 1 / safe) / safe + 1 / safe**2
    series = jnp.zeros_like(x)
    y = jnp.where(small, x, 0.0)
    for k in range(18, -1, -1):
        # Horner on Σ_k x^k / (k! (k + 2)).
        series = series * y + 1.0 / (math.factorial(k) * (k + 2))
    return jnp.where(small, series, direct)
