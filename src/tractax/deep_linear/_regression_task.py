"""Regression on a finite data set, in full or by mini-batches."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

from ..core import AbstractFiniteTask, check_matrix


class RegressionTask(AbstractFiniteTask):
    r"""Mean squared error over a data set, $L = \tfrac1{2n}\sum_i\lVert y_i - f(x_i)\rVert^2$, for any model.

    Mini-batches are drawn uniformly with replacement; the loss of a batch is the same mean over the batch.

    **Arguments:**

    - `inputs`: $x_i$, one example a row, shape `(examples, in)`.
    - `targets`: $y_i$, shape `(examples, out)`, or `(examples,)` for models with one output.

    **Raises:**

    `ValueError` for wrong shapes, different numbers of examples, or NaN.
    """

    inputs: Float[Array, "examples in"]
    targets: Float[Array, "examples *out"]

    def __init__(self, inputs: Float[ArrayLike, "examples in"], targets: Float[ArrayLike, "..."]):
        self.inputs = check_matrix("inputs", inputs)
        columns = (None,) if jnp.ndim(targets) == 2 else ()
        shape = (self.inputs.shape[0], *columns)
        self.targets = check_matrix("targets", targets, shape).astype(self.inputs.dtype)

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """Half the squared error, averaged over all examples."""
        return self._mean(model, self.inputs, self.targets)

    @property
    def examples(self) -> int:
        """How many there are."""
        return self.inputs.shape[0]

    def batch_loss(self, model: PyTree, batch: Int[Array, " batch"]) -> Float[Array, ""]:
        """Half the squared error, averaged over the examples with these indices."""
        return self._mean(model, self.inputs[batch], self.targets[batch])

    def _mean(self, model: PyTree, inputs: Array, targets: Array) -> Float[Array, ""]:
        outputs = jax.vmap(model)(inputs)
        if outputs.size != targets.size:
            raise ValueError(
                f"`model` must return {self.targets[0].size} number(s) for each example; got shape {outputs.shape[1:]}."
            )
        return jnp.sum((outputs.reshape(targets.shape) - targets) ** 2) / (2 * targets.shape[0])
