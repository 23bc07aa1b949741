"""The singular vectors of a task that a network means."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._task import LinearTask


def singular_modes(
    task: LinearTask, product: Float[Array, "out in"]
) -> tuple[Float[Array, "out modes"], Float[Array, " modes"], Float[Array, "in modes"]]:
    r"""$(U, s, V)$ with $\Sigma_{yx} = U\,\mathrm{diag}(s)\,V^\top$, in the basis of an aligned network.

    Where singular values repeat, the network decides which singular vectors are meant: a part of its product breaks the
    tie, and changes no vector of an aligned network. $s$ is negative where that flips a sign.
    """
    sigma = task.cross_covariance
    size = jnp.linalg.norm(product)
    nudge = 0.3 * jnp.linalg.norm(sigma) / jnp.where(size == 0, 1.0, size)
    u, _, vt = jnp.linalg.svd(sigma + nudge * product, full_matrices=False)
    return u, jnp.sum(u * (sigma @ vt.T), axis=0), vt.T
