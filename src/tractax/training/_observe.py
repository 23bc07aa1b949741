"""Apply observables to a model inside a compiled loop, where only arrays can be carried."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree


def observer(observe: PyTree[Callable]) -> Callable[[PyTree], Any]:
    """One function from a PyTree of functions."""
    if callable(observe):
        return observe
    functions = jax.tree.leaves(observe, is_leaf=callable)
    if not functions or not all(callable(f) for f in functions):
        raise ValueError(f"`observe` must be a function of the model, or a PyTree of functions; got {observe!r}.")
    return lambda model: jax.tree.map(lambda f: f(model), observe, is_leaf=callable)


def split(function: Callable[[PyTree], Any], model: PyTree) -> tuple[Callable[[PyTree], Any], PyTree]:
    """The part of an observable that returns arrays, and the constant rest of what it returns."""
    static = eqx.filter(eqx.filter_eval_shape(function, model), _is_shape, inverse=True)
    return lambda model: eqx.filter(function(model), eqx.is_array_like), static


def _is_shape(x: Any) -> bool:
    return isinstance(x, jax.ShapeDtypeStruct)
