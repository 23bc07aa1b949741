"""Running means of gradients and their squares, as Adam keeps them."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree


def running_mean(mean: PyTree, values: PyTree, decay: float) -> PyTree:
    """The mean after another value."""
    return jax.tree.map(lambda m, x: decay * m + (1 - decay) * x, mean, values)


def without_bias(mean: PyTree, decay: float, steps: Int[Array, ""]) -> PyTree:
    """The mean divided by the weight of what it has seen in so many steps from zero."""
    return jax.tree.map(lambda m: m / (1 - decay ** steps.astype(m.dtype)), mean)


def zeros(params: PyTree) -> PyTree:
    """A zero for each number."""
    return jax.tree.map(jnp.zeros_like, params)


def check_number(name: str, value: Any, *, zero: bool = False) -> float:
    """`value` as a finite Python number above zero (or not below it), or an error naming `name`.

    Not an array: optimisers are built anew in every compiled step, where arrays have no known value.
    """
    if not isinstance(value, int | float) or not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        bound = "non-negative" if zero else "positive"
        raise ValueError(f"`{name}` must be a {bound} Python number; got {value!r}.")
    return float(value)


def check_decay(name: str, decay: Any) -> float:
    """`decay` as a Python number from 0, below 1, or an error naming `name`."""
    if check_number(name, decay, zero=True) >= 1:
        raise ValueError(f"`{name}` must be below 1; got {decay!r}.")
    return float(decay)
