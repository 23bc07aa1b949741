"""Arguments of a function of several numbers."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike


def broadcast(*arguments: ArrayLike) -> list[Array]:
    """The arguments as floating-point arrays of one dtype and shape; Python numbers take the dtype of the arrays."""
    dtype = jnp.result_type(*arguments)
    if not jnp.issubdtype(dtype, jnp.floating):
        dtype = jnp.result_type(float)
    return jnp.broadcast_arrays(*(jnp.asarray(x, dtype) for x in arguments))
