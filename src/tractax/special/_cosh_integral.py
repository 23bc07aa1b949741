"""The hyperbolic cosine integral, without its logarithm."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ._broadcast import broadcast

# Between the power series, whose terms are all positive, and the asymptotic one, whose smallest term is k!/xᵏ at k = x.
_SPLIT = 40.0
_TERMS = 80
_ASYMPTOTIC_TERMS = 36


def cosh_integral(x: ArrayLike) -> Float[Array, "..."]:
    r"""$\int_0^x\frac{\cosh s - 1}{s}\,ds = \mathrm{Chi}(\lvert x\rvert) - \gamma - \ln\lvert x\rvert$.

    An even function, $x^2/4$ near zero and $e^{\lvert x\rvert}/(2\lvert x\rvert)$ far from it.

    **Arguments:**

    - `x`: any numbers.

    **Returns:**

    The integral, with the shape of `x`; infinite where it overflows. Differentiable.
    """
    return _chin(*broadcast(x))


@jax.custom_jvp
def _chin(x: Array) -> Array:
    size = jnp.abs(x)
    small, large = jnp.minimum(size, _SPLIT), jnp.maximum(size, _SPLIT)
    square = small**2

    def add(n: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        total, term = state
        k = 2 * n.astype(x.dtype)
        term = term * square / (k * (k - 1))
        return total + term / k, term

    series, _ = jax.lax.fori_loop(1, _TERMS + 1, add, (jnp.zeros_like(x), jnp.ones_like(x)))
    factorials = np.cumprod(np.concatenate([[1.0], np.arange(1.0, _ASYMPTOTIC_TERMS)]) / _SPLIT)
    tail = jnp.polyval(jnp.asarray(_SPLIT * factorials[::-1], x.dtype), _SPLIT / large)
    asymptotic = jnp.exp(large - jnp.log(2 * large)) * tail - jnp.asarray(np.euler_gamma, x.dtype) - jnp.log(large)
    return jnp.where(size <= _SPLIT, series, asymptotic)


@_chin.defjvp
def _chin_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    half = jnp.where(x == 0, 1.0, x) / 2
    # (cosh x - 1)/x = sinh²(x/2)/(x/2), in an order that overflows no earlier than the result.
    slope = jnp.where(x == 0, 0.0, jnp.sinh(half) / half * jnp.sinh(half))
    return _chin(x), slope * dx
