"""How much of a vector lies in a subspace, against chance."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


class Alignment(eqx.Module):
    """The share of a vector in a subspace.

    **Attributes:**

    - `share`: $\\lVert Pv\\rVert^2/\\lVert v\\rVert^2$; NaN for a vector of zero.
    - `baseline`: $k/n$, its mean over random vectors, for a subspace of dimension $k$ in $n$.
    """

    share: Float[Array, ""]
    baseline: Float[Array, ""]

    @property
    def ratio(self) -> Float[Array, ""]:
        """How many times the share is that of a random vector; NaN if there is no vector or no subspace."""
        return self.share / self.baseline


def subspace_alignment(vector: PyTree, directions: PyTree) -> Alignment:
    """How much of a vector lies in the subspace that some directions span.

    **Arguments:**

    - `vector`: a PyTree of arrays, such as a gradient or a `step_commutator`.
    - `directions`: the same PyTree, with a leading axis of length `directions` on every array: `leading(3)` of a
      `TrajectoryPCA`, say. They need be neither orthogonal nor normalised nor independent.

    **Returns:**

    An `Alignment`.

    **Raises:**

    `ValueError` if the two do not have the same structure and shapes.
    """
    arrays, basis = (eqx.filter(tree, eqx.is_inexact_array) for tree in (vector, directions))
    pairs = list(zip(jax.tree.leaves(arrays), jax.tree.leaves(basis), strict=False))
    fits = jax.tree.structure(arrays) == jax.tree.structure(basis) and bool(pairs)
    if not fits or any(d.ndim != v.ndim + 1 or d.shape[1:] != v.shape for v, d in pairs):
        raise ValueError(
            "`directions` must be like `vector` with a leading axis on every array; got shapes "
            f"{[v.shape for v, _ in pairs]} and {[d.shape for _, d in pairs]}, of {jax.tree.structure(arrays)} and "
            f"{jax.tree.structure(basis)}."
        )
    flat = jnp.concatenate([jnp.ravel(v) for v, _ in pairs])
    rows = jnp.concatenate([d.reshape(d.shape[0], -1) for _, d in pairs], axis=1)
    # Unit rows, so that the rank does not depend on their lengths.
    _, singular, right = jnp.linalg.svd(_unit(rows), full_matrices=False)
    spans = singular > max(rows.shape) * jnp.finfo(rows.dtype).eps * jnp.maximum(singular[0], 1.0)
    share = jnp.sum(jnp.where(spans, right @ _unit(flat), 0.0) ** 2)
    baseline = jnp.sum(spans).astype(flat.dtype) / flat.shape[0]
    return Alignment(jnp.where(jnp.all(flat == 0), jnp.nan, share), baseline)


def _unit(x: Float[Array, "... n"]) -> Float[Array, "... n"]:
    """Vectors of length one, and those of zero as they are; without underflow of squares."""
    largest = jnp.max(jnp.abs(x), axis=-1, keepdims=True)
    scaled = x / jnp.where(largest == 0, 1.0, largest)
    length = jnp.linalg.norm(scaled, axis=-1, keepdims=True)
    return scaled / jnp.where(length == 0, 1.0, length)
