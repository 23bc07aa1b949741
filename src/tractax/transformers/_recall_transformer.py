"""A transformer block that recalls facts: attention from the last token, then a hidden layer of rectifiers."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray

from ..core import check_key, check_matrix, check_positive, check_sizes, standard_normal


class RecallTransformer(eqx.Module):
    r"""$\mathrm{logits} = V^\top\mathrm{relu}\big(T\sum_i a_i\,W_{z_i}\big)$, $a = \mathrm{softmax}_i(A_{z_T,z_i})$.

    $z_1, \dots, z_T$ are the tokens of a prompt, of which the last one attends.

    **Arguments:**

    - `attention`: $A$, shape `(vocabulary, vocabulary)`.
    - `embedding`: $W$, shape `(vocabulary, width)`.
    - `readout`: $V$, shape `(width, choices)`.

    **Raises:**

    `ValueError` for shapes that do not fit or numbers that are not finite.
    """

    attention: Float[Array, "vocabulary vocabulary"]
    embedding: Float[Array, "vocabulary width"]
    readout: Float[Array, "width choices"]

    def __init__(self, attention: ArrayLike, embedding: ArrayLike, readout: ArrayLike):
        self.embedding = check_matrix("embedding", embedding)
        vocabulary, width = self.embedding.shape
        self.attention = check_matrix("attention", attention, (vocabulary, vocabulary)).astype(self.embedding.dtype)
        self.readout = check_matrix("readout", readout, (width, None)).astype(self.embedding.dtype)

    @classmethod
    def gaussian(
        cls, vocabulary: int, choices: int, width: int, *, scale: ArrayLike = 0.1, key: PRNGKeyArray
    ) -> "RecallTransformer":
        """Even attention, and Gaussian entries of standard deviation `scale` in the other matrices."""
        check_key(key)
        check_sizes(vocabulary=vocabulary, choices=choices, width=width)
        scale = check_positive("scale", scale, scalar=True)
        inner, outer = jax.random.split(key)
        embedding = scale * standard_normal(inner, (vocabulary, width), scale.dtype)
        readout = scale * standard_normal(outer, (width, choices), scale.dtype)
        return cls(jnp.zeros((vocabulary, vocabulary), scale.dtype), embedding, readout)

    def attend(self, prompt: Int[Array, " tokens"]) -> Float[Array, " tokens"]:
        """What the last token pays to each."""
        return jax.nn.softmax(self.attention[prompt[-1], prompt])

    def __call__(self, prompt: Int[Array, " tokens"]) -> Float[Array, " choices"]:
        """The logits of the answers to one prompt."""
        return self.answer(prompt, self.embedding[prompt])

    def answer(self, prompt: Int[Array, " tokens"], vectors: Float[Array, "tokens width"]) -> Float[Array, " choices"]:
        """The logits, with these vectors for the tokens."""
        return jax.nn.relu(prompt.shape[0] * (self.attend(prompt) @ vectors)) @ self.readout


class LowRankRecall(eqx.Module):
    r"""The same with $W + BC$ in place of $W$, where only $B$ and $C$ are trained: low-rank adaptation.

    **Arguments:**

    - `base`: a `RecallTransformer`, which stays as it is.
    - `left`: $B$, shape `(vocabulary, rank)`.
    - `right`: $C$, shape `(rank, width)`.

    **Raises:**

    `ValueError` for another kind of base, or shapes that do not fit.
    """

    base: RecallTransformer
    left: Float[Array, "vocabulary rank"]
    right: Float[Array, "rank width"]

    def __init__(self, base: eqx.Module, left: ArrayLike, right: ArrayLike):
        if not isinstance(base, RecallTransformer):
            raise ValueError(f"`base` must be a RecallTransformer; got {type(base).__name__}.")
        vocabulary, width = base.embedding.shape
        self.base = base
        self.left = check_matrix("left", left, (vocabulary, None)).astype(base.embedding.dtype)
        self.right = check_matrix("right", right, (self.left.shape[1], width)).astype(base.embedding.dtype)

    @classmethod
    def start(cls, base: RecallTransformer, rank: int, *, key: PRNGKeyArray) -> "LowRankRecall":
        r"""$B = 0$, and a Gaussian $C$ with rows of about unit length: at first it answers as the base does."""
        check_key(key)
        check_sizes(rank=rank)
        vocabulary, width = base.embedding.shape
        right = standard_normal(key, (rank, width), base.embedding.dtype) / width**0.5
        return cls(base, jnp.zeros((vocabulary, rank), right.dtype), right)

    def __call__(self, prompt: Int[Array, " tokens"]) -> Float[Array, " choices"]:
        """The logits of the answers to one prompt."""
        base = jax.lax.stop_gradient(self.base)
        return base.answer(prompt, base.embedding[prompt] + self.left[prompt] @ self.right)
