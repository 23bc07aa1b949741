r"""Splitting a unit: networks of any width that train exactly as narrower ones do.

Set-up. Units with an activation that is homogeneous of degree one, $\phi(\gamma z) = \gamma\phi(z)$ for $\gamma > 0$, no
bias; any loss, any inputs, gradient flow.

Theory. Parallel units $(\gamma_iw, \gamma_ia)$ with $\gamma_i > 0$ and $\sum_i\gamma_i^2 = 1$ compute what one unit $(w,
a)$ computes, keep their shares $\gamma_i$ for ever, and move together as that unit would. So every network of width
$H - 1$ lies, with its whole training run and with its fixed points, in those of width $H$: split a unit, or add one that
is zero (with $\phi'(0) = 0$, or since both layers vanish, it stays so). The number of different directions of $(w, a)$
that carry weight, the effective width, never grows on these manifolds; off them it grows step by step from small
weights, each step with a plateau of the loss.

Source: Zhang, Saxe and Latham 2025, arXiv 2512.20607.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

from ..core import check_count, check_matrix, check_positive, concrete, require
from ._base import check_network
from ._network import TwoLayerNetwork


def split_unit(model: PyTree, unit: int, shares: PyTree) -> TwoLayerNetwork:
    r"""The network with one unit $(w, a)$ replaced by parallel ones $(\gamma_iw, \gamma_ia)$, in its place.

    **Arguments:**

    - `model`: a `TwoLayerNetwork` of (leaky) rectifiers without bias.
    - `unit`: which one to split, from 0.
    - `shares`: $\gamma_i$, positive, their squares adding up to one; shape `(parts,)`.

    **Raises:**

    `ValueError` for another kind of network, a unit that does not exist, or shares that are not positive (which would
    turn the active half-space around) or whose squares do not add up to one.
    """
    model = check_network(model, "split_unit")
    hidden = model.sizes[1]
    unit = check_count("unit", unit, least=0)
    if unit >= hidden:
        raise ValueError(f"`unit` must be one of the {hidden} hidden units, from 0; got {unit}.")
    shares = check_positive("shares", check_matrix("shares", shares, (None,))).astype(model.first.dtype)
    total = jnp.sum(shares**2)
    near = jnp.abs(total - 1) <= 100 * jnp.finfo(shares.dtype).eps
    shares = require(shares, near, f"`shares` must have squares that add up to 1; got {total}.")
    first = shares[:, None] * model.first[unit][None, :]
    second = model.second[:, unit][:, None] * shares[None, :]
    return TwoLayerNetwork(
        jnp.concatenate([model.first[:unit], first, model.first[unit + 1 :]]),
        jnp.concatenate([model.second[:, :unit], second, model.second[:, unit + 1 :]], axis=1),
        model.activation,
    )


def add_silent_units(model: PyTree, units: int = 1) -> TwoLayerNetwork:
    """The network with units added, at the end, whose weights are zero; gradient flow leaves them there.

    **Raises:**

    `ValueError` for another kind of network or a number of units below one.
    """
    model = check_network(model, "add_silent_units")
    units = check_count("units", units)
    n_in, _, n_out = model.sizes
    dtype = model.first.dtype
    first = jnp.concatenate([model.first, jnp.zeros((units, n_in), dtype)])
    second = jnp.concatenate([model.second, jnp.zeros((n_out, units), dtype)], axis=1)
    return TwoLayerNetwork(first, second, model.activation)


def merge_units(model: PyTree, *, angle: ArrayLike = 1e-6) -> TwoLayerNetwork:
    r"""The narrowest network with the same function and training: parallel units as one, units that are zero left out.

    The merged unit has $\lVert w\rVert^2$ and $\lVert a\rVert^2$ of its parts together. Not for `jax.jit`, since the
    width depends on the weights.

    **Arguments:**

    - `model`: a `TwoLayerNetwork` of (leaky) rectifiers without bias.
    - `angle`: up to which angle between directions of $(w, a)$ units count as parallel.

    **Raises:**

    `ValueError` for another kind of network, or one whose weights are all zero.
    """
    model = check_network(model, "merge_units")
    units, group = _groups(model, angle)
    if concrete(group[0] >= 0) is None:
        raise ValueError("`model` must have known weights: merge_units does not work under jax.jit.")
    leaders = np.unique(np.asarray(group)[np.asarray(group) >= 0])
    if leaders.size == 0:
        raise ValueError("`model` must have a unit that is not zero.")
    # The sum of the parts, each weighed by its share.
    shares = jnp.where(group[None, :] == leaders[:, None], jnp.linalg.norm(units, axis=1)[None, :], 0.0)
    merged = (shares / jnp.linalg.norm(shares, axis=1, keepdims=True)) @ units
    n_in = model.sizes[0]
    return TwoLayerNetwork(merged[:, :n_in], merged[:, n_in:].T, model.activation)


def effective_width(model: PyTree, *, angle: ArrayLike = 1e-2, floor: ArrayLike = 1e-2) -> Int[Array, ""]:
    r"""The number of different directions of $(w, a)$ that carry weight.

    **Arguments:**

    - `model`: a `TwoLayerNetwork` of (leaky) rectifiers without bias.
    - `angle`: up to which angle to the heaviest unit of a direction others belong to it.
    - `floor`: directions whose $\sum\lVert w\rVert\lVert a\rVert$ is not above this number carry no weight.

    **Raises:**

    `ValueError` for another kind of network or negative thresholds.
    """
    model = check_network(model, "effective_width")
    floor = check_positive("floor", floor, zero=True, scalar=True).astype(model.first.dtype)
    _, group = _groups(model, angle)
    weight = jnp.linalg.norm(model.first, axis=1) * jnp.linalg.norm(model.second, axis=0)
    hidden = jnp.arange(weight.shape[0])
    total = jnp.sum(jnp.where(group[None, :] == hidden[:, None], weight[None, :], 0.0), axis=1)
    return jnp.sum(total > floor)


def _groups(model: TwoLayerNetwork, angle: ArrayLike) -> tuple[Float[Array, "hidden all"], Int[Array, " hidden"]]:
    """(w, a) of every unit, and the heaviest unit that each is parallel to; -1 for units that are zero."""
    angle = check_positive("angle", angle, zero=True, scalar=True).astype(model.first.dtype)
    units = jnp.concatenate([model.first, model.second.T], axis=1)
    norms = jnp.linalg.norm(units, axis=1)
    unit = units / jnp.where(norms == 0, 1.0, norms)[:, None]
    # By the chord, since a cosine would lose small angles.
    chords = jnp.linalg.norm(unit[:, None, :] - unit[None, :, :], axis=2)
    close = (chords <= 2 * jnp.sin(jnp.minimum(angle, np.pi) / 2)) & (norms > 0)[None, :] & (norms > 0)[:, None]
    order = jnp.argsort(-norms)

    def lead(k, group):
        """The heaviest unit without a group leads one of its own."""
        i = order[k]
        return jnp.where((group[i] < 0) & (group < 0) & close[i], i, group)

    return units, jax.lax.fori_loop(0, norms.shape[0], lead, jnp.full(norms.shape, -1, order.dtype))
