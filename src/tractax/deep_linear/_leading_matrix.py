"""The eigenvector of a linear map of matrices that belongs to its largest eigenvalue, without forming the map.

A conjugate-gradient search for the largest Rayleigh quotient: each step takes the best of the span of the current matrix,
its residual and the last direction (Knyazev's locally optimal method, with a block of one). It converges as Lanczos'
method does, and keeps three matrices.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

_MAX_STEPS = 3000


def leading_matrix(
    operator: Callable[[Float[Array, "rows rows"]], Float[Array, "rows rows"]], start: Float[Array, "rows rows"]
) -> tuple[Float[Array, "rows rows"], Bool[Array, ""]]:
    """The matrix of norm 1 that a self-adjoint map stretches most, and whether it was found.

    **Arguments:**

    - `operator`: the map, whose largest eigenvalue is positive.
    - `start`: where to begin. A map of positive matrices to positive ones has a positive leading matrix, which any
      positive definite start overlaps with.
    """
    eps = jnp.finfo(start.dtype).eps
    # An eigenvalue is off by the square of this, or within a cluster by as much at most.
    settled, accepted = eps ** (2 / 3), eps**0.4

    def unsettled(carry):
        _, _, residual, step = carry
        return (residual > settled) & (step < _MAX_STEPS)

    def advance(carry):
        (x, image), (p, image_p), _, step = carry
        residual = image - jnp.vdot(x, image) * x
        x_pair = (x, image)
        r, r_image = _orthonormal((residual, operator(residual)), [x_pair])
        p, p_image = _orthonormal((p, image_p), [x_pair, (r, r_image)])
        basis, images = jnp.stack([x, r, p]), jnp.stack([image, r_image, p_image])
        projected = jnp.einsum("iab,jab->ij", basis, images)
        best = jnp.linalg.eigh((projected + projected.T) / 2)[1][:, -1]
        direction = best.at[0].set(0.0)
        p_pair = _combine(direction, basis), _combine(direction, images)
        x, image = _combine(best, basis), _combine(best, images)
        size = jnp.linalg.norm(x)
        x, image = x / size, image / size
        return (x, image), p_pair, _residual(x, image), step + 1

    x = start / jnp.linalg.norm(start)
    image = operator(x)
    nothing = jnp.zeros_like(x)
    first = ((x, image), (nothing, nothing), _residual(x, image), 0)
    (x, _), _, residual, _ = jax.lax.while_loop(unsettled, advance, first)
    return x, residual <= accepted


def _orthonormal(pair: tuple[Array, Array], others: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    """A matrix and its image, made orthogonal to others and of norm 1; zero where nothing is left."""
    v, image = pair
    size = jnp.linalg.norm(v)
    v, image = (m / jnp.where(size == 0, 1.0, size) for m in (v, image))
    # Twice is enough.
    for _ in range(2):
        for other, other_image in others:
            share = jnp.vdot(other, v)
            v, image = v - share * other, image - share * other_image
    left = jnp.linalg.norm(v)
    usable = left > 100 * jnp.finfo(v.dtype).eps
    v, image = (jnp.where(usable, m / jnp.where(usable, left, 1.0), 0.0) for m in (v, image))
    return v, image


def _combine(weights: Array, matrices: Array) -> Array:
    return jnp.einsum("i,iab->ab", weights, matrices)


def _residual(x: Array, image: Array) -> Array:
    value = jnp.vdot(x, image)
    return jnp.linalg.norm(image - value * x) / jnp.abs(value)
