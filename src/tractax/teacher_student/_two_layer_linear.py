"""Two linear layers with one output, and a linear teacher for whitened inputs."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ..core import AbstractSampledTask, check_matrix, standard_normal


class TwoLayerLinear(eqx.Module):
    r"""$f(x) = w_2^\top W_1 x$.

    **Arguments:**

    - `hidden`: $W_1$, one hidden unit a row, shape `(hidden, in)`.
    - `readout`: $w_2$, shape `(hidden,)`.

    **Raises:**

    `ValueError` for shapes that do not fit.
    """

    hidden: Float[Array, "hidden in"]
    readout: Float[Array, " hidden"]

    def __init__(self, hidden: ArrayLike | Sequence, readout: ArrayLike | Sequence):
        self.hidden = check_matrix("hidden", hidden)
        self.readout = check_matrix("readout", readout, self.hidden.shape[:1]).astype(self.hidden.dtype)

    @property
    def vector(self) -> Float[Array, " in"]:
        """$W_1^\\top w_2$, the linear map as a vector."""
        return self.readout @ self.hidden

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, ""]:
        """The output for one input."""
        return self.readout @ (self.hidden @ x)


class VectorTask(AbstractSampledTask):
    r"""Half the squared error on $y = a\cdot x$ with whitened inputs, $L = \tfrac12\lVert a - v\rVert^2$ for the map $v$.

    Samples are normal; the loss holds for any inputs with unit covariance.

    **Arguments:**

    - `target`: $a$, shape `(in,)`.
    """

    target: Float[Array, " in"]

    def __init__(self, target: ArrayLike | Sequence):
        self.target = check_matrix("target", target, (None,))

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """The population loss of a model that is linear in its input."""
        return jnp.sum(self.error(model) ** 2) / 2

    def error(self, model: PyTree) -> Float[Array, " in"]:
        """$e = a - v$, what the map still lacks."""
        return self.target - jax.vmap(model)(jnp.eye(self.target.size, dtype=self.target.dtype))

    def sample(self, key: PRNGKeyArray, batch: int) -> Float[Array, "batch in"]:
        """Fresh inputs, of which the target makes the answers."""
        return standard_normal(key, (batch, self.target.size), self.target.dtype)

    def batch_loss(self, model: PyTree, batch: Float[Array, "batch in"]) -> Float[Array, ""]:
        """Half the squared error, averaged over the batch."""
        return jnp.mean((batch @ self.target - jax.vmap(model)(batch)) ** 2) / 2


def check_two_layer(model: PyTree, task: PyTree) -> TwoLayerLinear:
    """The model, if it is a two-layer linear network that fits the task."""
    if not isinstance(model, TwoLayerLinear):
        raise ValueError(f"`model` must be a TwoLayerLinear; got {type(model).__name__}.")
    if not isinstance(task, VectorTask):
        raise ValueError(f"`task` must be a VectorTask; got {type(task).__name__}.")
    if task.target.size != model.hidden.shape[1]:
        raise ValueError(f"`model` must have {task.target.size} inputs, as the task has; got {model.hidden.shape[1]}.")
    return model
