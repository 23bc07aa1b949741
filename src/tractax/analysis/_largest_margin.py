"""The direction in which all vectors point by the largest margin."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..core import check_matrix


class MaxMargin(NamedTuple):
    r"""The hard-margin support vector machine without bias.

    **Attributes:**

    - `direction`: the unit vector $\hat w$ that maximises $\min_i z_i\cdot\hat w$, shape `(in,)`; not to be
      differentiated.
    - `margin`: that maximum, $\gamma_*$; zero where no direction has all vectors on one side, and then the direction is
      rounding.
    """

    direction: Float[Array, " in"]
    margin: Float[Array, ""]


def largest_margin(vectors: ArrayLike) -> MaxMargin:
    r"""The unit vector $\hat w$ that maximises $\min_i z_i\cdot\hat w$.

    It points to the point of the convex hull of the $z_i$ that is nearest to the origin, and the margin is its distance:
    a quadratic programme in the weights of the vectors, solved by an interior-point method. One step costs a linear
    system as large as the number of vectors.

    **Arguments:**

    - `vectors`: $z_i$, one a row, shape `(vectors, in)`; labels times inputs for a classifier.
    """
    z = check_matrix("vectors", vectors)
    points = jax.lax.stop_gradient(z)
    size = jnp.sqrt(jnp.max(jnp.sum(points**2, axis=1)))
    shares = _nearest_point(points / jnp.where(size == 0, 1.0, size))
    # Shares are stationary: with them held constant, the distance has the right derivative.
    nearest = shares @ z
    distance = jnp.linalg.norm(nearest)
    direction = jax.lax.stop_gradient(nearest / jnp.where(distance == 0, 1.0, distance))
    # If the hull holds the origin, the distance is rounding, and the direction leaves some example wrong.
    separable = jnp.min(z @ direction) > 0
    return MaxMargin(direction, jnp.where(separable, distance, 0.0))


@jax.jit
def _nearest_point(z: Float[Array, "examples in"]) -> Float[Array, " examples"]:
    """The shares α ≥ 0, Σα = 1, that minimise ‖Σ α z‖²/2, by primal-dual steps towards the centre of the rest."""
    n = z.shape[0]
    gram = z @ z.T
    ones = jnp.ones(n, z.dtype)
    floor = jnp.finfo(z.dtype).eps ** 1.5

    def step(carry, _):
        shares, slacks, level = carry
        gap = shares @ slacks / n
        gradient = gram @ shares - slacks - level
        # Newton's equations for gradient = 0, Σα = 1 and α s = gap/10, with the slacks eliminated.
        matrix = gram + jnp.diag(slacks / shares)
        right = -gradient - slacks + gap / (10 * shares)
        solved = jnp.linalg.solve(matrix, jnp.stack([right, ones], axis=1))
        d_level = (1 - jnp.sum(shares) - jnp.sum(solved[:, 0])) / jnp.sum(solved[:, 1])
        d_shares = solved[:, 0] + d_level * solved[:, 1]
        d_slacks = gap / (10 * shares) - slacks - slacks / shares * d_shares
        length = jnp.minimum(_inside(shares, d_shares), _inside(slacks, d_slacks))
        after = (shares + length * d_shares, slacks + length * d_slacks, level + length * d_level)
        # At the end, equations of examples that coincide turn singular.
        good = (gap > floor) & jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in after]))
        return jax.tree.map(lambda new, old: jnp.where(good, new, old), after, carry), None

    (shares, _, _), _ = jax.lax.scan(step, (ones / n, ones, jnp.zeros((), z.dtype)), None, length=60)
    return shares


def _inside(x: Array, dx: Array) -> Float[Array, ""]:
    """The longest step along dx, up to one, that keeps x well positive."""
    return jnp.minimum(1.0, 0.95 * jnp.min(jnp.where(dx < 0, -x / jnp.where(dx < 0, dx, -1.0), jnp.inf)))
