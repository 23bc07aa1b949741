"""Normal random numbers."""

import math
from collections.abc import Sequence
from typing import Any

import jax
from jaxtyping import Array, Float, PRNGKeyArray


def standard_normal(key: PRNGKeyArray, shape: Sequence[int], dtype: Any = float) -> Float[Array, "..."]:
    """The numbers of `jax.random.normal`, drawn as one vector.

    On CPUs XLA takes up to a second longer to compile the generator for arrays of two or more axes.
    """
    return jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape)
