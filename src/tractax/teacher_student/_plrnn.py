"""Piecewise linear recurrent networks."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ..core import check_matrix

# All patterns of this many units are a million matrices.
_MOST_UNITS = 20


class AbstractPLRNN(eqx.Module):
    """A map from states to states that is linear wherever the same hidden units are active, those above zero."""

    linear: eqx.AbstractVar[Float[Array, "units units"]]

    @abc.abstractmethod
    def __call__(self, z: Float[Array, " units"]) -> Float[Array, " units"]:
        """The next state."""

    @abc.abstractmethod
    def preactivations(self, z: Float[Array, " units"]) -> Float[Array, " hidden"]:
        """What the rectifiers see."""

    @abc.abstractmethod
    def piece(self, active: Float[Array, " hidden"]) -> Float[Array, "units units"]:
        """The matrix of the map where the units marked by ones are active, and those marked by zeros are not."""

    def jacobian(self, z: Float[Array, " units"]) -> Float[Array, "units units"]:
        """The derivative of the next state by this one; a unit at zero counts as inactive."""
        return self.piece((self.preactivations(z) > 0).astype(z.dtype))

    def pieces(self) -> Float[Array, "patterns units units"]:
        """The matrices of all patterns of active units, whether or not any state has them.

        **Raises:**

        `ValueError` for more than 20 hidden units.
        """
        dtype = self.linear.dtype
        (hidden,) = jax.eval_shape(self.preactivations, jnp.zeros(self.linear.shape[0], dtype)).shape
        if hidden > _MOST_UNITS:
            raise ValueError(f"`model` must have at most {_MOST_UNITS} hidden units to list all patterns; got {hidden}.")
        patterns = (np.arange(2**hidden)[:, None] >> np.arange(hidden)[None, :]) & 1
        return jax.vmap(self.piece)(jnp.asarray(patterns, dtype))


class PLRNN(AbstractPLRNN):
    r"""$F(z) = Az + W\max(0, z) + h$.

    **Arguments:**

    - `linear`: $A$, shape `(units, units)`.
    - `weights`: $W$, shape `(units, units)`.
    - `bias`: $h$, shape `(units,)`; zero by default.

    **Raises:**

    `ValueError` for shapes that do not fit, or NaN.
    """

    linear: Float[Array, "units units"]
    weights: Float[Array, "units units"]
    bias: Float[Array, " units"]

    def __init__(self, linear: ArrayLike, weights: ArrayLike, bias: ArrayLike | None = None):
        self.linear = _square("linear", linear)
        units, dtype = self.linear.shape[0], self.linear.dtype
        self.weights = check_matrix("weights", weights, (units, units)).astype(dtype)
        self.bias = jnp.zeros(units, dtype) if bias is None else check_matrix("bias", bias, (units,)).astype(dtype)

    def __call__(self, z: Float[Array, " units"]) -> Float[Array, " units"]:
        """The next state."""
        return self.linear @ z + self.weights @ jax.nn.relu(z) + self.bias

    def preactivations(self, z: Float[Array, " units"]) -> Float[Array, " units"]:
        """The state itself."""
        return z

    def piece(self, active: Float[Array, " units"]) -> Float[Array, "units units"]:
        """$A + W\\,\\mathrm{diag}(\\text{active})$."""
        return self.linear + self.weights * active[None, :]


class ShallowPLRNN(AbstractPLRNN):
    r"""$F(z) = Az + W_1\max(0, W_2z + h_2) + h_1$.

    **Arguments:**

    - `linear`: $A$, shape `(units, units)`.
    - `outward`: $W_1$, shape `(units, hidden)`.
    - `inward`: $W_2$, shape `(hidden, units)`.
    - `bias`: $h_1$, shape `(units,)`; zero by default.
    - `hidden_bias`: $h_2$, shape `(hidden,)`; zero by default.

    **Raises:**

    `ValueError` for shapes that do not fit, or NaN.
    """

    linear: Float[Array, "units units"]
    outward: Float[Array, "units hidden"]
    inward: Float[Array, "hidden units"]
    bias: Float[Array, " units"]
    hidden_bias: Float[Array, " hidden"]

    def __init__(
        self,
        linear: ArrayLike,
        outward: ArrayLike,
        inward: ArrayLike,
        bias: ArrayLike | None = None,
        hidden_bias: ArrayLike | None = None,
    ):
        self.linear = _square("linear", linear)
        units, dtype = self.linear.shape[0], self.linear.dtype
        self.outward = check_matrix("outward", outward, (units, None)).astype(dtype)
        hidden = self.outward.shape[1]
        self.inward = check_matrix("inward", inward, (hidden, units)).astype(dtype)
        self.bias = jnp.zeros(units, dtype) if bias is None else check_matrix("bias", bias, (units,)).astype(dtype)
        h2 = jnp.zeros(hidden, dtype) if hidden_bias is None else hidden_bias
        self.hidden_bias = check_matrix("hidden_bias", h2, (hidden,)).astype(dtype)

    def __call__(self, z: Float[Array, " units"]) -> Float[Array, " units"]:
        """The next state."""
        return self.linear @ z + self.outward @ jax.nn.relu(self.preactivations(z)) + self.bias

    def preactivations(self, z: Float[Array, " units"]) -> Float[Array, " hidden"]:
        """$W_2z + h_2$."""
        return self.inward @ z + self.hidden_bias

    def piece(self, active: Float[Array, " hidden"]) -> Float[Array, "units units"]:
        """$A + W_1\\,\\mathrm{diag}(\\text{active})\\,W_2$."""
        return self.linear + (self.outward * active[None, :]) @ self.inward


def _square(name: str, x: ArrayLike) -> Array:
    x = check_matrix(name, x)
    if x.shape[0] != x.shape[1]:
        raise ValueError(f"`{name}` must be square; got shape {x.shape}.")
    return x
