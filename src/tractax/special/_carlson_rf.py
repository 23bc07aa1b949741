"""Carlson's symmetric elliptic integral of the first kind."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ._broadcast import broadcast


@jax.jit
def carlson_rf(x: ArrayLike, y: ArrayLike, z: ArrayLike) -> Float[Array, "..."]:
    r"""$R_F(x, y, z) = \tfrac12\int_0^\infty\frac{dt}{\sqrt{(t + x)(t + y)(t + z)}}$.

    Every elliptic integral of the first kind is one of these. By Carlson's duplication theorem (Numerical Algorithms 10,
    13, 1995), until the three arguments agree.

    **Arguments:**

    - `x`, `y`, `z`: non-negative and finite, in any order.

    **Returns:**

    The integral, with the broadcast shape; differentiable where its arguments are positive. Infinite if two of them are
    zero, NaN if one is negative.
    """
    x, y, z = broadcast(x, y, z)
    zeros = (x == 0).astype(int) + (y == 0).astype(int) + (z == 0).astype(int)
    proper = (x >= 0) & (y >= 0) & (z >= 0) & (zeros < 2)
    x, y, z = (jnp.where(proper, argument, 1.0) for argument in (x, y, z))
    # Of degree -1/2: among numbers near one nothing over- or underflows. The scale is arbitrary, and has no slope.
    largest = jax.lax.stop_gradient(jnp.maximum(jnp.maximum(x, y), z))

    def double(_, roots):
        a, b, c = roots
        shift = a * b + b * c + c * a
        return tuple(jnp.sqrt((root * root + shift) / 4) for root in roots)

    # The logarithms of ratios halve until they are small, then differences fall by 4: enough for every ratio of floats.
    a, b, c = jax.lax.fori_loop(0, 26, double, tuple(jnp.sqrt(w / largest) for w in (x, y, z)))
    value = 1 / (jnp.sqrt((a * a + b * b + c * c) / 3) * jnp.sqrt(largest))
    return jnp.where(proper, value, jnp.where(zeros >= 2, jnp.inf, jnp.nan))


@jax.jit
def carlson_rf_pair(x: ArrayLike, total: ArrayLike, product: ArrayLike) -> Float[Array, "..."]:
    r"""$R_F(x, y, z)$ as a function of $x$, $y + z$ and $yz$, where $y$ and $z$ may be complex conjugates.

    It is smooth where the two meet and become complex, as the roots of a polynomial do.

    **Arguments:**

    - `x`: non-negative.
    - `total`, `product`: $y + z$ and $yz$ of two non-negative numbers, or of conjugates off the negative axis.

    **Returns:**

    The integral, with the broadcast shape.
    """
    # Duplication draws the three together, by a factor of four a step once they are of one order; rounding is met
    # long before the last.
    x, total, product = jax.lax.fori_loop(0, 12, _duplicate, tuple(broadcast(x, total, product)))
    mean = (x + total) / 3
    dx = 1 - x / mean
    dy_dz = 1 - total / mean + product / mean**2
    e2, e3 = dy_dz - dx**2, dx * dy_dz
    return (1 - e2 / 10 + e3 / 14 + e2**2 / 24 - 3 * e2 * e3 / 44) / jnp.sqrt(mean)


def _duplicate(_, numbers: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    x, total, product = numbers
    root = jnp.sqrt(product)
    shift = jnp.sqrt(x) * jnp.sqrt(total + 2 * root) + root
    return (x + shift) / 4, (total + 2 * shift) / 4, (product + shift * (total + shift)) / 16
