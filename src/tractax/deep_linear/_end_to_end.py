r"""How gradient descent on the layers of a balanced linear network moves their product.

$$F(W, G) = \sum_{j=1}^{L} (WW^\top)^{(L-j)/L}\; G\; (W^\top W)^{(j-1)/L}$$

It acts through the singular vectors of $W$. Its derivative is written out here, because that of a singular value
decomposition does not exist where singular values repeat, although that of $F$ does.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def end_to_end(
    product: Float[Array, "out in"], gradient: Float[Array, "out in"], depth: int, rank: int
) -> Float[Array, "out in"]:
    """The gradient with respect to the map, as `depth` balanced layers transform it.

    **Arguments:**

    - `product`: $W$, the map.
    - `gradient`: $G$, the gradient of the loss with respect to the map.
    - `depth`: $L$, the number of layers.
    - `rank`: how many singular values of $W$ count; the others are taken to be zero.

    **Returns:**

    $F(W, G)$; minus this is the velocity of the map, at unit rate.
    """
    return _apply(_decompose(product, rank), gradient, depth)


@end_to_end.defjvp
def _end_to_end_jvp(depth, rank, primals, tangents):
    product, gradient = primals
    product_dot, gradient_dot = tangents
    u, s, v = decomposed = _decompose(product, rank)
    moved = _apply(decomposed, gradient_dot, depth)
    inner = u.T @ product_dot @ v
    left_out = product_dot @ v - u @ inner
    right_out = product_dot.T @ u - v @ inner.T
    for j in range(1, depth):
        # The left power of term j and the right power of term L + 1 - j have the same exponent.
        p, q = (depth - j) / depth, (j - 1) / depth
        left = _power_dot(u, s, inner, left_out, p)
        right = _power_dot(v, s, inner.T, right_out, p)
        moved = moved + left @ _right(v, s, gradient, q) + _right(u, s, gradient.T, q).T @ right
    return _apply(decomposed, gradient, depth), moved


def _decompose(product: Array, rank: int) -> tuple[Array, Array, Array]:
    u, s, vt = jnp.linalg.svd(product, full_matrices=False)
    return u[:, :rank], s[:rank], vt[:rank].T


def _apply(decomposed: tuple[Array, Array, Array], gradient: Array, depth: int) -> Array:
    u, s, v = decomposed
    if depth == 1:
        return gradient
    outer = (s ** (2 * (depth - 1) / depth))[:, None]
    left, right = u.T @ gradient, gradient @ v
    result = u @ (outer * left) + (right * outer.T) @ v.T
    if depth == 2:
        return result
    weights = sum(
        (s ** (2 * (depth - j) / depth))[:, None] * (s ** (2 * (j - 1) / depth))[None, :] for j in range(2, depth)
    )
    return result + u @ (weights * (left @ v)) @ v.T


def _right(basis: Array, s: Array, x: Array, exponent: float) -> Array:
    """x times a power of the Gram matrix with these eigenvectors; the zeroth power is the identity."""
    if exponent == 0:
        return x
    return ((x @ basis) * (s ** (2 * exponent))[None, :]) @ basis.T


def _power_dot(basis: Array, s: Array, inner: Array, outer: Array, exponent: float) -> Array:
    """The derivative of that power, 0 < exponent < 1: divided differences between its eigenvalues."""
    present = s > 0
    size = jnp.where(present, s, 1.0)
    larger = jnp.maximum(size[:, None], size[None, :])
    ratio = jnp.log(jnp.minimum(size[:, None], size[None, :]) / larger) * 2
    same = ratio == 0
    quotient = jnp.where(same, exponent, jnp.expm1(exponent * ratio) / jnp.expm1(jnp.where(same, -1.0, ratio)))
    gram_dot = inner * s[None, :] + s[:, None] * inner.T
    within = basis @ (larger ** (2 * exponent - 2) * quotient * gram_dot) @ basis.T
    across = (outer * jnp.where(present, size ** (2 * exponent - 1), 0.0)[None, :]) @ basis.T
    return within + across + across.T
