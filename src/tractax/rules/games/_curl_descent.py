"""Curl descent: gradient flow in which some weights climb the loss."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ...core import AbstractParameterFlow, Objective, as_float_array, check_positive, require
from ..descent._weight_decay import check_decay


class CurlDescent(AbstractParameterFlow):
    r"""$\tau\,\dot\theta = -D\,\nabla L(\theta)$ with a diagonal $D$ of signs: where $D = -1$ the rule is flipped.

    With both signs present the velocity is the gradient of no function. $D = I$ is gradient flow.

    **Arguments:**

    - `signs`: one array of $\pm1$ for each trainable array, in the order of `jax.tree.leaves`. Its shape begins that of
      the trainable array: a scalar flips all of it, shape `(rows,)` flips whole rows of a matrix.
    - `time_constant`: $\tau > 0$, the unit in which time is measured.
    - `weight_decay`: $\gamma \ge 0$, the coefficient of a penalty $\tfrac\gamma2\lVert\theta\rVert^2$ on $L$, which
      flipped weights climb as well: it makes them grow.

    **Raises:**

    `ValueError` for signs other than $\pm1$, a time constant that is not positive, or a negative decay.
    """

    signs: tuple[Float[Array, "..."], ...]
    time_constant: Float[Array, ""]
    weight_decay: Float[Array, ""]

    def __init__(self, signs: PyTree, time_constant: ArrayLike = 1.0, *, weight_decay: ArrayLike = 0.0):
        if not isinstance(signs, list | tuple):
            raise ValueError(f"`signs` must be a tuple of one array for each trainable array; got {signs!r}.")
        self.signs = tuple(_check_signs(sign) for sign in signs)
        self.time_constant = check_positive("time_constant", time_constant, scalar=True)
        self.weight_decay = check_decay(weight_decay)

    def init(self, params: PyTree) -> PyTree:
        """The state is the parameters themselves."""
        shapes = [leaf.shape for leaf in jax.tree.leaves(params)]
        given = [sign.shape for sign in self.signs]
        if len(given) != len(shapes) or any(g != s[: len(g)] for g, s in zip(given, shapes, strict=True)):
            raise ValueError(
                f"`signs` must hold one array for each trainable array of the model, with shapes that begin {shapes}; "
                f"got {given}."
            )
        return params

    def vector_field(self, t: Any, params: PyTree, objective: Objective) -> PyTree:
        """The velocity of the parameters."""
        del t
        gradients, structure = jax.tree.flatten(objective.penalised(self.weight_decay).gradient(params))
        velocity = [self._flipped(sign, g) for sign, g in zip(self.signs, gradients, strict=True)]
        return jax.tree.unflatten(structure, velocity)

    def _flipped(self, sign: Array, gradient: Array) -> Array:
        sign = sign.reshape(sign.shape + (1,) * (gradient.ndim - sign.ndim))
        return -sign.astype(gradient.dtype) * gradient / self.time_constant.astype(gradient.dtype)


def _check_signs(sign: Any) -> Array:
    sign = as_float_array("signs", sign)
    return require(sign, jnp.all(jnp.abs(sign) == 1), "`signs` must be 1 or -1, entry by entry.")
