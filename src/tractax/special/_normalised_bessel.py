"""The Bessel function of the first kind, divided by its behaviour at zero."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ._broadcast import broadcast

# Beyond, the asymptotic series is exact to rounding for every order allowed.
_FAR = 60.0
# The tanh-sinh rule: 255 nodes resolve cos(60 u) and the ends of the interval down to rounding.
_NODES = np.linspace(-4.1, 4.1, 255)
_TERMS = 30


def normalised_bessel(order: ArrayLike, z: ArrayLike) -> Float[Array, "..."]:
    r"""$\Gamma(\nu + 1)\,(2/z)^\nu J_\nu(z) = {}_0F_1(;\nu + 1; -z^2/4)$, which is 1 at zero.

    The mean of $\cos zu$ under the weight $(1 - u^2)^{\nu - 1/2}$ on $[-1, 1]$ (Poisson's integral), and Hankel's
    asymptotic series where `z` is large.

    **Arguments:**

    - `order`: $\nu$, from 0 to 10.
    - `z`: non-negative, possibly infinite.

    **Returns:**

    The function, with the broadcast shape, to an absolute error near rounding; differentiable in both arguments. NaN
    outside of their ranges.
    """
    order, z = broadcast(order, z)
    proper = (order >= 0) & (order <= 10) & (z >= 0)
    order, z = jnp.where(proper, order, 1.0), jnp.where(proper, z, 1.0)
    far = z > _FAR
    value = jnp.where(far, _asymptotic(order, jnp.where(far, z, _FAR)), _integral(order, jnp.where(far, 1.0, z)))
    return jnp.where(proper, value, jnp.nan)


@jnp.vectorize
def _integral(order: Array, z: Array) -> Array:
    """Poisson's integral with u = tanh(π/2 sinh x), where the trapezoidal rule converges exponentially."""
    bend = np.pi / 2 * np.sinh(_NODES)
    u, speed = jnp.asarray(np.tanh(bend), z.dtype), jnp.asarray(np.log(np.cosh(_NODES)), z.dtype)
    log_sech = jnp.asarray(-np.logaddexp(bend, -bend) + np.log(2), z.dtype)
    weights = jax.nn.softmax(speed + (2 * order + 1) * log_sech)
    return jnp.sum(weights * jnp.cos(z * u))


def _asymptotic(order: Array, z: Array) -> Array:
    """Hankel's series, which ends where its terms are smallest."""
    # Infinity is only far away: the amplitude is zero there, the phase of no interest.
    z = jnp.minimum(z, jnp.finfo(z.dtype).max ** 0.5)
    even, odd, term = jnp.ones_like(z), jnp.zeros_like(z), jnp.ones_like(z)
    for k in range(1, _TERMS):
        term = term * (4 * order**2 - (2 * k - 1) ** 2) / (8 * k * z)
        signed = term if k % 4 < 2 else -term
        even, odd = (even + signed, odd) if k % 2 == 0 else (even, odd + signed)
    phase = z - jnp.pi * (order / 2 + 0.25)
    size = jnp.exp(jax.scipy.special.gammaln(order + 1) + order * jnp.log(2 / z)) * jnp.sqrt(2 / (jnp.pi * z))
    return size * (even * jnp.cos(phase) - odd * jnp.sin(phase))
