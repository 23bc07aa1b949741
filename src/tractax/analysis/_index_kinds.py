"""Tables of averages whose entries need different formulas, by which of their indices are equal."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def by_kind(kinds: np.ndarray, average: Callable[[int, np.ndarray], Array]) -> Array:
    """One value for each entry of `kinds`, those of one kind together: `average(kind, their positions)`."""
    groups = [(kind, np.flatnonzero(kinds == kind)) for kind in np.unique(kinds).tolist()]
    values = jnp.concatenate([average(kind, positions) for kind, positions in groups])
    return values[np.argsort(np.concatenate([positions for _, positions in groups]))]
