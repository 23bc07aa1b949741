"""Attend to the token of the highest score."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..analysis import MaxMargin, largest_margin
from ..core import AbstractTask, as_float_array, check_matrix, require
from ._attention_pooling import AttentionPooling


class TokenSelection(AbstractTask):
    r"""Minus the score that attention collects, averaged over examples.

    An example is a set of tokens $x_t$ with scores $\gamma_t$; the loss is $-\tfrac1n\sum_i\sum_ta_{it}\gamma_{it}$ with
    the attention $a$ of an `AttentionPooling` network. It is lowest where all attention is on the best tokens.

    **Arguments:**

    - `tokens`: $x_{it}$, shape `(examples, tokens, inputs)`, or `(tokens, inputs)` for one example.
    - `scores`: $\gamma_{it}$, shape `(examples, tokens)`, or `(tokens,)`.

    **Raises:**

    `ValueError` for shapes that do not fit, fewer than two tokens, or numbers that are not finite.
    """

    tokens: Float[Array, "examples tokens inputs"]
    scores: Float[Array, "examples tokens"]

    def __init__(self, tokens: ArrayLike, scores: ArrayLike):
        tokens, scores = as_float_array("tokens", tokens), as_float_array("scores", scores)
        if tokens.ndim == 2 and scores.ndim == 1:
            tokens, scores = tokens[None], scores[None]
        self.tokens = check_matrix("tokens", tokens, (None, None, None))
        self.scores = check_matrix("scores", scores, self.tokens.shape[:2]).astype(self.tokens.dtype)
        if self.tokens.shape[1] < 2:
            raise ValueError(f"`tokens` must hold at least two tokens per example; got shape {self.tokens.shape}.")

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """Minus the mean score, for any model of tokens and scores."""
        if isinstance(model, AttentionPooling):
            check_pooling(model, self)
        return -jnp.mean(jax.vmap(model)(self.tokens, self.scores))

    def attention_map(self, model: AttentionPooling) -> Float[Array, "examples tokens"]:
        """What the query attends to in every example; rows sum to one."""
        return jax.vmap(check_pooling(model, self).attention)(self.tokens)


def selection_margin(task: PyTree) -> MaxMargin:
    r"""The direction of the query that separates the best token of every example from all others by the largest margin.

    The logit of the best token exceeds those of the others by at least `margin` for a query of length one, and by less
    for any other direction. The gradient flow of a query that comes to select the best tokens turns towards it, as
    slowly as $1/\ln t$.

    **Arguments:**

    - `task`: a `TokenSelection` with one best token in every example.

    **Returns:**

    A `tx.analysis.MaxMargin`; its margin is zero where no query selects the best tokens of all examples.
    """
    if not isinstance(task, TokenSelection):
        raise ValueError(f"`task` must be a TokenSelection; got {type(task).__name__}.")
    order = jnp.argsort(-task.scores, axis=1)
    ranked = jnp.take_along_axis(task.scores, order, axis=1)
    tokens = jnp.take_along_axis(task.tokens, order[:, :, None], axis=1)
    message = "`task` must have one best token in every example; two have the same score."
    tokens = require(tokens, jnp.all(ranked[:, 0] > ranked[:, 1]), message)
    return largest_margin((tokens[:, :1] - tokens[:, 1:]).reshape(-1, tokens.shape[2]))


def check_pooling(model: PyTree, task: TokenSelection) -> AttentionPooling:
    """The model, if it is a query that fits the task."""
    if not isinstance(model, AttentionPooling):
        raise ValueError(f"`model` must be an AttentionPooling network; got {type(model).__name__}.")
    if model.query.shape[-1] != task.tokens.shape[2]:
        raise ValueError(f"`model` must have {task.tokens.shape[2]} inputs to fit `task`; got {model.query.shape[-1]}.")
    return model
