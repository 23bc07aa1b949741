r"""Weight tying on a Markov chain: which starts learn the chain, and which never do better than its frequencies.

Set-up. A stylised layer, designed here: a token $x = \pm1$ (a one, a zero) is embedded as $ex$, a residual block adds $w$
times that, and the same number $e$ reads out the log-odds of a one to come, $z = e^2(1 + w)\,x + b$. Gradient flow of the
cross-entropy on `BinaryMarkovTask`, all three numbers trained at the same rate.

Theory. The loss is convex in the slope $s = e^2(1 + w)$ and $b$, and best at an $s^*$ with the sign of $1 - p - q$: at
the entropy rate of the chain, the loss of the best bigram model. With $s = 0$ the best is the loss of the unigram model,
the entropy of its stationary distribution. The flow conserves $C = e^2 - 2(1 + w)^2$. So if $C\le0$, the sign of $1 +
w$ and of $s$ can never change. If it is the wrong one, $(1 + w)(1 - p - q) < 0$, the loss never falls below that of the
unigram model, at which it ends with $e = 0$; from all other starts with $e\ne0$ the flow reaches the bigram loss.

Tied transformers have such a bad minimum for $p + q > 1$ too, where tokens tend to alternate, and none if tokens tend to
repeat or weights are not tied.

Source: Makkuva, Bondaschi, Girish, Nagle, Jaggi, Kim and Gastpar 2024, arXiv 2402.04161, for transformers; this layer and
its conserved quantity are derived here.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree

from ..core import check_finite
from ._binary_markov import BinaryMarkovTask


class TiedBigram(eqx.Module):
    r"""The log-odds $z = e^2(1 + w)\,x + b$ of a one, after a token $x = \pm1$.

    **Arguments:**

    - `embedding`: $e$, which embeds and reads out.
    - `weight`: $w$, of the block beside the residual connection.
    - `bias`: $b$.
    """

    embedding: Float[Array, "*times"]
    weight: Float[Array, "*times"]
    bias: Float[Array, "*times"]

    def __init__(self, embedding: ArrayLike, weight: ArrayLike, bias: ArrayLike = 0.0):
        self.embedding = check_finite("embedding", embedding, scalar=True)
        self.weight = check_finite("weight", weight, scalar=True).astype(self.embedding.dtype)
        self.bias = check_finite("bias", bias, scalar=True).astype(self.embedding.dtype)

    @property
    def slope(self) -> Float[Array, "*times"]:
        """$s = e^2(1 + w)$."""
        return self.embedding**2 * (1 + self.weight)

    @property
    def balance(self) -> Float[Array, "*times"]:
        """$C = e^2 - 2(1 + w)^2$, which gradient flow conserves."""
        return self.embedding**2 - 2 * (1 + self.weight) ** 2

    def __call__(self, tokens: Int[Array, " positions"]) -> Float[Array, " positions"]:
        """The log-odds of a one after each token, a zero or a one."""
        return self.slope * (2 * tokens - 1).astype(self.slope.dtype) + self.bias


def learns_bigram(model: PyTree, task: PyTree) -> Bool[Array, ""]:
    r"""Whether gradient flow from here reaches the bigram loss; otherwise it ends at the unigram loss.

    That is so if $e\ne0$, and the slope has the right sign, $(1 + w)(1 - p - q) > 0$, or can get it, $C > 0$. At $p + q =
    1$ the two losses are the same.

    **Arguments:**

    - `model`: a `TiedBigram`.
    - `task`: a `BinaryMarkovTask`.

    **Raises:**

    `ValueError` for another model or task.
    """
    if not isinstance(model, TiedBigram):
        raise ValueError(f"`model` must be a TiedBigram; got {type(model).__name__}.")
    if not isinstance(task, BinaryMarkovTask):
        raise ValueError(f"`task` must be a BinaryMarkovTask; got {type(task).__name__}.")
    right = jnp.sign(1 + model.weight) * jnp.sign(1 - task.up - task.down).astype(model.weight.dtype) > 0
    return (model.embedding != 0) & (right | (model.balance > 0))
