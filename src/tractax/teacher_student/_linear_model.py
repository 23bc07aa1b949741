"""A linear model with one output."""

import equinox as eqx
from jaxtyping import Array, Float, PyTree

from ..core import check_matrix


def _as_weights(x: PyTree) -> Array:
    return check_matrix("weights", x, (None,))


class LinearModel(eqx.Module):
    r"""$f(x) = \theta\cdot x$.

    **Arguments:**

    - `weights`: $\theta$, shape `(in,)`.
    """

    weights: Float[Array, " in"] = eqx.field(converter=_as_weights)

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, ""]:
        """The output for one input."""
        return self.weights @ x


def check_linear(model: PyTree, size: int) -> Float[Array, " in"]:
    """The weights of `model`, if it is linear with this many inputs."""
    if not isinstance(model, LinearModel):
        raise ValueError(f"`model` must be a LinearModel; got {type(model).__name__}.")
    if model.weights.shape != (size,):
        raise ValueError(f"`model` must have {size} inputs to fit `task`; got {model.weights.shape[0]}.")
    return model.weights
