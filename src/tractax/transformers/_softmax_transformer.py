"""A transformer of one layer with softmax attention, small enough to train everywhere; no theory solves it."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..core import check_sizes, standard_normal
from ._stability_diagnostics import attention_logits, layer_norm


class SoftmaxTransformer(eqx.Module):
    """Attention and a perceptron of one hidden layer, each after a layer norm and added to the residual stream.

    It answers prompts of `InContextRegression`, of shape `(inputs + 1, tokens)`, with a number read off the last token.
    There are no positions, masks, biases or gains. Weights are Gaussian with variance one over the fan-in.

    **Arguments:**

    - `inputs`: of the task.
    - `width`: of the residual stream, a multiple of `heads`.
    - `heads`: the number of heads.
    - `qk_norm`: whether queries and keys pass a layer norm before their product.
    - `key`: for the draw.

    **Raises:**

    `ValueError` for sizes that are no positive whole numbers or do not fit.
    """

    embed: Float[Array, "width tokenwidth"]
    query: Float[Array, "width width"]
    key: Float[Array, "width width"]
    value: Float[Array, "width width"]
    up: Float[Array, "hidden width"]
    down: Float[Array, "width hidden"]
    read: Float[Array, " width"]
    heads: int = eqx.field(static=True)
    qk_norm: bool = eqx.field(static=True)

    def __init__(self, inputs: int, width: int, heads: int = 1, *, qk_norm: bool = False, key: PRNGKeyArray):
        check_sizes(inputs=inputs, width=width, heads=heads)
        if width % heads:
            raise ValueError(f"`width` must be a multiple of the number of heads, {heads}; got {width}.")
        keys = iter(jax.random.split(key, 7))

        def draw(*shape: int) -> Array:
            return standard_normal(next(keys), shape) / shape[-1] ** 0.5

        self.embed = draw(width, inputs + 1)
        self.query, self.key, self.value = draw(width, width), draw(width, width), draw(width, width)
        self.up, self.down = draw(2 * width, width), draw(width, 2 * width)
        self.read = draw(width)
        self.heads, self.qk_norm = heads, qk_norm

    def attention_logits(self, prompt: Float[Array, "tokenwidth tokens"]) -> Float[Array, "heads tokens tokens"]:
        """What the softmax of each head is taken of, `[head, query, key]`."""
        return self._logits(layer_norm(prompt.T @ self.embed.T))

    def hidden(self, prompt: Float[Array, "tokenwidth tokens"]) -> Float[Array, "tokens width"]:
        """The residual stream after the layer."""
        stream = prompt.T @ self.embed.T
        normed = layer_norm(stream)
        attention = jax.nn.softmax(self._logits(normed), axis=-1)
        attended = jnp.einsum("hts,hsi->thi", attention, self._split(normed, self.value))
        stream = stream + attended.reshape(stream.shape)
        return stream + jax.nn.gelu(layer_norm(stream) @ self.up.T) @ self.down.T

    def __call__(self, prompt: Float[Array, "tokenwidth tokens"]) -> Float[Array, ""]:
        """The prediction for one prompt."""
        return layer_norm(self.hidden(prompt)[-1]) @ self.read

    def _logits(self, normed: Float[Array, "tokens width"]) -> Float[Array, "heads tokens tokens"]:
        queries, keys = self._split(normed, self.query), self._split(normed, self.key)
        return attention_logits(queries, keys, qk_norm=self.qk_norm)

    def _split(self, normed: Float[Array, "tokens width"], weight: Array) -> Float[Array, "heads tokens size"]:
        """By heads."""
        return jnp.swapaxes((normed @ weight.T).reshape(normed.shape[0], self.heads, -1), 0, 1)
