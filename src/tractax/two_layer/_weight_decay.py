"""Regression with weight decay in the loss."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import AbstractTask, check_matrix, check_positive
from ._base import check_network


class WeightDecayTask(AbstractTask):
    r"""$L = \tfrac12\sum_k(f(x_k) - y_k)^2 + \tfrac\beta2\lVert\theta\rVert^2$ for rectifier networks of one output.

    The error is summed over examples, not averaged; $\lVert\theta\rVert^2$ is the sum of the squares of all weights.

    **Arguments:**

    - `inputs`: $x_k$, one example a row, shape `(examples, in)`. For units with biases, append a column of ones.
    - `targets`: $y_k$, shape `(examples,)`.
    - `decay`: $\beta > 0$.

    **Raises:**

    `ValueError` for wrong shapes, NaN, or a decay that is not positive.
    """

    inputs: Float[Array, "examples in"]
    targets: Float[Array, " examples"]
    decay: Float[Array, ""]

    def __init__(self, inputs: ArrayLike, targets: ArrayLike, decay: ArrayLike):
        self.inputs = check_matrix("inputs", inputs)
        self.targets = check_matrix("targets", targets, (self.inputs.shape[0],)).astype(self.inputs.dtype)
        self.decay = check_positive("decay", decay, scalar=True).astype(self.inputs.dtype)

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """Half the squared error, summed over the examples, and the penalty of the weights."""
        model = check_network(model, "weight decay", relu=True)
        if model.sizes[::2] != (self.inputs.shape[1], 1):
            raise ValueError(
                f"`model` must have {self.inputs.shape[1]} inputs and one output; got {model.sizes[0]} and "
                f"{model.sizes[2]}."
            )
        error = jax.vmap(model)(self.inputs)[:, 0] - self.targets
        weights = jnp.sum(model.first**2) + jnp.sum(model.second**2)
        return jnp.sum(error**2) / 2 + self.decay / 2 * weights
