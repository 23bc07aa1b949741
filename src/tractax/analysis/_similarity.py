"""Similarity of representations and of kernels."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def representation_similarity(hidden: Float[Array, "examples units"]) -> Float[Array, "examples examples"]:
    """Inner products of the hidden activity of all pairs of examples; invariant to rotations of the hidden layer."""
    return hidden @ hidden.T


def cosine_similarity(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, ""]:
    """⟨a, b⟩ / (‖a‖ ‖b‖) of two arrays of the same shape, such as kernels; NaN if one of them vanishes."""
    if a.shape != b.shape:
        raise ValueError(f"`a` and `b` must have the same shape; got {a.shape} and {b.shape}.")
    x, y = jnp.ravel(a), jnp.ravel(b)
    return jax.numpy.vdot(x, y) / (jnp.linalg.norm(x) * jnp.linalg.norm(y))
