"""Deep linear networks."""

import itertools

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float


class DeepLinear(eqx.Module):
    """$f(x) = W_L \\cdots W_1\\,x$, without biases.

    **Arguments:**

    - `weights`: $(W_1, …, W_L)$, first layer first; $W_l$ has shape `(size of layer l, size of layer l-1)`.
    """

    weights: tuple[Float[Array, "out in"], ...]

    def __init__(self, weights):
        weights = tuple(jnp.asarray(w) for w in weights)
        if not weights or any(w.ndim != 2 or 0 in w.shape for w in weights):
            raise ValueError(f"`weights` must be one or more matrices without empty axes; got {_shapes(weights)}.")
        if any(after.shape[1] != before.shape[0] for before, after in itertools.pairwise(weights)):
            raise ValueError(
                f"`weights` must chain, each (out, in) with `in` the `out` of the one before; got {_shapes(weights)}."
            )
        self.weights = weights

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, " out"]:
        """The output for one input."""
        for w in self.weights:
            x = w @ x
        return x

    @property
    def depth(self) -> int:
        """$L$, the number of weight matrices."""
        return len(self.weights)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of the layers, input first: `depth + 1` numbers."""
        return (self.weights[0].shape[1], *(w.shape[0] for w in self.weights))

    @property
    def product(self) -> Float[Array, "out in"]:
        """$W_L \\cdots W_1$, the map from input to output."""
        product = self.weights[0]
        for w in self.weights[1:]:
            product = w @ product
        return product


def _shapes(weights) -> str:
    return "(" + ", ".join(str(w.shape) for w in weights) + ")"
