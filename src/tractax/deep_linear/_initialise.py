"""Initial weights of deep linear networks. `sizes` are layer sizes, input first."""

import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ..core import check_finite, check_key, check_matrix, check_positive, require, standard_normal
from ._network import DeepLinear
from ._task import LinearTask


def gaussian(sizes: Sequence[int], *, scale: ArrayLike, key: PRNGKeyArray) -> DeepLinear:
    """Independent normal entries with standard deviation `scale`."""
    check_key(key)
    sizes = _check_sizes(sizes)
    return _normal(key, check_positive("scale", scale, zero=True, scalar=True), sizes)


@functools.partial(jax.jit, static_argnums=2)
def _normal(key: PRNGKeyArray, scale: Array, sizes: tuple[int, ...]) -> DeepLinear:
    keys = jax.random.split(key, len(sizes) - 1)
    shapes = zip(sizes[1:], sizes[:-1], strict=True)
    return DeepLinear(tuple(scale * standard_normal(k, s, scale.dtype) for k, s in zip(keys, shapes, strict=True)))


def orthogonal(sizes: Sequence[int], *, gain: ArrayLike = 1.0, key: PRNGKeyArray) -> DeepLinear:
    """Independent Haar-distributed matrices with orthonormal rows or columns, whichever fit, times `gain`."""
    check_key(key)
    sizes = _check_sizes(sizes)
    gain = check_positive("gain", gain, scalar=True)
    keys = jax.random.split(key, len(sizes) - 1)
    shapes = zip(sizes[1:], sizes[:-1], strict=True)
    return DeepLinear(tuple(gain * haar(k, *s, gain.dtype) for k, s in zip(keys, shapes, strict=True)))


def low_rank(sizes: Sequence[int], *, rank: int, scale: ArrayLike, key: PRNGKeyArray) -> DeepLinear:
    """Matrices of the given rank and Frobenius norm `scale`: products of two normal factors.

    Layers smaller than `rank` have full rank.
    """
    check_key(key)
    sizes = _check_sizes(sizes)
    if rank < 1:
        raise ValueError(f"`rank` must be at least 1; got {rank}.")
    scale = check_positive("scale", scale, zero=True, scalar=True)
    weights = []
    for k, n_out, n_in in zip(jax.random.split(key, len(sizes) - 1), sizes[1:], sizes[:-1], strict=True):
        left, right = jax.random.split(k)
        w = standard_normal(left, (n_out, rank), scale.dtype) @ standard_normal(right, (rank, n_in), scale.dtype)
        weights.append(scale * w / jnp.linalg.norm(w))
    return DeepLinear(tuple(weights))


def balanced(sizes: Sequence[int], *, scale: ArrayLike, key: PRNGKeyArray) -> DeepLinear:
    r"""Random and balanced: $W_{l+1}^\top W_{l+1} = W_l W_l^\top$ at every layer.

    Singular vectors are Haar-distributed; every layer has the same singular values, drawn uniformly between `scale / 2`
    and `3 scale / 2`, as many as the smallest layer has units.
    """
    check_key(key)
    sizes = _check_sizes(sizes)
    scale = check_positive("scale", scale, scalar=True)
    value_key, *keys = jax.random.split(key, len(sizes) + 1)
    values = scale * jax.random.uniform(value_key, (min(sizes),), scale.dtype, 0.5, 1.5)
    return _chain([haar(k, n, min(sizes), scale.dtype) for k, n in zip(keys, sizes, strict=True)], values)


def balanced_factors(
    product: Float[ArrayLike, "out in"], hidden: Sequence[int], *, key: PRNGKeyArray | None = None
) -> DeepLinear:
    """Balanced layers whose product is a given matrix.

    **Arguments:**

    - `product`: the input-output map, shape `(out, in)`.
    - `hidden`: sizes of the hidden layers, each at least the rank of `product`.
    - `key`: draws random rotations of the hidden layers; `None` for none.

    **Raises:**

    `ValueError` if a hidden layer is too small.
    """
    product = check_matrix("product", product)
    u, s, vt = jnp.linalg.svd(product, full_matrices=False)
    hidden = _check_sizes((product.shape[1], *hidden, product.shape[0]))[1:-1]
    k = min(s.shape[0], *hidden) if hidden else s.shape[0]
    # A vanishing singular value comes out as rounding, whose L-th root would be large.
    s = jnp.where(s <= max(product.shape) * jnp.finfo(s.dtype).eps * s[0], 0.0, s)
    s = require(
        s,
        jnp.all(s[k:] == 0),
        f"`hidden` must be at least the rank of `product`; got a smallest layer of {k} units.",
    )
    bases = [vt[:k].T, *_hidden_bases(hidden, k, key, product.dtype), u[:, :k]]
    return _chain(bases, s[:k] ** (1 / (len(hidden) + 1)))


