"""Powers of 1 - x and their sums."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ._exprel import exprel


@jax.jit
def geometric(x: ArrayLike, n: ArrayLike) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    r"""$(1 - x)^n$ and $\sum_{j<n}(1 - x)^j = (1 - (1 - x)^n)/x$: what is left after `n` steps of descent, and their sum.

    **Arguments:**

    - `x`: any sign and size; at zero the sum is `n`.
    - `n`: a whole number, not negative, possibly infinite.

    **Returns:**

    Both, with the broadcast shape; accurate for small `x`, and differentiable in `x`.
    """
    x, n = jnp.broadcast_arrays(jnp.asarray(x), jnp.asarray(n))
    small = x < 0.5
    log = jnp.log1p(-jnp.where(small, x, 0.0))
    exponent = log * jnp.where((log == 0) & jnp.isinf(n), 0.0, n)
    # The quotient of expm1(n log) and expm1(log); once little is left, both may be taken as they are.
    early = small & (exponent > -1)
    first = jnp.where(early, n, 0.0) * exprel(jnp.where(early, exponent, 0.0)) / exprel(jnp.where(early, log, 0.0))
    later = -jnp.expm1(jnp.where(early, 0.0, exponent)) / jnp.where(small & ~early, x, 1.0)
    # Large steps, of which every second may have the other sign.
    size = jnp.abs(1 - jnp.where(small, 1.0, x)) ** n
    power = jnp.where((x > 1) & (jnp.mod(n, 2) == 1), -size, size)
    total = (1 - power) / jnp.where(small, 1.0, x)
    return jnp.where(small, jnp.exp(exponent), power), jnp.where(early, first, jnp.where(small, later, total))
