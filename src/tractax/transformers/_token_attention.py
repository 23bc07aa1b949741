"""One layer of softmax attention over one-hot tokens, and a decoder."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ..core import check_matrix, check_sizes


class TokenAttention(eqx.Module):
    r"""Predicts the next token from the last one and what it attends to.

    Without positions a context is known by how often each token $l$ occurs in it, $p_l$. The last token $m$ pays to all
    occurrences of $l$ together the attention $c_l\propto p_l e^{z_{ml}}$. One-hot values and a normalisation make the
    features $f = c/\lVert c\rVert_2$, and the logits of the next token are $Y^\top f$.

    **Arguments:**

    - `decoder`: $Y$, shape `(tokens, outputs)`.
    - `logits`: $Z$, the logits of attention, with a row $z_m$ for every token that can be last, shape
      `(last, tokens)`.

    In this order relative rates count: `tx.GradientFlow(rates=(decoder_rate, attention_rate))`.

    **Raises:**

    `ValueError` for shapes that do not fit or numbers that are not finite.
    """

    decoder: Float[Array, "*times tokens outputs"]
    logits: Float[Array, "*times last tokens"]

    def __init__(self, decoder: ArrayLike, logits: ArrayLike):
        self.decoder = check_matrix("decoder", decoder)
        self.logits = check_matrix("logits", logits, (None, self.decoder.shape[0])).astype(self.decoder.dtype)

    @staticmethod
    def zeros(tokens: int, outputs: int, last: int, dtype: np.typing.DTypeLike | None = None) -> "TokenAttention":
        """The network before training: it attends to all occurrences alike and predicts nothing.

        **Arguments:**

        - `tokens`, `outputs`, `last`: the sizes.
        - `dtype`: JAX's default of floating point if `None`.
        """
        check_sizes(tokens=tokens, outputs=outputs, last=last)
        dtype = jnp.result_type(float) if dtype is None else dtype
        return TokenAttention(jnp.zeros((tokens, outputs), dtype), jnp.zeros((last, tokens), dtype))

    @property
    def tokens(self) -> int:
        """The number of different tokens."""
        return self.logits.shape[-1]

    @property
    def outputs(self) -> int:
        """The number of tokens that can be predicted."""
        return self.decoder.shape[-1]

    def attention(self, frequencies: ArrayLike, last: ArrayLike) -> Float[Array, " tokens"]:
        """The attention $c$ that each token of a context gets; it sums to one.

        **Arguments:**

        - `frequencies`: how often each token occurs, up to a factor, not negative and not all zero, shape `(tokens,)`.
        - `last`: the last token, the row of `logits`.
        """
        features = self.features(frequencies, last)
        return features / jnp.sum(features)

    def features(self, frequencies: ArrayLike, last: ArrayLike) -> Float[Array, " tokens"]:
        """The normalised attention $f$, with the same arguments."""
        return attention_features(jnp.asarray(frequencies, self.logits.dtype), self.logits[last])

    def __call__(self, frequencies: ArrayLike, last: ArrayLike) -> Float[Array, " outputs"]:
        """The logits of the next token, with the same arguments."""
        return self.features(frequencies, last) @ self.decoder


def attention_features(
    frequencies: Float[Array, "*shape tokens"], logits: Float[Array, "*shape tokens"]
) -> Float[Array, "*shape tokens"]:
    """$f$, the attention of length one."""
    # A token that does not occur must not set the scale, however large its logit.
    occurs = frequencies > 0
    shift = jnp.max(jnp.where(occurs, logits, -jnp.inf), axis=-1, keepdims=True)
    shift = jax.lax.stop_gradient(jnp.where(jnp.isfinite(shift), shift, 0.0))
    weights = jnp.where(occurs, frequencies * jnp.exp(jnp.where(occurs, logits - shift, 0.0)), 0.0)
    return weights / jnp.linalg.norm(weights, axis=-1, keepdims=True)
