"""Learning rates of hidden matrices in inverse proportion to their fan-in.

The part of maximal-update parametrisation that matters most: with Adam, whose updates have entries of one size at any
width, a step then changes hidden features by as much in wide networks as in narrow ones, and learning rates found on
narrow networks serve wide ones. Embeddings, readouts, biases and gains keep the learning rate as it is.

Source: Wortsman et al. 2023, arXiv 2309.14322, where it is called simple muParam.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import optax
from jaxtyping import Array, ArrayLike, PyTree

from ...core import check_positive


def scale_by_fan_in(hidden: Callable[[PyTree], Any], base_fan_in: ArrayLike = 1.0) -> optax.GradientTransformation:
    """An optax transformation that multiplies the updates of hidden matrices by `base_fan_in / fan_in`.

    Chain it after an optimiser; it works with any model:

    ```python
    optimiser = lambda rate: optax.chain(optax.adam(rate), tx.rules.scale_by_fan_in(lambda m: (m.query, m.key), 64))
    rule = tx.GradientDescent(0.01, optimiser)
    ```

    **Arguments:**

    - `hidden`: a function from the model to its hidden matrices (any PyTree of them), as in `equinox.tree_at`. They act
      on their last axis, whose length is the fan-in; matrices may be stacked, shape `(..., out, in)`.
    - `base_fan_in`: the fan-in at which the learning rate stays as it is.

    **Returns:**

    An `optax.GradientTransformation` without state.

    **Raises:**

    `ValueError` for a `base_fan_in` that is not positive, or, once it is used, if `hidden` chooses anything but matrices.
    """
    base = check_positive("base_fan_in", base_fan_in, scalar=True)

    def scaled(update: Any) -> Array:
        if not eqx.is_inexact_array(update) or update.ndim < 2:
            what = f"an array of shape {update.shape}" if eqx.is_array(update) else repr(update)
            raise ValueError(f"`hidden` must choose trainable matrices of the model; got {what}.")
        return update * (base.astype(update.dtype) / update.shape[-1])

    def update(updates: PyTree, state: PyTree, params: PyTree | None = None) -> tuple[PyTree, PyTree]:
        del params
        chosen = jax.tree.leaves(hidden(updates), is_leaf=lambda x: x is None)
        return eqx.tree_at(lambda tree: jax.tree.leaves(hidden(tree)), updates, [scaled(x) for x in chosen]), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
