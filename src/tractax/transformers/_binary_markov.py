"""Predict the next token of a Markov chain with two states."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray, PyTree

from ..core import AbstractSampledTask, check_count, check_positive, require

_LONGEST = 16


class BinaryMarkovTask(AbstractSampledTask):
    r"""Cross-entropy of the next token of a stationary chain on $\{0, 1\}$, in nats, averaged over positions.

    A zero is followed by a one with probability $p$, a one by a zero with probability $q$. A model maps the first
    $T - 1$ tokens of a sequence to the log-odds of a one at each next position. The loss is exact for any model, by a sum
    over all $2^{T-1}$ contexts.

    **Arguments:**

    - `up`, `down`: $p$ and $q$, between 0 and 1, not both 0.
    - `length`: $T\ge2$, the number of tokens of a sequence. For a model that looks at the last token only it makes no
      difference.

    **Raises:**

    `ValueError` for probabilities outside of their range, or another length.
    """

    up: Float[Array, ""]
    down: Float[Array, ""]
    length: int = eqx.field(static=True)

    def __init__(self, up: ArrayLike, down: ArrayLike, length: ArrayLike = 2):
        self.up, self.down = _probability("up", up), _probability("down", down)
        self.down = self.down.astype(self.up.dtype)
        message = "`up` and `down` must not both be zero: such a chain never moves."
        self.down = require(self.down, self.up + self.down > 0, message)
        self.length = check_count("length", length, least=2)

    @property
    def stationary(self) -> Float[Array, ""]:
        """$p/(p + q)$, how many tokens are ones."""
        return self.up / (self.up + self.down)

    @property
    def unigram_loss(self) -> Float[Array, ""]:
        """The loss of the best prediction that ignores the context, the entropy of the stationary distribution."""
        return _entropy(self.stationary)

    @property
    def bigram_loss(self) -> Float[Array, ""]:
        """The loss of the best prediction, which looks at the last token: the rate $[q\\,h(p) + p\\,h(q)]/(p + q)$ of
        entropies $h$."""
        return (1 - self.stationary) * _entropy(self.up) + self.stationary * _entropy(self.down)

    def next_probability(self, tokens: Int[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Of a one, after each token."""
        return jnp.where(tokens == 1, 1 - self.down, self.up)

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """The cross-entropy, exact.

        **Raises:**

        `ValueError` for sequences of more than 16 tokens, which have too many contexts; there is `batch_loss` for them.
        """
        if self.length > _LONGEST:
            raise ValueError(f"`length` must be at most {_LONGEST} for the exact loss; got {self.length}.")
        positions = np.arange(self.length - 1)
        contexts = jnp.asarray((np.arange(2**positions.size)[:, None] >> positions[None, :]) & 1)
        ones = self.next_probability(contexts[:, :-1])
        steps = jnp.where(contexts[:, 1:] == 1, ones, 1 - ones)
        first = jnp.where(contexts[:, 0] == 1, self.stationary, 1 - self.stationary)
        losses = _cross_entropy(jax.vmap(model)(contexts), self.next_probability(contexts))
        return jnp.sum((first * jnp.prod(steps, axis=1)).astype(losses.dtype) * jnp.mean(losses, axis=1))

    def sample(self, key: PRNGKeyArray, batch: int) -> Int[Array, "batch length"]:
        """Sequences of the stationary chain."""
        first_key, key = jax.random.split(key)
        first = jax.random.bernoulli(first_key, self.stationary, (batch,)).astype(int)

        def step(tokens: Array, uniform: Array) -> tuple[Array, Array]:
            following = (uniform < self.next_probability(tokens)).astype(int)
            return following, following

        uniforms = jax.random.uniform(key, (self.length - 1, batch), self.up.dtype)
        _, rest = jax.lax.scan(step, first, uniforms)
        return jnp.concatenate([first[None], rest]).T

    def batch_loss(self, model: PyTree, batch: Int[Array, "batch length"]) -> Float[Array, ""]:
        """The cross-entropy, averaged over the batch and positions."""
        log_odds = jax.vmap(model)(batch[:, :-1])
        return jnp.mean(_cross_entropy(log_odds, batch[:, 1:].astype(log_odds.dtype)))


def _cross_entropy(log_odds: Float[Array, "*shape"], ones: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    return jax.nn.softplus(log_odds) - ones.astype(log_odds.dtype) * log_odds


def _entropy(probability: Float[Array, ""]) -> Float[Array, ""]:
    return jax.scipy.special.entr(probability) + jax.scipy.special.entr(1 - probability)


def _probability(name: str, x: Any) -> Float[Array, ""]:
    x = check_positive(name, x, zero=True, scalar=True)
    return require(x, x <= 1, f"`{name}` must be a probability, at most 1; got {x}.")
