"""Which inputs can switch a rectifier on together: the cells into which data cut the space of its weights."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, PRNGKeyArray

from ..core import check_count, check_key, check_matrix

# Beyond this many, solving for all of them takes longer than anyone would wait.
_MOST = 20_000
_PARALLEL = 1e-9


def activation_patterns(inputs: ArrayLike) -> Bool[Array, "patterns examples"]:
    r"""Every pattern $1[x_k\cdot u > 0]$ that occurs for weights $u$ with no $x_k\cdot u = 0$.

    There are $2\sum_{k<r}\binom{n-1}{k}$ of them for $n$ inputs of rank $r$ in general position, and fewer otherwise. An
    input that is zero never switches a unit on.

    **Arguments:**

    - `inputs`: one example a row; known numbers, not traced ones.

    **Returns:**

    The patterns, one a row, without repetition.

    **Raises:**

    `ValueError` for wrong shapes, NaN, or so many patterns that they should be sampled: see `sampled_patterns`.
    """
    rows = np.asarray(check_matrix("inputs", inputs), np.float64)
    lengths = np.linalg.norm(rows, axis=1)
    seen = lengths > 0
    if not seen.any():
        return jnp.zeros((1, rows.shape[0]), bool)
    # Signs depend on the directions of the inputs alone, and on weights only in the span of these.
    directions = rows[seen] / lengths[seen][:, None]
    _, sizes, basis = np.linalg.svd(directions, full_matrices=False)
    basis = basis[sizes > _PARALLEL * sizes[0]]
    most = 2 * sum(math.comb(int(seen.sum()) - 1, k) for k in range(len(basis)))
    if most > _MOST:
        raise ValueError(
            f"`inputs` must have few patterns to list them all; {seen.sum()} inputs of rank {len(basis)} have up to "
            f"{most}, and at most {_MOST} are listed. Use sampled_patterns."
        )
    reduced = directions @ basis.T
    cells = _cells(reduced / np.linalg.norm(reduced, axis=1, keepdims=True))
    patterns = np.zeros((len(cells), rows.shape[0]), bool)
    patterns[:, seen] = cells @ reduced.T > 0
    return jnp.asarray(np.unique(patterns, axis=0))


def sampled_patterns(inputs: ArrayLike, samples: int, *, key: PRNGKeyArray | None) -> Bool[Array, "patterns examples"]:
    r"""The patterns $1[x_k\cdot u > 0]$ of random weights $u$ with independent normal entries.

    **Arguments:**

    - `inputs`: one example a row; known numbers, not traced ones.
    - `samples`: how many weights to draw.
    - `key`: a JAX PRNG key. More samples of the same key contain the fewer.

    **Returns:**

    The patterns that occurred, one a row, without repetition: at most `samples` of them.
    """
    rows = check_matrix("inputs", inputs)
    samples = check_count("samples", samples)
    check_key(key)
    # One key for each draw, so that a larger sample begins with a smaller one.
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(samples))
    weights = jax.vmap(lambda k: jax.random.normal(k, rows.shape[1:], rows.dtype))(keys)
    return jnp.asarray(np.unique(np.asarray(weights @ rows.T > 0), axis=0))


def _cells(normals: np.ndarray) -> np.ndarray:
    """A point inside each cell between the hyperplanes with these unit normals, shape `(cells, dimensions)`.

    Hyperplanes are added one by one. A new one cuts in two exactly those cells that the earlier ones leave of it when
    they are restricted to it, which is the same problem in one dimension less.
    """
    count, dimensions = normals.shape
    if dimensions == 1:
        return np.asarray([[1.0], [-1.0]])
    points = np.full((1, dimensions), dimensions**-0.5)
    for k in range(count):
        normal, earlier = normals[k], normals[:k]
        within = np.linalg.svd(normal[None, :])[2][1:]
        traces = earlier @ within.T
        lengths = np.linalg.norm(traces, axis=1)
        crossing = lengths > _PARALLEL
        on = _cells(traces[crossing] / lengths[crossing][:, None]) @ within
        # To both sides of the new hyperplane, but not as far as any earlier one.
        distances = np.abs(on @ earlier[crossing].T)
        slopes = np.maximum(np.abs(earlier[crossing] @ normal), _PARALLEL)
        steps = np.min(distances / slopes[None, :], axis=1, initial=1.0)[:, None] / 2
        aside = points[np.abs(points @ normal) > _PARALLEL]
        points = np.concatenate([aside, on + steps * normal[None, :], on - steps * normal[None, :]])
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        _, first = np.unique(points @ normals[: k + 1].T > 0, axis=0, return_index=True)
        points = points[first]
    return points
