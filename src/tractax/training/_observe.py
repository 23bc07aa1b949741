"""Apply observables to a model inside a compiled loop, where only arrays can be carried."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, PyTree


def check_observe(observe: Any) -> None:
    """Observables are a function or a PyTree of functions."""
    functions = jax.tree.leaves(observe, is_leaf=callable)
    if not functions or not all(callable(f) for f in functions):
        raise ValueError(f"`observe` must be a function of the model, or a PyTree of functions; got {observe!r}.")


def observer(observe: PyTree[Callable]) -> Callable[[PyTree], Any]:
    """One function from a PyTree of functions."""
    if callable(observe):
        return observe
    return lambda model: jax.tree.map(lambda f: f(model), observe, is_leaf=callable)


def split(function: Callable[[PyTree], Any], model: PyTree) -> tuple[Callable[[PyTree], Any], PyTree]:
    """The part of an observable that returns arrays, and the constant rest of what it returns."""
    static = eqx.filter(eqx.filter_eval_shape(function, model), _is_shape, inverse=True)

    def arrays_of(model: PyTree) -> PyTree:
        return jax.tree.map(_as_inexact, eqx.filter(function(model), eqx.is_array_like))

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
