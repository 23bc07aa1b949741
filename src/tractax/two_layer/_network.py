"""Two-layer networks."""

import math
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..core import as_float_array, check_matrix


class LeakyReLU(eqx.Module):
    r"""$\phi(z) = z$ for $z > 0$ and $\alpha z$ for $z \le 0$, so that $\phi'(0) = \alpha$.

    **Arguments:**

    - `slope`: $\alpha$, a number that is not trained; 0 is the rectifier with $\phi'(0) = 0$, 1 the identity.
    """

    slope: float = eqx.field(static=True)

    def __init__(self, slope: PyTree = 0.0):
        if isinstance(slope, bool) or not isinstance(slope, int | float) or not math.isfinite(slope):
            raise ValueError(f"`slope` must be a finite Python number; got {slope!r}.")
        self.slope = float(slope)

    def __call__(self, z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The activation, entry by entry."""
        return jnp.where(z > 0, z, self.slope * z)


ACTIVATIONS: dict[str, Callable] = {
    "linear": LeakyReLU(1.0),
    "quadratic": jnp.square,
    "relu": LeakyReLU(0.0),
    "tanh": jnp.tanh,
}


class TwoLayerNetwork(eqx.Module):
    r"""$f(x) = W_2\,\phi(W_1x + b)$.

    **Arguments:**

    - `first`: $W_1$, shape `(hidden, in)`, one hidden unit a row.
    - `second`: $W_2$, shape `(out, hidden)`; a vector, shape `(hidden,)`, is the readout of a single output.
    - `activation`: $\phi$: `"relu"`, `"linear"`, `"quadratic"`, `"tanh"`, `LeakyReLU(slope)`, or any function from
      numbers to numbers.
    - `bias`: $b$, shape `(hidden,)`, trained with the rest; `None` for none.

    **Raises:**

    `ValueError` for shapes that do not fit, NaN, or an unknown activation.
    """

    first: Float[Array, "hidden in"]
    second: Float[Array, "out hidden"]
    bias: Float[Array, " hidden"] | None
    activation: Callable

    def __init__(
        self,
        first: PyTree,
        second: PyTree,
        activation: PyTree = "relu",
        *,
        bias: PyTree = None,
    ):
        self.first = check_matrix("first", first)
        hidden, dtype = self.first.shape[0], self.first.dtype
        second = as_float_array("second", second)
        second = second[None, :] if second.ndim == 1 else second
        self.second = check_matrix("second", second, (None, hidden)).astype(dtype)
        self.bias = None if bias is None else check_matrix("bias", bias, (hidden,)).astype(dtype)
        if isinstance(activation, str):
            if activation not in ACTIVATIONS:
                raise ValueError(
                    f"`activation` must be one of {', '.join(ACTIVATIONS)}, or a function; got {activation!r}."
                )
            activation = ACTIVATIONS[activation]
        if not callable(activation):
            raise ValueError(f"`activation` must be a name or a function; got {activation!r}.")
        self.activation = activation

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, " out"]:
        """The output for one input."""
        return self.second @ self.activation(self.fields(x))

    def fields(self, x: Float[Array, " in"]) -> Float[Array, " hidden"]:
        """$W_1x + b$, the inputs of the hidden units."""
        fields = self.first @ x
        return fields if self.bias is None else fields + self.bias

    @property
    def sizes(self) -> tuple[int, int, int]:
        """The numbers of inputs, hidden units and outputs."""
        return self.first.shape[1], self.first.shape[0], self.second.shape[0]
