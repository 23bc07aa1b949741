"""The solution of ω + ln ω = x."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..core import as_float_array


@jax.jit
def wright_omega(x: ArrayLike) -> Float[Array, "..."]:
    r"""The Wright omega function of a real argument: the positive solution of $\omega + \ln\omega = x$.

    It is Lambert's $W(e^x)$ without the overflow of $e^x$. Accurate to a few units in the last place for every `x`, the
    infinities included, and infinitely differentiable: $\omega' = \omega/(1+\omega)$.
    """
    return _wright_omega(as_float_array("x", x))


@jax.custom_jvp
def _wright_omega(x: Array) -> Array:
    # Below, ω = exp(x) to the last digit; above, ω = x, and the iteration would meet infinities.
    tiny, huge = x < -40.0, x > jnp.finfo(x.dtype).max / 4
    safe = jnp.where(tiny | huge, 1.0, x)
    left, right = jnp.minimum(safe, 1.0), jnp.maximum(safe, 1.0)
    exponential = jnp.exp(left)
    near = jnp.where(safe < -2.0, exponential, jnp.exp((left - 1.0) * (2 / 3)))
    omega = jnp.where(safe > 1.0, right - jnp.log(right) * (1 - 1 / right), near)
    for _ in range(2):
        # Fritsch, Shafer and Crowley 1973: an iteration of fourth order. On the left, x - ln ω would cancel.
        error = jnp.where(safe > 1.0, safe - jnp.log(omega), jnp.log(exponential / omega)) - omega
        slope = 1 + omega
        curved = slope + error * (2 / 3)
        omega = omega * (1 + error / slope * (curved - error / (2 * slope)) / (curved - error / slope))
    return jnp.where(tiny, jnp.exp(x), jnp.where(huge, x, omega))


@_wright_omega.defjvp
def _wright_omega_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    omega = _wright_omega(x)
    # 1/(1 + 1/ω) where ω is large, since ω/(1 + ω) would be ∞/∞ at infinity.
    large = omega > 1
    return omega, jnp.where(large, 1 / (1 + 1 / jnp.where(large, omega, 1.0)), omega / (1 + omega)) * dx
