"""Tables of averages whose entries need different formulas, by which of their indices are equal."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def by_kind(kinds: np.ndarray, average: Callable[[int, np.ndarray], Array]) -> Array:
    """One value for each entry of `kinds`, those of one kind together: `average(kind, their positions)`."""
    groups = [(kind, np.flatnonzero(kinds == kind)) for kind in np.unique(kinds).tolist()]
    values = jnp.concatenate([average(kind, positions) for kind, positions in groups])
    return values[np.argsort(np.concatenate([positions for _, positions in groups]))]


def known_indices(fields: int, *indices: Any) -> list[np.ndarray]:
    """Indices into so many fields as NumPy arrays of one shape, or an error if they are traced or out of range."""
    try:
        arrays = np.broadcast_arrays(*indices)
    except jax.errors.TracerArrayConversionError:
        raise ValueError(
            "Indices of fields must be known when JAX traces, since equal ones need other formulas: pass whole numbers "
            "or NumPy arrays, not arguments of a function under jax.jit or jax.vmap."
        ) from None
    for index in arrays:
        whole = np.issubdtype(index.dtype, np.integer)
        if not whole or np.any(index < -fields) or np.any(index >= fields):
            raise ValueError(f"Indices of fields must be whole numbers below {fields}, their number; got {index}.")
    return [np.asarray(index % fields) for index in arrays]
