"""Learn a rectifier network from the answers of another one, on Gaussian inputs: the exact population loss."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ..core import AbstractSampledTask, standard_normal
from ._arc_cosine import arc_cosine
from ._base import check_network
from ._network import TwoLayerNetwork


class GaussianReLUTask(AbstractSampledTask):
    r"""$L = \tfrac12\mathbb E\lVert f(x) - f^*(x)\rVert^2$ for $x\sim\mathcal N(0, I)$ and rectifier networks $f$, $f^*$.

    The loss is a sum of arc-cosine kernels over pairs of units, so there is no sampling in it; its gradient is exact at
    parallel and opposite units too.

    **Arguments:**

    - `teacher`: $f^*$, a `TwoLayerNetwork` of rectifiers without bias; it is not trained.

    **Raises:**

    `ValueError` for another kind of teacher.
    """

    teacher: TwoLayerNetwork

    def __init__(self, teacher: PyTree):
        if not isinstance(teacher, TwoLayerNetwork):
            raise ValueError(f"`teacher` must be a TwoLayerNetwork; got {type(teacher).__name__}.")
        if teacher.bias is not None or getattr(teacher.activation, "slope", None) != 0:
            raise ValueError(f"`teacher` must have rectifier units without bias; got {teacher}.")
        self.teacher = teacher

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """The loss of a rectifier network with the sizes of the teacher (any number of hidden units)."""
        model, teacher = check_student(model, self), self.teacher
        units = jnp.concatenate([model.first, teacher.first])
        signed = jnp.concatenate([model.second, -teacher.second], axis=1)
        kernel = jax.vmap(jax.vmap(arc_cosine, (None, 0)), (0, None))(units, units)
        return jnp.sum((signed.T @ signed) * kernel) / 2

    def sample(self, key: PRNGKeyArray, batch: int) -> tuple[Float[Array, "batch in"], Float[Array, "batch out"]]:
        """Fresh inputs and the teacher's answers."""
        first = self.teacher.first
        inputs = standard_normal(key, (batch, first.shape[1]), first.dtype)
        return inputs, jax.vmap(self.teacher)(inputs)

    def batch_loss(
        self, model: PyTree, batch: tuple[Float[Array, "batch in"], Float[Array, "batch out"]]
    ) -> Float[Array, ""]:
        """Half the squared error, averaged over the batch; for any model."""
        inputs, answers = batch
        return jnp.sum((jax.vmap(model)(inputs) - answers) ** 2) / (2 * answers.shape[0])


def check_student(model: Any, task: Any) -> TwoLayerNetwork:
    """The model, if it is a rectifier network that fits the task."""
    if not isinstance(task, GaussianReLUTask):
        raise ValueError(f"`task` must be a GaussianReLUTask; got {type(task).__name__}.")
    model = check_network(model, "GaussianReLUTask", relu=True)
    n_in, _, n_out = task.teacher.sizes
    if (model.sizes[0], model.sizes[2]) != (n_in, n_out):
        raise ValueError(
            f"`model` must have {n_in} inputs and {n_out} outputs, as the teacher has; got {model.sizes[0]} and "
            f"{model.sizes[2]}."
        )
    return model
