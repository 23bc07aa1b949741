"""The largest eigenvalues of the Hessian, by Lanczos's method on Hessian-vector products."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ...core import AbstractTask, check_count, check_matrix


def sharpness(model: PyTree, task: AbstractTask, *, iterations: int = 32) -> Float[Array, ""]:
    """The largest eigenvalue of the Hessian of the loss with respect to all trainable numbers.

    No Hessian is formed. Up to `iterations` parameters it is exact to rounding; beyond, the estimate is slightly low
    where the largest eigenvalues lie close together.

    **Arguments:**

    - `model`, `task`: any. To record it while training, `observe=lambda model: sharpness(model, task)`.
    - `iterations`: of Lanczos's method, each a Hessian-vector product.

    **Returns:**

    A scalar.

    **Raises:**

    `ValueError` for fewer iterations than one, or a model without trainable numbers.
    """
    check_count("iterations", iterations)
    params, static = eqx.partition(model, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(params)
    flat = check_matrix("model", flat, (None,))
    product = jax.linearize(jax.grad(lambda w: task.loss(eqx.combine(unravel(w), static))), flat)[1]
    return leading_eigenpairs(product, flat, 1, iterations)[0][0]


def leading_eigenpairs(
    product: Callable[[Array], Array], like: Float[Array, " size"], count: int, iterations: int
) -> tuple[Float[Array, " count"], Float[Array, "count size"]]:
    """The largest eigenvalues of a symmetric map of vectors like the one given, descending, and normalised eigenvectors.

    As many vectors as eigenvalues go ahead of the products with them, so that repeated eigenvalues are all found.
    """
    size = like.shape[0]
    rounds = min(size, iterations)
    # Fixed random vectors: to start with, and to go on with wherever an invariant subspace is used up.
    fresh = jax.random.normal(jax.random.key(0), (rounds, size), like.dtype)
    tiny = 100 * jnp.finfo(like.dtype).eps

    def extend(k: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        basis, images = carry
        image = product(basis[k])
        images = images.at[k].set(image)
        residue, scale = _across(basis, image), jnp.linalg.norm(image)
        spent = jnp.linalg.norm(residue) <= tiny * scale
        residue = jnp.where(spent, _across(basis, fresh[(k + count) % rounds]), residue)
        return basis.at[k + count].set(_unit(residue), mode="drop"), images

    nothing = jnp.zeros((rounds, size), like.dtype)
    start = nothing
    for k in range(count):
        start = start.at[k].set(_unit(_across(start, fresh[k])))
    basis, images = jax.lax.fori_loop(0, rounds, extend, (start, nothing))
    small = basis @ images.T
    values, vectors = jnp.linalg.eigh((small + small.T) / 2)
    return values[::-1][:count], vectors[:, ::-1][:, :count].T @ basis


def _unit(vector: Array) -> Array:
    """Of length one, unless it is zero."""
    length = jnp.linalg.norm(vector)
    return vector / jnp.where(length == 0, 1.0, length)


def _across(basis: Array, vector: Array) -> Array:
    """The part of a vector orthogonal to the rows of a basis; twice, since once leaves rounding of the part along it."""
    for _ in range(2):
        vector = vector - (basis @ vector) @ basis
    return vector
