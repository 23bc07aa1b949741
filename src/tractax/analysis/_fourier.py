"""How many frequencies a function of a residue has."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..core import as_float_array


def frequency_power(values: Float[Array, "*rows p"]) -> Float[Array, "*rows frequencies"]:
    r"""$A_k = \big|\sum_xv_xe^{-2\pi ikx/p}\big|^2$ for $k = 1, \dots, \lfloor(p-1)/2\rfloor$, sine and cosine together.

    **Arguments:**

    - `values`: $v$, one function a row, on the residues $0, \dots, p - 1$; at least three.

    **Returns:**

    The power of each frequency. The constant is left out, and for even $p$ the frequency $p/2$.
    """
    values = as_float_array("values", values)
    if values.ndim < 1 or values.shape[-1] < 3:
        raise ValueError(f"`values` must have at least three residues on the last axis; got shape {values.shape}.")
    transform = jnp.fft.rfft(values, axis=-1)[..., 1 : (values.shape[-1] + 1) // 2]
    return jnp.real(transform) ** 2 + jnp.imag(transform) ** 2


def inverse_participation_ratio(values: Float[Array, "*rows p"]) -> Float[Array, "*rows"]:
    r"""$\sum_kA_k^2/(\sum_kA_k)^2$ of the `frequency_power`: 1 for a single frequency, $2/(p-1)$ for a flat spectrum.

    **Arguments:**

    - `values`: one function a row, on the residues $0, \dots, p - 1$.

    **Returns:**

    The ratio of each row; 0 for a row without any frequency.
    """
    power = frequency_power(values)
    largest = jnp.max(power, axis=-1, keepdims=True)
    # In units of the largest, whose square may underflow.
    share = power / jnp.where(largest == 0, 1.0, largest)
    total = jnp.sum(share, axis=-1)
    return jnp.sum(share**2, axis=-1) / jnp.where(total == 0, 1.0, total) ** 2
