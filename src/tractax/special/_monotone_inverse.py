"""Where an increasing function reaches a value."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..core import as_float_array


def monotone_inverse(
    function: Callable[[Array], Array], value: ArrayLike, low: ArrayLike, high: ArrayLike
) -> Float[Array, ""]:
    """The number between `low` and `high` at which an increasing function takes a value, by bisection.

    Accurate to rounding of the larger of the two ends. Its derivative is that of an implicit function, with respect to
    `value` and everything that `function` refers to; where the value lies beyond the ends, that of the nearer end.

    **Arguments:**

    - `function`: from a number to a number, increasing between the ends and differentiable by JAX.
    - `value`: what it shall be; a value that it does not take counts as the nearest one that it takes.
    - `low`, `high`: the ends, finite, `low <= high`.

    **Returns:**

    The number, a scalar; for many, `jax.vmap`.
    """
    value, low, high = (as_float_array(name, x) for name, x in (("value", value), ("low", low), ("high", high)))
    low, high = low.astype(value.dtype), high.astype(value.dtype)
    least, most = function(low), function(high)
    # Not `jnp.clip`, whose derivative at the ends is halved.
    value = jnp.where(value < least, least, jnp.where(value > most, most, value))

    def bisect(residual: Callable[[Array], Array], start: Array) -> Array:
        def halve(_, ends):
            low, high = ends
            middle = low + (high - low) / 2
            below = residual(middle) < 0
            return jnp.where(below, middle, low), jnp.where(below, high, middle)

        # Ten halvings more than digits, for brackets much wider than the numbers in them.
        low, high = jax.lax.fori_loop(0, jnp.finfo(start.dtype).nmant + 10, halve, ends)
        return low + (high - low) / 2

    ends = jax.lax.stop_gradient((low, high))
    return jax.lax.custom_root(
        lambda x: function(x) - value, ends[0], bisect, lambda linear, y: y / linear(jnp.ones_like(y))
    )
