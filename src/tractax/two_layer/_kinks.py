r"""The kinks of a network of rectifiers in one dimension.

$f(x) = \sum_ja_j\phi(w_jx + b_j)$ is piecewise linear. Unit $j$ bends it at $-b_j/w_j$, where its slope rises by
$(1 - \alpha)\,a_j|w_j|$, with the slope $\alpha$ of negative fields. From small weights units come to share their kinks:
the loss rests while there are few, and falls when one is added.

Source: Zhang, Saxe and Latham 2025, arXiv 2512.20607.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

from ..core import check_finite, check_positive, require
from ._network import LeakyReLU, TwoLayerNetwork


class Kinks(eqx.Module):
    """Where the units of a network bend its output, and by how much.

    **Attributes:**

    - `positions`: $-b_j/w_j$; infinite for units without input weight.
    - `bends`: the changes of slope from left to right.
    """

    positions: Float[Array, "*times hidden"]
    bends: Float[Array, "*times hidden"]


def kinks(model: PyTree) -> Kinks:
    """The kink of every unit.

    **Arguments:**

    - `model`: a `TwoLayerNetwork` of (leaky) rectifiers with one input and one output, with biases or without.

    **Raises:**

    `ValueError` for another kind of network.
    """
    if not isinstance(model, TwoLayerNetwork) or not isinstance(model.activation, LeakyReLU):
        raise ValueError("`model` must be a TwoLayerNetwork of (leaky) rectifiers to have kinks.")
    if model.sizes[::2] != (1, 1):
        raise ValueError(f"`model` must have one input and one output; got {model.sizes[0]} and {model.sizes[2]}.")
    activation: Any = model.activation
    w = model.first[:, 0]
    bias = jnp.zeros_like(w) if model.bias is None else model.bias
    positions = jnp.where(w == 0, jnp.inf, -bias / jnp.where(w == 0, 1.0, w))
    return Kinks(positions, (1 - activation.slope) * model.second[0] * jnp.abs(w))


def count_kinks(
    model: PyTree, lower: ArrayLike, upper: ArrayLike, *, apart: ArrayLike, floor: ArrayLike
) -> Int[Array, ""]:
    """The number of different kinks of a network in an interval.

    **Arguments:**

    - `model`: as in `kinks`.
    - `lower`, `upper`: the interval, without its ends.
    - `apart`: neighbouring kinks that are closer than this count as one, whose bends add up.
    - `floor`: a kink that bends less is not counted.

    **Raises:**

    `ValueError` for another kind of network, ends that are not in order, or a negative distance or floor.
    """
    found = kinks(model)
    dtype = found.positions.dtype
    apart = check_positive("apart", apart, zero=True, scalar=True).astype(dtype)
    floor = check_positive("floor", floor, zero=True, scalar=True).astype(dtype)
    lower = check_finite("lower", lower, scalar=True).astype(dtype)
    upper = check_finite("upper", upper, scalar=True).astype(dtype)
    upper = require(upper, lower < upper, f"`lower` must be below `upper`; got {lower} and {upper}.")
    inside = (found.positions > lower) & (found.positions < upper)
    positions = jnp.where(inside, found.positions, upper + apart + 1)
    order = jnp.argsort(positions)
    positions, bends = positions[order], jnp.where(inside, found.bends, 0.0)[order]
    gaps = jnp.diff(positions, prepend=positions[:1])
    group = jnp.cumsum((gaps >= apart) & (gaps > 0))
    total = jax.ops.segment_sum(bends, group, num_segments=group.shape[0])
    return jnp.sum(jnp.abs(total) > floor)
