"""A point that moves in a landscape: the loss as a function of the parameters, and nothing else."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import AbstractTask, as_float_array, check_matrix, check_psd


class Point(eqx.Module):
    """Parameters without a network.

    **Arguments:**

    - `position`: $x$, shape `(dimension,)`; a population of points has shape `(points, dimension)`.
    """

    position: Float[Array, "*points dimension"]

    def __init__(self, position: ArrayLike):
        shape = as_float_array("position", position).shape
        if len(shape) not in (1, 2):
            raise ValueError(f"`position` must have shape (dimension,) or (points, dimension); got {shape}.")
        self.position = check_matrix("position", position, (None,) * len(shape))


class PotentialTask(AbstractTask):
    """Any function of the position of a `Point`.

    **Arguments:**

    - `function`: from an array of shape `(dimension,)` to a number, differentiable by JAX where the rule asks for it.
    """

    function: Callable[[Any], Any] = eqx.field(static=True)

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """The function at the point."""
        return self.function(model.position)


class QuadraticTask(AbstractTask):
    r"""$L(x) = \tfrac12(x - x_*)^\top H\,(x - x_*)$.

    **Arguments:**

    - `hessian`: $H$, symmetric and positive semi-definite, shape `(dimension, dimension)`.
    - `minimum`: $x_*$, shape `(dimension,)`; zero by default.

    **Raises:**

    `ValueError` if the Hessian is not symmetric or not positive semi-definite, or shapes do not fit.
    """

    hessian: Float[Array, "dimension dimension"]
    minimum: Float[Array, " dimension"]

    def __init__(self, hessian: ArrayLike, minimum: ArrayLike | None = None):
        self.hessian = check_psd("hessian", hessian)
        size, dtype = self.hessian.shape[0], self.hessian.dtype
        zero = jnp.zeros(size, dtype)
        self.minimum = zero if minimum is None else check_matrix("minimum", minimum, (size,)).astype(dtype)

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """The value at a `Point`; for a population, `jax.vmap(task.loss)`."""
        check_points(model, self, population=False)
        offset = model.position - self.minimum
        return offset @ self.hessian @ offset / 2


def check_points(model: PyTree, task: PyTree, *, population: bool) -> tuple[Point, QuadraticTask]:
    """The model and the task, if they are a point (or a population of them) and a quadratic in its dimension."""
    if not isinstance(task, QuadraticTask):
        raise ValueError(f"`task` must be a QuadraticTask; got {type(task).__name__}.")
    if not isinstance(model, Point):
        raise ValueError(f"`model` must be a Point; got {type(model).__name__}.")
    size = task.minimum.shape[0]
    if model.position.ndim != 1 + population or model.position.shape[-1] != size:
        wanted = f"(points, {size})" if population else f"({size},)"
        advice = "" if population else " For a population, use jax.vmap(task.loss)."
        raise ValueError(f"`model` must have a position of shape {wanted}; got {model.position.shape}.{advice}")
    return model, task


def without_rounding(values: Float[Array, " modes"]) -> Float[Array, " modes"]:
    """Eigenvalues, with zero for those that differ from it by rounding: in the end only zero stays where it is."""
    rounding = 10 * values.shape[0] * jnp.finfo(values.dtype).eps * jnp.max(jnp.abs(values))
    return jnp.where(jnp.abs(values) <= rounding, 0.0, values)
