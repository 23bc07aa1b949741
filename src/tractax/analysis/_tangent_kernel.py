"""The empirical neural tangent kernel."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


@eqx.filter_jit
def tangent_kernel(
    model: PyTree, inputs: Float[Array, "examples ..."]
) -> Float[Array, "examples outputs examples outputs"]:
    """The tangent kernel $\\sum_p \\partial_p f_a(x_i)\\,\\partial_p f_b(x_j)$ of any network, from its Jacobian.

    **Arguments:**

    - `model`: an Equinox module that maps one input to an output vector of shape `(outputs,)`.
    - `inputs`: a batch of inputs, with a leading axis over examples.

    **Returns:**

    The kernel, indexed `[i, a, j, b]`. The Jacobian is held in memory: examples × outputs × parameters numbers.
    """
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def outputs(p):
        return jax.vmap(eqx.combine(p, static))(inputs)

    shape = jax.eval_shape(outputs, params).shape
    if not jax.tree.leaves(params) or len(shape) != 2:
        raise ValueError(
            "`model` must have trainable arrays and return a vector for one input; it returned shape "
            f"{shape[1:]} and has {len(jax.tree.leaves(params))} trainable arrays."
        )
    jacobian = jax.tree.leaves(jax.jacrev(outputs)(params))
    examples, n_out = shape
    flat = jnp.concatenate([leaf.reshape(examples * n_out, -1) for leaf in jacobian], axis=1)
    return (flat @ flat.T).reshape(examples, n_out, examples, n_out)
