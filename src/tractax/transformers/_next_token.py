"""Predict the next token from a bag of tokens and the last one."""

import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray, PyTree

from ..core import AbstractSampledTask, as_float_array, check_count, check_matrix, check_positive, require
from ._context_length import check_length
from ._token_attention import TokenAttention


class NextTokenTask(AbstractSampledTask):
    r"""Cross-entropy of the next token, in nats, averaged over next tokens and contexts.

    A next token $n$ occurs with probability $P(n)$. It determines the last token of the context, $m = \psi(n)$; the
    other $T$ tokens are drawn independently from $p(l\mid n)$. In a long context their frequencies are these
    probabilities, and the loss is exact,

    $$L = -\sum_nP(n)\,\ln\operatorname{softmax}\big(f(p(\cdot\mid n), \psi(n))\big)_n$$

    for any network $f$ from frequencies and last token to logits. `batch_loss` is that of sampled contexts. For a finite
    $T$ it scatters around $L$ by $T^{-1/2}$, and its mean is off by $1/T$.

    **Arguments:**

    - `distribution`: $p(l\mid n)$, one row for every next token, not negative, shape `(classes, tokens)`; rows are
      normalised.
    - `last`: $\psi(n)$, as numbers from 0 up, one for every next token; `None` for a last token of its own for each.
    - `probabilities`: $P(n)$, not negative, normalised, shape `(classes,)`; `None` for all alike.
    - `length`: $T\ge1$, the length of the contexts that are sampled; `math.inf` for exact frequencies.

    **Raises:**

    `ValueError` for frequencies that are negative or all zero, or shapes that do not fit.
    """

    distribution: Float[Array, "classes tokens"]
    probabilities: Float[Array, " classes"]
    last: tuple[int, ...] = eqx.field(static=True)
    length: int | float = eqx.field(static=True)

    def __init__(
        self,
        distribution: ArrayLike,
        last: Sequence[int] | None = None,
        *,
        probabilities: ArrayLike | None = None,
        length: ArrayLike = math.inf,
    ):
        rows = check_positive("distribution", check_matrix("distribution", distribution), zero=True)
        self.distribution = _normalised("distribution", rows)
        classes = rows.shape[0]
        last = tuple(range(classes)) if last is None else tuple(last)
        whole = all(isinstance(m, int | np.integer) and not isinstance(m, bool) and m >= 0 for m in last)
        if len(last) != classes or not whole:
            raise ValueError(f"`last` must hold {classes} whole numbers of at least 0, one per next token; got {last}.")
        self.last = tuple(int(m) for m in last)
        if probabilities is None:
            self.probabilities = jnp.full(classes, 1 / classes, rows.dtype)
        else:
            weights = check_matrix("probabilities", probabilities, (classes,)).astype(rows.dtype)
            self.probabilities = _normalised("probabilities", check_positive("probabilities", weights, zero=True))
        self.length = check_length(length)

    @classmethod
    def symmetric(
        cls,
        shared: ArrayLike,
        own: ArrayLike,
        classes: int,
        *,
        length: ArrayLike = math.inf,
    ) -> "NextTokenTask":
        """Classes that differ by nothing but their names: the same shared tokens, and as many of their own.

        Tokens are numbered as they come: the shared ones, those of the first class, those of the second, …

        **Arguments:**

        - `shared`: how often the tokens occur that all classes share, up to a factor; may be empty.
        - `own`: how often those occur that no other class has, up to the same factor.
        - `classes`: the number of next tokens, at least 2; each has a last token of its own, and all are equally likely.
        - `length`: of the contexts, as in `NextTokenTask`.
        """
        classes = check_count("classes", classes, least=2)
        own = check_matrix("own", own, (None,))
        shared = as_float_array("shared", shared).astype(own.dtype)
        if shared.ndim != 1:
            raise ValueError(f"`shared` must have shape (any,); got {shared.shape}.")
        common = jnp.broadcast_to(shared[None, :], (classes, shared.shape[0]))
        rows = jnp.concatenate([common, jnp.kron(jnp.eye(classes, dtype=own.dtype), own[None, :])], axis=1)
        return cls(rows, length=length)

    @property
    def classes(self) -> int:
        """The number of next tokens."""
        return self.distribution.shape[0]

    @property
    def tokens(self) -> int:
        """The number of different tokens in a context."""
        return self.distribution.shape[1]

    @property
    def distinct(self) -> Array:
        """Which tokens occur with one next token only, and with which; booleans, shape `(classes, tokens)`."""
        occurs = self.distribution > 0
        return occurs & (jnp.sum(occurs, axis=0, keepdims=True) == 1)

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """The cross-entropy in long contexts, exact."""
        losses = self._cross_entropies(model, self.distribution, jnp.asarray(self.last), jnp.arange(self.classes))
        return jnp.sum(self.probabilities.astype(losses.dtype) * losses)

    def sample(
        self, key: PRNGKeyArray, batch: int
    ) -> tuple[Float[Array, "batch tokens"], Int[Array, " batch"], Int[Array, " batch"]]:
        """The frequencies of tokens in contexts, their last tokens, and the next ones."""
        next_key, context_key = jax.random.split(key)
        following = jax.random.categorical(next_key, jnp.log(self.probabilities), shape=(batch,))
        frequencies, last = self.distribution[following], jnp.asarray(self.last)[following]
        if isinstance(self.length, int):
            contexts = jax.random.categorical(context_key, jnp.log(frequencies), shape=(self.length, batch))
            counts = jax.vmap(lambda context: jnp.bincount(context, length=self.tokens), in_axes=1)(contexts)
            frequencies = counts.astype(frequencies.dtype) / self.length
        return frequencies, last, following

    def batch_loss(
        self, model: PyTree, batch: tuple[Float[Array, "batch tokens"], Int[Array, " batch"], Int[Array, " batch"]]
    ) -> Float[Array, ""]:
        """The cross-entropy, averaged over the batch; for any model from frequencies and last token to logits."""
        return jnp.mean(self._cross_entropies(model, *batch))

    def attention_map(self, model: TokenAttention) -> Float[Array, "classes tokens"]:
        """What the last token of every class attends to in long contexts; rows sum to one."""
        check_token_attention(model, self)
        return jax.vmap(model.attention)(self.distribution, jnp.asarray(self.last))

    def _cross_entropies(
        self, model: PyTree, frequencies: Array, last: Int[Array, " examples"], following: Int[Array, " examples"]
    ) -> Float[Array, " examples"]:
        if isinstance(model, TokenAttention):
            check_token_attention(model, self)
        logs = jax.nn.log_softmax(jax.vmap(model)(frequencies, last), axis=-1)
        return -jnp.take_along_axis(logs, following[:, None], axis=1)[:, 0]


def check_token_attention(model: PyTree, task: PyTree) -> TokenAttention:
    """The model, if it is attention over tokens that fits the task."""
    if not isinstance(task, NextTokenTask):
        raise ValueError(f"`task` must be a NextTokenTask; got {type(task).__name__}.")
    if not isinstance(model, TokenAttention):
        raise ValueError(f"`model` must be a TokenAttention network; got {type(model).__name__}.")
    if model.tokens != task.tokens:
        raise ValueError(f"`model` must know {task.tokens} tokens to fit `task`; got {model.tokens}.")
    if model.outputs < task.classes:
        raise ValueError(f"`model` must have at least {task.classes} outputs to fit `task`; got {model.outputs}.")
    if model.logits.shape[-2] <= max(task.last):
        raise ValueError(
            f"`model` must have logits for {max(task.last) + 1} last tokens to fit `task`; got {model.logits.shape[-2]}."
        )
    return model


def _normalised(name: str, weights: Float[Array, "*rows columns"]) -> Float[Array, "*rows columns"]:
    totals = jnp.sum(weights, axis=-1, keepdims=True)
    message = f"`{name}` must have a positive entry in every row; one is all zeros."
    return weights / require(totals, jnp.all(totals > 0), message)
