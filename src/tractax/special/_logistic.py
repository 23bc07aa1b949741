"""Logistic growth."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ._broadcast import broadcast


def logistic(t: ArrayLike, p0: ArrayLike, p_inf: ArrayLike, r: ArrayLike) -> Float[Array, "..."]:
    r"""$p_\infty/(1 + (p_\infty/p_0 - 1)\,e^{-rt})$, the solution of $\dot p = r\,p\,(1 - p/p_\infty)$ with $p(0) = p_0$.

    **Arguments:**

    - `t`: the time, possibly infinite.
    - `p0`: the value at time zero, non-negative; from zero nothing grows.
    - `p_inf`: the carrying capacity $p_\infty > 0$.
    - `r`: the rate of growth.

    **Returns:**

    The value at time `t`, with the broadcast shape; differentiable in all arguments.
    """
    t, p0, p_inf, r = broadcast(t, p0, p_inf, r)
    # A finite time, so that neither the product nor a derivative meets 0 · ∞.
    return p_inf * _fraction(r * jnp.minimum(t, jnp.finfo(t.dtype).max), p0 / p_inf)


@jax.custom_jvp
def _fraction(x: Array, u: Array) -> Array:
    """u eˣ / (1 - u + u eˣ), without large exponentials."""
    return _terms(x, u)[0]


@_fraction.defjvp
def _fraction_jvp(primals, tangents):
    (x, u), (dx, du) = primals, tangents
    reached, left, decay, total = _terms(x, u)
    # Not decay / total²: the square underflows, and so would a compiler make it of two divisions.
    return _fraction(x, u), reached * left * dx + (decay / total) * (1 / total) * du


def _terms(x: Array, u: Array) -> tuple[Array, Array, Array, Array]:
    """What has been reached, what is left, e^(-|x|), and their common denominator."""
    decay = jnp.exp(-jnp.abs(x))
    later = x >= 0
    grown, missing = jnp.where(later, u, u * decay), jnp.where(later, (1 - u) * decay, 1 - u)
    total = grown + missing
    # From zero nothing is reached even in infinite time.
    total = jnp.where(total == 0, 1.0, total)
    return grown / total, missing / total, decay, total
