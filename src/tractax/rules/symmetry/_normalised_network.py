"""A small network that has all the symmetries of common architectures."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ...core import check_matrix, require
from ._symmetry import AbstractSymmetry, RescaleSymmetry, ScaleSymmetry, TranslationSymmetry


class NormalisedNetwork(eqx.Module):
    r"""$f(x) = \operatorname{softmax}(W_3\,\phi(W_2\tanh(\hat W_1x)))$, with $\phi(z) = \max(z, 0)^p$.

    The rows of $\hat W_1$ are those of $W_1$, brought to length one. Whatever the task, the loss does not change with the
    lengths of the rows of $W_1$ (`ScaleSymmetry`), when a hidden unit's inputs grow as its outputs shrink
    (`RescaleSymmetry`), or with a constant added to a column of $W_3$ (`TranslationSymmetry`).

    **Arguments:**

    - `first`: $W_1$, shape `(filters, in)`, without rows of zero.
    - `second`: $W_2$, shape `(hidden, filters)`.
    - `third`: $W_3$, shape `(classes, hidden)`.
    - `power`: $p$: 1 for rectifiers, 2 for their squares, with which the loss has no corners.

    **Raises:**

    `ValueError` for shapes that do not fit, NaN, a row of $W_1$ without a direction, or another power.
    """

    first: Float[Array, "filters in"]
    second: Float[Array, "hidden filters"]
    third: Float[Array, "classes hidden"]
    power: int = eqx.field(static=True)

    def __init__(self, first: PyTree, second: PyTree, third: PyTree, power: PyTree = 1):
        first = check_matrix("first", first)
        turned = jnp.all(jnp.any(first != 0, axis=1))
        self.first = require(first, turned, "`first` must have no row of zeros, which has no direction.")
        self.second = check_matrix("second", second, (None, self.first.shape[0])).astype(self.first.dtype)
        self.third = check_matrix("third", third, (None, self.second.shape[0])).astype(self.first.dtype)
        if isinstance(power, bool) or power not in (1, 2):
            raise ValueError(f"`power` must be 1 or 2; got {power!r}.")
        self.power = int(power)

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, " classes"]:
        """The probabilities of the classes for one input."""
        directions = self.first / jnp.linalg.norm(self.first, axis=1, keepdims=True)
        hidden = jax.nn.relu(self.second @ jnp.tanh(directions @ x))
        return jax.nn.softmax(self.third @ hidden**self.power)

    def symmetries(self) -> dict[str, AbstractSymmetry]:
        """The symmetries by name: `"translation"`, `"scale"` and `"rescale"`."""
        return {
            "translation": TranslationSymmetry(_columns_of_third),
            "scale": ScaleSymmetry(_first),
            "rescale": RescaleSymmetry(_around_rectifiers, self.power),
        }


def _columns_of_third(model: NormalisedNetwork) -> Array:
    return model.third.T


def _first(model: NormalisedNetwork) -> Array:
    return model.first


def _around_rectifiers(model: NormalisedNetwork) -> tuple[Array, Array]:
    return model.second, model.third.T
