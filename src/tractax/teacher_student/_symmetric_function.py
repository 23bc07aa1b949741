"""Functions of a symmetric matrix, differentiable also where eigenvalues repeat."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def apply_symmetric(
    function: Callable[[Array, Array], Array],
    matrix: Float[Array, "n n"],
    vectors: Float[Array, "n columns"],
    parameter: Float[Array, ""],
) -> Float[Array, " n"]:
    r"""$\sum_c f_c(A, p)\,x_c$ for a symmetric matrix $A$.

    Eigenvectors of repeated eigenvalues have no derivative, but functions of the matrix do: by Daleckii and Krein it
    needs the difference quotients of $f$ between eigenvalues, and nothing else.

    **Arguments:**

    - `function`: $f$, from eigenvalues of shape `(n,)` and the parameter to shape `(n, columns)`.
    - `matrix`: $A$.
    - `vectors`: $x_c$, the columns.
    - `parameter`: $p$.
    """
    values, basis = jnp.linalg.eigh(matrix)
    return basis @ _weighted(function(values, parameter), basis.T @ vectors)


@apply_symmetric.defjvp
def _apply_symmetric_jvp(function, primals, tangents):
    matrix, vectors, parameter = primals
    d_matrix, d_vectors, d_parameter = tangents
    values, basis = jnp.linalg.eigh(matrix)
    at_values, d_function = jax.jvp(lambda p: function(values, p), (parameter,), (d_parameter,))
    components = basis.T @ vectors
    out = _weighted(at_values, components)
    gaps = values[:, None] - values[None, :]
    # Where a difference would be all rounding, the slope half way is as good.
    close = jnp.abs(gaps) <= jnp.finfo(values.dtype).eps ** 0.4 * jnp.max(jnp.abs(values))
    middle = ((values[:, None] + values[None, :]) / 2).ravel()
    slopes = jax.jvp(lambda m: function(m, parameter), (middle,), (jnp.ones_like(middle),))[1]
    quotients = jnp.where(
        close[:, :, None],
        slopes.reshape(*gaps.shape, -1),
        (at_values[:, None, :] - at_values[None, :, :]) / jnp.where(close, 1.0, gaps)[:, :, None],
    )
    change = jnp.einsum("ijc,ij,jc->i", quotients, basis.T @ d_matrix @ basis, components)
    change = change + _weighted(d_function, components) + jnp.sum(at_values * (basis.T @ d_vectors), axis=1)
    return basis @ out, basis @ change


def _weighted(factors: Array, components: Array) -> Array:
    """Σ_c of the products; what is absent does not grow, however fast its mode does."""
    return jnp.sum(jnp.where(components == 0, 0.0, factors * components), axis=1)
