"""StableMax: a softmax whose logits are stretched by a logarithm.

Source: Prieto, Barsbey, Mediano and Birdal 2025, arXiv 2501.04697.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..core import as_float_array


def log_stablemax(x: ArrayLike, axis: int = -1) -> Float[Array, "..."]:
    r"""$\ln\big(s(x_i)/\sum_ks(x_k)\big)$ with $s(x) = x + 1$ for $x \ge 0$ and $1/(1 - x)$ for $x < 0$.

    It is the log-softmax of $\ln s(x) = \pm\ln(1 + |x|)$, so that it neither overflows nor, as softmax does, loses the
    smaller scores to rounding. Computed in the type of `x`; differentiable everywhere.

    **Arguments:**

    - `x`: the scores.
    - `axis`: over which they compete.
    """
    x = as_float_array("x", x)
    grows = x >= 0
    stretched = jnp.where(grows, jnp.log1p(jnp.where(grows, x, 0.0)), -jnp.log1p(jnp.where(grows, 0.0, -x)))
    return jax.nn.log_softmax(stretched, axis=axis)


def stablemax(x: ArrayLike, axis: int = -1) -> Float[Array, "..."]:
    r"""$s(x_i)/\sum_ks(x_k)$ with $s(x) = x + 1$ for $x \ge 0$ and $1/(1 - x)$ for $x < 0$.

    **Arguments:**

    - `x`: the scores.
    - `axis`: over which they compete.
    """
    return jnp.exp(log_stablemax(x, axis))
