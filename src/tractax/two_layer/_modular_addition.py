"""Learn to add two residues, from all pairs."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray, PyTree

from ..core import AbstractSampledTask, check_count
from ._modular_network import AbstractModularNetwork, check_modulus

_LOSSES = ("correlation", "cross_entropy", "squared")


class ModularAddition(AbstractSampledTask):
    r"""The answer to $(x, y)$ is $x + y$ modulo $p$; a loss of the scores $f(x, y)$, averaged over all $p^2$ pairs.

    - `"correlation"`: $-\big(f_{x+y} - \tfrac1p\sum_jf_j\big)$, which is unbounded below.
    - `"cross_entropy"`: $-\ln\operatorname{softmax}(f)_{x+y}$.
    - `"squared"`: $\tfrac12\lVert f - (e_{x+y} - \tfrac1p)\rVert^2$.

    For small scores the last two have the gradient of the first.

    **Arguments:**

    - `p`: the modulus, at least 3.
    - `loss`: which one.

    **Raises:**

    `ValueError` for another modulus or an unknown loss.
    """

    p: int = eqx.field(static=True)
    loss_name: str = eqx.field(static=True)

    def __init__(self, p: ArrayLike, loss: str = "cross_entropy"):
        if loss not in _LOSSES:
            raise ValueError(f"`loss` must be one of {', '.join(_LOSSES)}; got {loss!r}.")
        self.p, self.loss_name = check_modulus(p), loss

    def logits(self, model: PyTree) -> Float[Array, "p p p"]:
        """The scores of all pairs, having checked that the model fits."""
        return check_modular(model, self.p).logits()

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """The loss, averaged over all pairs."""
        return jnp.mean(self._losses(self.logits(model), self._sums))

    def accuracy(self, model: PyTree) -> Float[Array, ""]:
        """The fraction of all pairs whose largest score is that of the right answer."""
        logits = self.logits(model)
        return jnp.mean((jnp.argmax(logits, axis=2) == self._sums).astype(logits.dtype))

    def margin(self, model: PyTree) -> Float[Array, ""]:
        """The least lead, over all pairs, of the score of the right answer over that of any other."""
        logits = self.logits(model)
        right = jax.nn.one_hot(self._sums, self.p, dtype=logits.dtype)
        return jnp.min(jnp.sum(right * logits, axis=2) - jnp.max(jnp.where(right == 1, -jnp.inf, logits), axis=2))

    def sample(self, key: PRNGKeyArray, batch: int) -> tuple[Int[Array, " batch"], Int[Array, " batch"]]:
        """Pairs, drawn with replacement."""
        x, y = jax.random.randint(key, (2, check_count("batch", batch)), 0, self.p)
        return x, y

    def batch_loss(self, model: PyTree, batch: tuple[Int[Array, " batch"], Int[Array, " batch"]]) -> Float[Array, ""]:
        """The loss, averaged over some pairs; for any model of two residues with $p$ scores."""
        x, y = batch
        return jnp.mean(self._losses(jax.vmap(model)(x, y), (x + y) % self.p))

    @property
    def _sums(self) -> Int[Array, "p p"]:
        """The answers to all pairs."""
        x = jnp.arange(self.p)
        return (x[:, None] + x[None, :]) % self.p

    def _losses(self, logits: Float[Array, "*pairs p"], answers: Int[Array, "*pairs"]) -> Float[Array, "*pairs"]:
        if self.loss_name == "squared":
            target = jax.nn.one_hot(answers, self.p, dtype=logits.dtype) - 1 / self.p
            return jnp.sum((logits - target) ** 2, axis=-1) / 2
        own = jnp.take_along_axis(logits, answers[..., None], axis=-1)[..., 0]
        if self.loss_name == "correlation":
            return jnp.mean(logits, axis=-1) - own
        return jax.nn.logsumexp(logits, axis=-1) - own


def check_modular(model: PyTree, p: int) -> AbstractModularNetwork:
    """The model, if it is a modular network of this modulus."""
    if not isinstance(model, AbstractModularNetwork):
        raise ValueError(
            "`model` must be a ModularNetwork or a SeparateModularNetwork; got "
            f"{type(model).__name__}. For other models there are `sample` and `batch_loss`."
        )
    if model.p != p:
        raise ValueError(f"`model` must be for p = {p} to fit `task`; got p = {model.p}.")
    return model
