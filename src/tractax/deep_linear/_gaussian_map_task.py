"""A linear map to be learned from fresh Gaussian inputs."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ..core import AbstractSampledTask, check_matrix, standard_normal
from ._task import linear_map


class GaussianMapTask(AbstractSampledTask):
    r"""Half the squared error on fresh examples, $L = \tfrac12\,\mathbb E\lVert W_*x - f(x)\rVert^2$.

    Inputs are normal, $x\sim\mathcal N(0, I)$. For a linear model $f(x) = Wx$ it is $\tfrac12\lVert W - W_*\rVert_F^2$.

    **Arguments:**

    - `teacher`: $W_*$, shape `(out, in)`.
    """

    teacher: Float[Array, "out in"]

    def __init__(self, teacher: ArrayLike):
        self.teacher = check_matrix("teacher", teacher)

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """The loss of a model that is linear in its input, averaged over all inputs."""
        return jnp.sum(self.error(model) ** 2) / 2

    def error(self, model: PyTree) -> Float[Array, "out in"]:
        """$W - W_*$ of a model that is linear in its input."""
        product = linear_map(model, self.teacher.shape[1])
        if product.shape != self.teacher.shape:
            raise ValueError(
                f"`model` must have {self.teacher.shape[1]} inputs and {self.teacher.shape[0]} outputs to fit `task`; "
                f"got {product.shape[1]} and {product.shape[0]}."
            )
        return product - self.teacher

    def sample(self, key: PRNGKeyArray, batch: int) -> Float[Array, "batch in"]:
        """Fresh inputs, of which the teacher makes the answers."""
        return standard_normal(key, (batch, self.teacher.shape[1]), self.teacher.dtype)

    def batch_loss(self, model: PyTree, batch: Float[Array, "batch in"]) -> Float[Array, ""]:
        """Half the squared error, averaged over the batch; for any model."""
        return jnp.sum((jax.vmap(model)(batch) - batch @ self.teacher.T) ** 2) / (2 * batch.shape[0])
