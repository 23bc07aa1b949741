"""Linear regression from given examples."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ..core import AbstractSampledTask, check_key, check_matrix


class LeastSquares(AbstractSampledTask):
    r"""Mean squared error over examples, $L = \tfrac1{2n}\sum_i (f(x_i) - y_i)^2$, for models with one output.

    **Arguments:**

    - `inputs`: $x_i$, one example a row, shape `(examples, in)`.
    - `targets`: $y_i$, shape `(examples,)`.

    **Raises:**

    `ValueError` for wrong shapes or NaN.
    """

    inputs: Float[Array, "examples in"]
    targets: Float[Array, " examples"]

    def __init__(self, inputs: ArrayLike, targets: ArrayLike):
        self.inputs = check_matrix("inputs", inputs)
        self.targets = check_matrix("targets", targets, (self.inputs.shape[0],)).astype(self.inputs.dtype)

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """The loss over all examples."""
        return self.batch_loss(model, (self.inputs, self.targets))

    def sample(self, key: PRNGKeyArray, batch: int) -> tuple[Array, Array]:
        """Examples drawn with replacement, `(inputs, targets)`."""
        check_key(key)
        rows = jax.random.randint(key, (batch,), 0, self.inputs.shape[0])
        return self.inputs[rows], self.targets[rows]

    def batch_loss(self, model: PyTree, batch: Any) -> Float[Array, ""]:
        """The loss over a batch, with the batch's size for $n$."""
        inputs, targets = batch
        return jnp.mean((jax.vmap(model)(inputs) - targets) ** 2) / 2
