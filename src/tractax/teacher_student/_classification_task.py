"""Classification of a finite data set into two classes."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

from ..core import AbstractFiniteTask, check_matrix, require
from ._margin_losses import AbstractMarginLoss, Logistic


class ClassificationTask(AbstractFiniteTask):
    r"""The mean over a data set of a loss of the margins, $L = \tfrac1n\sum_i\ell(y_i\,f(x_i))$, for any model.

    Mini-batches are drawn uniformly with replacement; the loss of a batch is the same mean over the batch.

    **Arguments:**

    - `inputs`: $x_i$, one example a row, shape `(examples, in)`.
    - `labels`: $y_i = \pm1$, shape `(examples,)`.
    - `margin_loss`: $\ell$: `Logistic()` by default, `Exponential()` or `Hinge(threshold)`.

    **Raises:**

    `ValueError` for wrong shapes, NaN, labels other than ±1, or another kind of loss.
    """

    inputs: Float[Array, "examples in"]
    labels: Float[Array, " examples"]
    margin_loss: AbstractMarginLoss

    def __init__(
        self,
        inputs: ArrayLike,
        labels: ArrayLike,
        margin_loss: PyTree = None,
    ):
        self.inputs = check_matrix("inputs", inputs)
        labels = check_matrix("labels", labels, (self.inputs.shape[0],)).astype(self.inputs.dtype)
        self.labels = require(labels, jnp.all(jnp.abs(labels) == 1), "`labels` must be +1 or -1.")
        self.margin_loss = check_margin_loss(Logistic() if margin_loss is None else margin_loss)

    @property
    def signed_inputs(self) -> Float[Array, "examples in"]:
        """$z_i = y_ix_i$: all that a linear classifier sees."""
        return self.labels[:, None] * self.inputs

    def margins(self, model: PyTree) -> Float[Array, " examples"]:
        """$y_i f(x_i)$ of every example; positive where the answer is right."""
        return self._margins(model, self.inputs, self.labels)

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """The mean loss of all examples."""
        return jnp.mean(self.margin_loss(self.margins(model)))

    @property
    def examples(self) -> int:
        """How many there are."""
        return self.inputs.shape[0]

    def batch_loss(self, model: PyTree, batch: Int[Array, " batch"]) -> Float[Array, ""]:
        """The mean loss of the examples with these indices."""
        return jnp.mean(self.margin_loss(self._margins(model, self.inputs[batch], self.labels[batch])))

    def _margins(self, model: PyTree, inputs: Array, labels: Array) -> Array:
        outputs = jax.vmap(model)(inputs)
        if outputs.size != labels.size:
            raise ValueError(f"`model` must return one number for each example; got shape {outputs.shape[1:]}.")
        return labels * outputs.reshape(labels.shape)


def check_margin_loss(margin_loss: PyTree) -> AbstractMarginLoss:
    """The loss, if it is one of margins."""
    if not isinstance(margin_loss, AbstractMarginLoss):
        raise ValueError(f"`margin_loss` must be a loss of margins such as Logistic(); got {type(margin_loss).__name__}.")
    return margin_loss
