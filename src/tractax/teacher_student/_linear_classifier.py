"""A linear classifier."""

import equinox as eqx
from jaxtyping import Array, ArrayLike, Float

from ..core import check_matrix


class LinearClassifier(eqx.Module):
    """$f(x) = w\\cdot x$, whose sign is the answer.

    **Arguments:**

    - `weights`: $w$, shape `(in,)`.
    """

    weights: Float[Array, " in"]

    def __init__(self, weights: ArrayLike):
        self.weights = check_matrix("weights", weights, (None,))

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, ""]:
        """The output for one input."""
        return self.weights @ x
