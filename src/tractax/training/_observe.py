"""Apply observables inside a compiled loop, where only arrays can be carried."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, PyTree

from ..core import Objective, OfState


def check_observe(observe: Any) -> None:
    """Observables are a function or a PyTree of functions."""
    functions = jax.tree.leaves(observe, is_leaf=callable)
    if not functions or not all(callable(f) for f in functions):
        raise ValueError(f"`observe` must be a function of the model, or a PyTree of functions; got {observe!r}.")


def observer(observe: PyTree[Callable] | None) -> Callable[[Any, PyTree, PyTree, Objective], Any]:
    """One function, of time, state, parameters and objective, from a PyTree of functions; the task's loss for `None`."""

    def observed(t: Any, state: PyTree, params: PyTree, objective: Objective) -> Any:
        model = objective.model(params)
        if observe is None:
            return objective.task.loss(model)

        def one(function: Callable) -> Any:
            return function(t, state, objective) if isinstance(function, OfState) else function(model)

        return jax.tree.map(one, observe, is_leaf=callable)

    return observed


def split(function: Callable, *first: Any) -> tuple[Callable, PyTree]:
    """The part of an observer that returns arrays, and the constant rest of what it returns."""
    static = eqx.filter(eqx.filter_eval_shape(function, *first), _is_shape, inverse=True)

    def arrays_of(*now: Any) -> PyTree:
        return jax.tree.map(_as_inexact, eqx.filter(function(*now), eqx.is_array_like))

    return arrays_of, static


def _as_inexact(x: ArrayLike) -> Array:
    # Integers can neither be interpolated nor marked as missing.
    x = jnp.asarray(x)
    exact = jnp.issubdtype(x.dtype, jnp.integer) or jnp.issubdtype(x.dtype, jnp.bool_)
    return x.astype(jnp.result_type(float)) if exact else x


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether no array holds NaN or infinity."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def _is_shape(x: Any) -> bool:
    return isinstance(x, jax.ShapeDtypeStruct)
