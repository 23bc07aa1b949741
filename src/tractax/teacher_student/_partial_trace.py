r"""The partial trace of a tensor, and how well it shows the direction that the tensor hides.

Set-up. $T = \theta^{*\otimes k} + n^{-1/2}\,\mathrm{Sym}(G)$ in $\mathbb R^d$ (`spiked_tensor`). Tracing pairs of axes
leaves a vector for odd $k$ and a matrix for even $k$; the spike becomes $\theta^*$ or $\theta^*\theta^{*\top}$. The noise
becomes, with a law that rotations do not change, a normal vector with a variance of

$$v = \frac{(d+2)(d+4)\cdots(d+k-1)}{k!!}$$

in every entry, or a symmetric normal matrix with

$$v = \frac{(k-2)!!\,(d+4)(d+6)\cdots(d+k)}{k!}$$

in every entry off the diagonal, both over $n$. As $d\to\infty$ at fixed $dv/n$ the direction of the vector has the
overlap $(1 + dv/n)^{-1/2}$ with $\theta^*$, and the leading eigenvector of the matrix $(1 - dv/n)^{1/2}$ as long as
$n > dv$, and none below. So even orders take $n\propto d^{k/2}$ samples. Odd orders take $d^{(k+1)/2}$ for an overlap of
order one; at $d^{k/2}$ the overlap is of order $d^{-1/4}$, more than the $d^{-1/2}$ of a random direction.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..core import as_float_array, check_count, require, tolerance_for
from ._information_exponent import check_order
from ._tensor_pca import check_cubic


def partial_trace(tensor: ArrayLike) -> Float[Array, "..."]:
    r"""$\sum_{j_1j_2\dots}T_{\,\cdot\,j_1j_1j_2j_2\dots}$: all pairs of axes of a symmetric tensor traced.

    **Arguments:**

    - `tensor`: with $k$ axes of length `in`.

    **Returns:**

    A vector, shape `(in,)`, for odd $k$; a matrix, shape `(in, in)`, for even $k$.

    **Raises:**

    `ValueError` for axes of different lengths.
    """
    tensor = check_cubic("tensor", tensor)
    while tensor.ndim > 2:
        tensor = jnp.trace(tensor, axis1=-2, axis2=-1)
    return tensor


def leading_direction(moment: ArrayLike) -> Float[Array, " in"]:
    """The direction of a vector, or the eigenvector of the largest eigenvalue of a symmetric matrix (of either sign).

    **Raises:**

    `ValueError` for anything else.
    """
    moment = check_cubic("moment", moment)
    if moment.ndim == 1:
        length = jnp.linalg.norm(moment)
        return require(moment / length, length > 0, "`moment` must not be zero, which has no direction.")
    if moment.ndim == 2:
        asymmetry, size = jnp.max(jnp.abs(moment - moment.T)), jnp.max(jnp.abs(moment))
        message = f"`moment` must be symmetric; ‖x − xᵀ‖ reaches {asymmetry}."
        moment = require(moment, asymmetry <= tolerance_for(moment) * size, message)
        return jnp.linalg.eigh(moment)[1][:, -1]
    raise ValueError(f"`moment` must be a vector or a matrix; got shape {moment.shape}.")


def partial_trace_variance(order: int, size: int) -> float:
    r"""$v$, the variance that $\mathrm{Sym}(G)$ leaves in every entry of its partial trace (off the diagonal).

    **Arguments:**

    - `order`: $k \ge 1$.
    - `size`: $d \ge 1$.
    """
    check_order(order)
    size = check_count("size", size)
    if order % 2 == 1:
        return math.prod(range(size + 2, size + order, 2)) / odd_factorial(order)
    evens = math.prod(range(2, order - 1, 2))
    return evens * math.prod(range(size + 4, size + order + 1, 2)) / math.factorial(order)


def partial_trace_overlap(samples: ArrayLike, *, order: int, size: int) -> Float[Array, "..."]:
    r"""$|\hat\theta\cdot\theta^*|$ of the direction $\hat\theta$ that the partial trace shows, in high dimension.

    **Arguments:**

    - `samples`: $n > 0$.
    - `order`: $k \ge 1$.
    - `size`: $d \ge 1$.

    **Returns:**

    $(1 + dv/n)^{-1/2}$ for odd $k$; for even $k$, $(1 - dv/n)^{1/2}$, or zero where this is not real.

    **Raises:**

    `ValueError` for samples that are not positive.
    """
    samples = as_float_array("samples", samples)
    samples = require(samples, (samples > 0).all(), f"`samples` must be positive; got {samples}.")
    noise = size * partial_trace_variance(order, size) / samples
    if order % 2 == 1:
        return 1 / jnp.sqrt(1 + noise)
    return jnp.where(noise < 1, jnp.sqrt(jnp.where(noise < 1, 1 - noise, 1.0)), 0.0)


def odd_factorial(k: int) -> int:
    """$1\\cdot3\\cdot5\\cdots k$ of an odd number; 1 for -1."""
    return math.prod(range(k, 0, -2))
