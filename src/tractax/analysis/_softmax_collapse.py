"""When rounding turns a softmax into a maximum."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..core import as_float_array


def collapse_gap(dtype: Any) -> float:
    r"""The lead of the largest score beyond which rounding absorbs another one: $24\ln2$ in float32, $53\ln2$ in float64.

    There $1 + e^{-\text{gap}}$ is rounded to 1, and the loss of the right answer is exactly zero.

    **Arguments:**

    - `dtype`: a floating-point type.

    **Raises:**

    `ValueError` for another type.
    """
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"`dtype` must be a floating-point type; got {dtype}.")
    return float(-np.log(float(jnp.finfo(dtype).eps) / 2))


def softmax_collapse(logits: Float[Array, "*examples classes"]) -> Float[Array, ""]:
    """The fraction of examples whose softmax has collapsed: by rounding, the sum of exponentials is the largest one.

    If the largest score is that of the right answer, the cross-entropy of such an example is exactly zero.

    **Arguments:**

    - `logits`: the scores, classes on the last axis, in the type in which training computes them.

    **Raises:**

    `ValueError` for logits without classes.
    """
    logits = as_float_array("logits", logits)
    if logits.ndim < 1 or logits.shape[-1] < 1:
        raise ValueError(f"`logits` must have at least one class on the last axis; got shape {logits.shape}.")
    shares = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    return jnp.mean((jnp.sum(shares, axis=-1) == 1).astype(logits.dtype))
