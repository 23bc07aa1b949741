"""√x, with a finite derivative at zero."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def safe_sqrt(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    r"""$\sqrt x$, with a derivative of zero, not infinity, at zero: that of a length where it vanishes.

    What lies below zero, by rounding, counts as zero; NaN stays NaN.
    """
    none = x <= 0
    return jnp.where(none, 0.0, jnp.sqrt(jnp.where(none, 1.0, x)))
