"""The root g of g + sinh g = s."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..core import as_float_array


def sinh_root(s: ArrayLike) -> Float[Array, "..."]:
    r"""The root $g$ of $g + \sinh g = s$, for any real $s$; about $s/2$ near zero, and $\ln 2s$ far above it.

    The gap between two logits whose softmax saturates, $\dot g = \dot s/(1 + \cosh g)$. Differentiable.
    """
    return _root(as_float_array("s", s))


@jax.custom_jvp
def _root(s: Array) -> Array:
    start = jnp.arcsinh(s)
    # Further out the hyperbolic functions overflow, and the root is the start to the last digit.
    inside = jnp.abs(s) < jnp.finfo(s.dtype).max / 8
    safe = jnp.where(inside, s, 1.0)

    def newton(_, g: Array) -> Array:
        return g - (g + jnp.sinh(g) - safe) / (1 + jnp.cosh(g))

    # The start lies beyond the root, by a factor of two at most, and on that side Newton's steps never overshoot.
    return jnp.where(inside, jax.lax.fori_loop(0, 8, newton, jnp.arcsinh(safe)), start)


@_root.defjvp
def _root_jvp(primals, tangents):
    (s,), (ds,) = primals, tangents
    g = _root(s)
    return g, ds / (1 + jnp.cosh(g))
