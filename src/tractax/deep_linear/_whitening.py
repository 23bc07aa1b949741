"""Coordinates in which the inputs have unit covariance."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from ..core import check_matrix, require


class Whitening(eqx.Module):
    """$\\tilde x = P\\,(x - \\mu)$ with $\\mathbb E[\\tilde x\\tilde x^\\top] = I$.

    **Attributes:**

    - `mean`: $\\mu$, shape `(in,)`; zero where the inputs were not centred.
    - `matrix`: $P$, shape `(rank, in)`, rows in order of decreasing variance.
    """

    mean: Float[Array, " in"]
    matrix: Float[Array, "rank in"]

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, " rank"]:
        """The whitened coordinates of one input."""
        return self.matrix @ (x - self.mean)


def whiten(X: Real[ArrayLike, "examples in"], *, center: bool = False) -> Whitening:
    """The whitening of a data set, by its principal components.

    Components whose standard deviation is below `max(X.shape) * eps` of the largest are dropped. The rank depends on the
    values, so this cannot be traced by `jax.jit`.

    **Arguments:**

    - `X`: inputs, one example a row.
    - `center`: whether to subtract the mean; otherwise second moments about zero are whitened.

    **Raises:**

    `ValueError` if the inputs do not vary in any direction.
    """
    X = check_matrix("X", X)
    mean = jnp.mean(X, axis=0) if center else jnp.zeros(X.shape[1], X.dtype)
    _, scales, directions = jnp.linalg.svd((X - mean[None, :]) / jnp.sqrt(X.shape[0]), full_matrices=False)
    largest = jnp.max(jnp.abs(X)) if center else scales[0]
    scales = require(
        scales,
        scales[0] > max(X.shape) * jnp.finfo(X.dtype).eps * largest,
        "`X` must vary; all its examples are equal." if center else "`X` must not be zero everywhere.",
    )
    rank = int(jnp.sum(scales > max(X.shape) * jnp.finfo(X.dtype).eps * scales[0]))
    return Whitening(mean, directions[:rank] / scales[:rank, None])
