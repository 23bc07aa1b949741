"""The spectral radius of a Jacobian, by power iteration on Jacobian-vector products."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# Relative change between two estimates at which they count as settled.
_SETTLED = 0.02
# Weight of the fresh direction mixed into the previous one.
_FRESH = 0.1


def spectral_radius(
    product: Callable[[Float[Array, " size"]], Float[Array, " size"]],
    direction: Float[Array, " size"],
    previous: Float[Array, ""],
    max_products: int | Int[Array, ""],
) -> tuple[Float[Array, ""], Float[Array, " size"], Int[Array, ""]]:
    """Power iteration, continued from the last estimate.

    **Arguments:**

    - `product`: the Jacobian times a vector.
    - `direction`: where the last iteration ended (zero to start afresh).
    - `previous`: its estimate, which the first product is compared with; zero asks for at least two products.
    - `max_products`: a bound on the number of products; none are computed if it is zero.

    **Returns:**

    The largest growth seen, the direction that it was seen in, and the number of products. For a symmetric Jacobian the
    estimate rises to the spectral radius from below.
    """

    def unsettled(carry):
        _, _, _, change, count = carry
        # NaN counts as settled: further products would not help.
        return (count < max_products) & (change > _SETTLED)

    def iterate(carry):
        direction, last, largest, _, count = carry
        image = product(direction)
        growth = jnp.linalg.norm(image)
        usable = (growth > 0) & (growth < jnp.inf)
        direction = jnp.where(usable, image / jnp.where(usable, growth, 1), direction)
        change = jnp.where(growth == last, 0, jnp.abs(growth - last) / growth)
        return direction, growth, jnp.maximum(largest, growth), change, count + 1

    # An eigenvector of a decoupled mode would never see another mode overtake it.
    direction = direction + _FRESH * _fresh_direction(direction)
    direction = direction / jnp.linalg.norm(direction)
    start = (direction, previous, jnp.zeros_like(previous), jnp.full_like(previous, jnp.inf), jnp.int32(0))
    direction, _, radius, _, count = jax.lax.while_loop(unsettled, iterate, start)
    return jnp.where(count == 0, previous, radius), direction, count


def _fresh_direction(like: Float[Array, " size"]) -> Float[Array, " size"]:
    """A unit vector without structure, the same at each call."""
    direction = jnp.cos(jnp.square(jnp.arange(1, like.shape[0] + 1, dtype=like.dtype)))
    return direction / jnp.linalg.norm(direction)
