"""Any loss of the input-output map."""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float, PyTree

from ..core import AbstractTask
from ._network import DeepLinear


class MapTask(AbstractTask):
    r"""A loss that sees a linear network through its map alone, $L(W_L\cdots W_1)$.

    It covers what second moments cannot: cross-entropy, $\ell_p$ regression, matrix sensing and completion.

    **Arguments:**

    - `loss_of_map`: a differentiable function from the map, shape `(out, in)`, to a scalar: a function, or an Equinox
      module if it holds arrays that are to be batched or differentiated.
    """

    loss_of_map: Callable[[Float[Array, "out in"]], Float[Array, ""]]

    def gradient_of_map(self, product: Float[Array, "out in"]) -> Float[Array, "out in"]:
        """The gradient of the loss with respect to the map itself."""
        return jax.grad(self.loss_of_map)(product)

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """The loss of a `DeepLinear` network."""
        if not isinstance(model, DeepLinear):
            raise ValueError(f"`model` must be a DeepLinear network; got {type(model).__name__}.")
        return self.loss_of_map(model.product)