def aligned(
    task: LinearTask, hidden: Sequence[int], *, strength: ArrayLike, key: PRNGKeyArray | None = None
) -> DeepLinear:
    """Balanced layers that share the singular vectors of the task's cross-covariance, so that its modes decouple.

    **Arguments:**

    - `task`: the task.
    - `hidden`: sizes of the hidden layers; a layer smaller than the number of modes leaves the weakest modes out.
    - `strength`: the initial strength of every mode, one number or one per mode: a singular value of the product.
    - `key`: draws random rotations of the hidden layers; `None` for none.
    """
    u, s, vt = jnp.linalg.svd(task.cross_covariance, full_matrices=False)
    strength = check_positive("strength", strength, zero=True).astype(s.dtype)
    if strength.ndim > 1 or (strength.ndim == 1 and strength.shape != s.shape):
        raise ValueError(f"`strength` must be one number or one per mode, shape {s.shape}; got {strength.shape}.")
    hidden = _check_sizes((vt.shape[1], *hidden, u.shape[0]))[1:-1]
    k = min(s.shape[0], *hidden) if hidden else s.shape[0]
    values = jnp.broadcast_to(strength, s.shape)[:k] ** (1 / (len(hidden) + 1))
    return _chain([vt[:k].T, *_hidden_bases(hidden, k, key, s.dtype), u[:, :k]], values)


def lambda_balanced(sizes: Sequence[int], *, lam: ArrayLike, scale: ArrayLike, key: PRNGKeyArray) -> DeepLinear:
    r"""Two layers with $W_2^\top W_2 - W_1 W_1^\top = \lambda I$ and otherwise random.

    The layer that the sign of $\lambda$ makes the smaller one has normal entries with standard deviation `scale`; the
    other one is its completion, rotated by a Haar-distributed matrix.

    **Arguments:**

    - `sizes`: `(in, hidden, out)`.
    - `lam`: $\lambda$. Positive values need `hidden <= out`, negative ones `hidden <= in`.
    - `scale`: standard deviation of the smaller layer's entries.

    **Raises:**

    `ValueError` for other than two layers, or a hidden layer too large for the sign of $\lambda$ (at zero: larger than
    both).
    """
    check_key(key)
    sizes = _check_sizes(sizes)
    if len(sizes) != 3:
        raise ValueError(f"`sizes` must be (in, hidden, out); got {sizes}.")
    n_in, hidden, n_out = sizes
    lam = check_finite("lam", lam, scalar=True)
    scale = check_positive("scale", scale, zero=True, scalar=True).astype(lam.dtype)
    start, rotation = jax.random.split(key)
    # At lambda = 0 either layer may be the completed one, so the one that fits is.
    fits_first, fits_second = hidden <= n_out, hidden <= n_in
    if not (fits_first or fits_second):
        raise ValueError(f"`sizes` must have hidden <= in or hidden <= out for a lambda-balanced start; got {sizes}.")
    lam = require(
        lam,
        ((lam >= 0) | fits_second) & ((lam <= 0) | fits_first),
        "`lam` > 0 needs hidden <= out, and `lam` < 0 needs hidden <= in.",
    )
    shift = jnp.abs(lam) * jnp.eye(hidden, dtype=lam.dtype)
    choices = []
    if fits_first:
        w1 = scale * standard_normal(start, (hidden, n_in), lam.dtype)
        choices.append((w1, haar(rotation, n_out, hidden, lam.dtype) @ _sqrtm(w1 @ w1.T + shift)))
    if fits_second:
        w2 = scale * standard_normal(start, (n_out, hidden), lam.dtype)
        choices.append((_sqrtm(w2.T @ w2 + shift) @ haar(rotation, n_in, hidden, lam.dtype).T, w2))
    return DeepLinear(tuple(jnp.where(lam >= 0, p, q) for p, q in zip(choices[0], choices[-1], strict=True)))


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def haar(key: PRNGKeyArray, rows: int, columns: int, dtype) -> Float[Array, "rows columns"]:
    """A Haar-distributed matrix with orthonormal columns (rows, if there are fewer of them)."""
    if rows < columns:
        return haar(key, columns, rows, dtype).T
    q, r = jnp.linalg.qr(standard_normal(key, (rows, columns), dtype))
    # Without the signs of R's diagonal the distribution would depend on the QR algorithm.
    return q * jnp.where(jnp.diagonal(r) < 0, -1.0, 1.0).astype(dtype)[None, :]


def _sqrtm(a: Array) -> Array:
    values, vectors = jnp.linalg.eigh(a)
    vanish = values <= a.shape[0] * jnp.finfo(a.dtype).eps * values[-1]
    roots = jnp.where(vanish, 0.0, jnp.sqrt(jnp.where(vanish, 1.0, values)))
    return (vectors * roots[None, :]) @ vectors.T


@jax.jit
def _chain(bases: Sequence[Array], values: Array) -> DeepLinear:
    """Layers R_{l+1} diag(values) R_lᵀ."""
    return DeepLinear(tuple((after * values[None, :]) @ before.T for before, after in itertools.pairwise(bases)))


def _hidden_bases(hidden: Sequence[int], k: int, key: PRNGKeyArray | None, dtype) -> list[Array]:
    if key is None:
        return [jnp.eye(n, k, dtype=dtype) for n in hidden]
    keys = jax.random.split(key, len(hidden))
    return [haar(layer_key, n, k, dtype) for layer_key, n in zip(keys, hidden, strict=True)]


def _check_sizes(sizes: Iterable[Any]) -> tuple[int, ...]:
    sizes = tuple(int(n) if isinstance(n, np.integer) else n for n in sizes)
    if len(sizes) < 2 or any(not isinstance(n, int) or isinstance(n, bool) or n < 1 for n in sizes):
        raise ValueError(f"`sizes` must be two or more whole layer sizes of at least 1, input first; got {sizes}.")
    return sizes
