"""Initial weights of attention."""

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, PRNGKeyArray

from ..core import check_key, check_positive, check_sizes, standard_normal
from ._linear_attention import LinearAttention, SeparateAttention
from ._softmax_attention import SoftmaxAttention


def balanced_attention(inputs: int, heads: int = 1, *, scale: ArrayLike, key: PRNGKeyArray) -> LinearAttention:
    r"""Balanced weights $U_h = v_h\,\Theta\Theta^\top/\lVert\Theta\Theta^\top\rVert_F$ with a random $\Theta$.

    For one head this is the usual start of theory, $v = \sigma$.

    **Arguments:**

    - `inputs`: $d$.
    - `heads`: how many heads share the matrix, with random signs and sizes.
    - `scale`: $\sigma = \lVert v\rVert$, positive.
    - `key`: for the draw.
    """
    check_key(key)
    check_sizes(inputs=inputs, heads=heads)
    scale = check_positive("scale", scale, scalar=True)
    matrix_key, share_key = jax.random.split(key)
    theta = standard_normal(matrix_key, (inputs, inputs), scale.dtype)
    shared = theta @ theta.T
    shares = jnp.ones(1, scale.dtype) if heads == 1 else jax.random.normal(share_key, (heads,), scale.dtype)
    value = scale * shares / jnp.linalg.norm(shares)
    return LinearAttention.embed(value, value[:, None, None] * (shared / jnp.linalg.norm(shared))[None])


def gaussian_attention(inputs: int, heads: int = 1, *, scale: ArrayLike, key: PRNGKeyArray) -> LinearAttention:
    r"""Independent Gaussian $v_h$ and $U_h$ of standard deviation `scale`.

    **Arguments:**

    - `inputs`: $d$.
    - `heads`: the number of heads.
    - `scale`: $\varepsilon$, positive.
    - `key`: for the draw.
    """
    check_key(key)
    check_sizes(inputs=inputs, heads=heads)
    scale = check_positive("scale", scale, scalar=True)
    draw = scale * standard_normal(key, (heads, 1 + inputs**2), scale.dtype)
    return LinearAttention.embed(draw[:, 0], draw[:, 1:].reshape(heads, inputs, inputs))


def gaussian_separate_attention(
    inputs: int, heads: int, rank: int = 1, *, scale: ArrayLike, key: PRNGKeyArray
) -> SeparateAttention:
    r"""Independent Gaussian $v_h$, $K_h$ and $Q_h$ of standard deviation `scale`.

    **Arguments:**

    - `inputs`: $d$.
    - `heads`: the number of heads.
    - `rank`: $R$, of keys and queries.
    - `scale`: $\varepsilon$, positive.
    - `key`: for the draw.
    """
    check_key(key)
    check_sizes(inputs=inputs, heads=heads, rank=rank)
    scale = check_positive("scale", scale, scalar=True)
    draw = scale * standard_normal(key, (heads, 1 + 2 * rank * inputs), scale.dtype)
    keys, queries = jnp.split(draw[:, 1:].reshape(heads, 2 * rank, inputs), 2, axis=1)
    return SeparateAttention.embed(draw[:, 0], keys, queries)


def gaussian_softmax_attention(inputs: int, heads: int = 1, *, scale: ArrayLike, key: PRNGKeyArray) -> SoftmaxAttention:
    r"""Softmax attention with independent Gaussian entries of standard deviation `scale` in all matrices.

    **Arguments:**

    - `inputs`: $d$.
    - `heads`: the number of heads.
    - `scale`: $\varepsilon$, positive.
    - `key`: for the draw.
    """
    check_key(key)
    check_sizes(inputs=inputs, heads=heads)
    scale = check_positive("scale", scale, scalar=True)
    draw = scale * standard_normal(key, (2, heads, inputs + 1, inputs + 1), scale.dtype)
    return SoftmaxAttention(draw[0], draw[1])
