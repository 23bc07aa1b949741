r"""The Jacobian of a network with respect to its input: how large it is, and whether it points at the input.

Source: Walker, Humayun, Balestriero and Baraniuk 2025, arXiv 2506.12284.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..core import check_count, check_key, standard_normal
from ..special import safe_sqrt


def jacobian_norm(model: Callable, inputs: Float[Array, "examples in"]) -> Float[Array, ""]:
    r"""$\tfrac1n\sum_i\lVert J(x_i)\rVert_F$ with $J = \partial f/\partial x$; exact.

    **Arguments:**

    - `model`: maps one input to an array of outputs.
    - `inputs`: $x_i$, one example a row.

    **Returns:**

    One number, the penalty that GrokAlign adds to a loss; its derivative at $J = 0$ is zero.
    """
    return jnp.mean(jax.vmap(lambda x: _norm(_jacobian(model, x)))(inputs))


def projected_jacobian_norm(
    model: Callable, inputs: Float[Array, "examples in"], *, projections: int, key: PRNGKeyArray | None
) -> Float[Array, ""]:
    r"""$\tfrac1n\sum_i\sqrt{\tfrac CK\sum_k\lVert J(x_i)^\top v_k\rVert^2}$ with random unit vectors $v_k$.

    It costs $K$ products with a vector per example, not as many as there are outputs, $C$. Its square is unbiased example
    by example; the root is on average below $\lVert J\rVert_F$.

    **Arguments:**

    - `model`: maps one input to a vector of outputs.
    - `inputs`: $x_i$, one example a row.
    - `projections`: $K$.
    - `key`: for the directions, drawn afresh for every example.

    **Raises:**

    `ValueError` for fewer than one projection, or no key.
    """
    projections = check_count("projections", projections)
    check_key(key)

    def norm(x: Array, key: PRNGKeyArray) -> Array:
        outputs, pull = jax.vjp(model, x)
        directions = standard_normal(key, (projections, outputs.size), outputs.dtype)
        directions = directions / jnp.linalg.norm(directions, axis=1, keepdims=True)
        pulled = jax.vmap(lambda v: pull(v.reshape(outputs.shape))[0])(directions)
        return (outputs.size / projections) ** 0.5 * _norm(pulled)

    return jnp.mean(jax.vmap(norm)(inputs, jax.random.split(key, inputs.shape[0])))


def jacobian_centroid(model: Callable, x: Float[Array, " in"]) -> Float[Array, " in"]:
    r"""$\mu(x) = J(x)^\top\mathbf 1$, the sum of the gradients of all outputs.

    **Arguments:**

    - `model`: maps one input to an array of outputs.
    - `x`: the input.
    """
    return jax.grad(lambda x: jnp.sum(model(x)))(x)


def centroid_alignment(model: Callable, inputs: Float[Array, "examples in"]) -> Float[Array, " examples"]:
    r"""$\cos(\mu(x_i), x_i)$: whether the `jacobian_centroid` of a network points at the input.

    **Arguments:**

    - `model`: maps one input to an array of outputs.
    - `inputs`: $x_i$, one example a row.

    **Returns:**

    The cosine of each example; 0 where the centroid or the input is zero.
    """

    def cosine(x: Array) -> Array:
        centroid = jacobian_centroid(model, x)
        sizes = _norm(centroid) * _norm(x)
        return jnp.where(sizes > 0, jnp.vdot(centroid, x) / jnp.where(sizes > 0, sizes, 1.0), 0.0)

    return jax.vmap(cosine)(inputs)


def _jacobian(model: Callable, x: Array) -> Any:
    """By whichever side is shorter."""
    outputs = jax.eval_shape(model, x).size
    return (jax.jacrev if outputs <= x.size else jax.jacfwd)(model)(x)


def _norm(x: Array) -> Array:
    """The norm of all entries, with derivative zero at zero."""
    return safe_sqrt(jnp.sum(x**2))
