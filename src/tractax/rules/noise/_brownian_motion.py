"""White noise on every trainable number."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ...core import Objective, check_key

# Steps must be longer than this part of the run, about a millionth; `tx.train` allows no more than 2**17 of them.
_RESOLUTION = 2.0**-20


def brownian_motion(state: PyTree, t0: Any, t1: Any, key: PRNGKeyArray | None) -> diffrax.VirtualBrownianTree:
    """A path of independent Brownian motions in the shape of `state`; the same for the same key and times."""
    check_key(key)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
    return diffrax.VirtualBrownianTree(t0, t1, tol=(t1 - t0) * _RESOLUTION, shape=shapes, key=key)


def white_noise(
    scale: Float[Array, ""], state: PyTree, t0: Any, t1: Any, key: PRNGKeyArray | None
) -> diffrax.ControlTerm:
    """Noise of the same strength on every number of the state."""
    return diffrax.ControlTerm(eqx.Partial(_shake, scale), brownian_motion(state, t0, t1, key))


def _shake(scale: Float[Array, ""], t: Any, state: PyTree, objective: Objective) -> lx.DiagonalLinearOperator:
    del t, objective
    return lx.DiagonalLinearOperator(jax.tree.map(lambda w: jnp.broadcast_to(scale.astype(w.dtype), w.shape), state))
