"""Softmax attention of one trainable query to given tokens."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..core import check_matrix


class AttentionPooling(eqx.Module):
    r"""$\sum_t\operatorname{softmax}(Xp)_t\,\gamma_t$: the scores of tokens, averaged with attention.

    **Arguments:**

    - `query`: $p$, shape `(inputs,)`.

    **Raises:**

    `ValueError` for another shape or numbers that are not finite.
    """

    query: Float[Array, "*times inputs"]

    def __init__(self, query: ArrayLike):
        self.query = check_matrix("query", query, (None,))

    def attention(self, tokens: Float[ArrayLike, "tokens inputs"]) -> Float[Array, " tokens"]:
        """The attention that each token gets; it sums to one."""
        return jax.nn.softmax(jnp.asarray(tokens, self.query.dtype) @ self.query)

    def __call__(
        self, tokens: Float[ArrayLike, "tokens inputs"], scores: Float[ArrayLike, " tokens"]
    ) -> Float[Array, ""]:
        """The average score."""
        return self.attention(tokens) @ jnp.asarray(scores, self.query.dtype)
