"""Initial weights of two-layer networks."""

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, PRNGKeyArray

from ..core import check_count, check_key, check_positive, standard_normal
from ._network import LeakyReLU, TwoLayerNetwork


def balanced_units(
    inputs: int, hidden: int, *, scale: ArrayLike, key: PRNGKeyArray | None, slope: float = 0.0
) -> TwoLayerNetwork:
    r"""Random balanced units of one output: $w_j = \lambda g_j/\sqrt m$ with normal $g_j$, $a_j = \pm\lVert w_j\rVert$.

    **Arguments:**

    - `inputs`, `hidden`: the sizes; $m$ is the number of hidden units.
    - `scale`: $\lambda > 0$.
    - `key`: for the directions and the signs. The same key with another scale gives the same network, scaled.
    - `slope`: of the activation, `LeakyReLU(slope)`.

    **Raises:**

    `ValueError` for a size below one or a scale that is not positive.
    """
    inputs, hidden = check_count("inputs", inputs), check_count("hidden", hidden)
    check_key(key)
    scale = check_positive("scale", scale, scalar=True)
    directions, signs = jax.random.split(key)
    first = scale / hidden**0.5 * standard_normal(directions, (hidden, inputs), scale.dtype)
    second = jnp.linalg.norm(first, axis=1) * jax.random.rademacher(signs, (hidden,), scale.dtype)
    return TwoLayerNetwork(first, second, LeakyReLU(slope))
