"""The root h of q h + eʰ = R."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ._broadcast import broadcast


def softplus_lambert(q: ArrayLike, R: ArrayLike) -> Float[Array, "..."]:
    r"""The root $h$ of $q h + e^h = R$, which is $R/q - W(e^{R/q}/q)$ with Lambert's $W$, without its overflow.

    A quantity whose growth is slowed down by its own exponential, $\dot h = \dot R/(q + e^h)$, passes from
    $h \approx R/q$ to $h \approx \ln R$.

    **Arguments:**

    - `q`: non-negative.
    - `R`: any number; positive if `q` is zero.

    **Returns:**

    $h$, with the broadcast shape; differentiable in both arguments. NaN where there is no root.
    """
    return _root(*broadcast(q, R))


@jax.custom_jvp
def _root(q: Array, R: Array) -> Array:
    solvable = (q >= 0) & ((q > 0) | (R > 0)) & (q < jnp.inf) & (R > -jnp.inf) & (R < jnp.inf)
    q_safe, R_safe = jnp.where(solvable, q, 1.0), jnp.where(solvable, R, 1.0)

    def newton(h: Array) -> Array:
        e = jnp.exp(h)
        return h - (q_safe * h + e - R_safe) / (q_safe + e)

    def descends(state: tuple[Array, Array]) -> Array:
        h, following = state
        return jnp.any(following < h)

    # q h + eʰ is increasing and convex: to the right of the root Newton's steps descend until they meet rounding.
    start = _above_root(q_safe, R_safe)
    h, _ = jax.lax.while_loop(descends, lambda s: (s[1], jnp.minimum(s[1], newton(s[1]))), (start, newton(start)))
    return jnp.where(solvable, h, jnp.where((q >= 0) & (q < jnp.inf) & (R == jnp.inf), jnp.inf, jnp.nan))


def _above_root(q: Array, R: Array) -> Array:
    """A start to the right of the root."""
    # The tangent at zero reaches R to the right of the root; so does the tangent at ln R, which lies left of it if R < 1.
    tangent = (R - 1) / (q + 1)
    log = jnp.log(jnp.where(R > 0, R, 1.0))
    start = jnp.where(R >= 1, jnp.minimum(tangent, log), jnp.minimum(tangent, log * R / (q + R)))
    return jnp.where(R > 0, start, tangent)


@_root.defjvp
def _root_jvp(primals, tangents):
    (q, R), (dq, dR) = primals, tangents
    h = _root(q, R)
    return h, (dR - h * dq) / (q + jnp.exp(h))
