r"""How much the order of two mini-batches matters.

A step of SGD on a batch $A$ and then one on $B$ end elsewhere than in the other order, by

$$\theta_{AB} - \theta_{BA} = \eta^2(H_Bg_A - H_Ag_B) + O(\eta^3),$$

with gradients $g$ and Hessians $H$ of the losses on the two batches. For quadratic losses nothing else is there.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import check_positive

BatchLoss = Callable[[PyTree, Any], Float[Array, ""]]


def step_commutator(
    model: PyTree, loss: BatchLoss, first: Any, second: Any, learning_rate: Float[ArrayLike, ""]
) -> PyTree:
    r"""$\theta_{AB} - \theta_{BA}$, by actually taking the two steps of SGD in both orders.

    A difference of numbers that agree up to $\eta^2$: use float64, or `gradient_bracket`, which has no differences.

    **Arguments:**

    - `model`: any Equinox module; its floating-point arrays are $\theta$.
    - `loss`: a function of a model and a batch, a number; `task.batch_loss` of a sampled task. Define it once, so that
      repeated calls reuse the compiled program.
    - `first`, `second`: the batches $A$ and $B$.
    - `learning_rate`: $\eta > 0$.

    **Returns:**

    The difference, the PyTree of the trainable arrays.

    **Raises:**

    `ValueError` if the model has no trainable arrays, the loss is no number or the learning rate is not positive.
    """
    return _commutator(model, loss, first, second, check_positive("learning_rate", learning_rate))


@eqx.filter_jit
def _commutator(model: PyTree, loss: BatchLoss, first: Any, second: Any, rate: Float[Array, ""]) -> PyTree:
    params, gradient = _gradients(model, loss, first)

    def step(params: PyTree, batch: Any) -> PyTree:
        return jax.tree.map(lambda w, g: w - rate.astype(w.dtype) * g, params, gradient(params, batch))

    forth, back = step(step(params, first), second), step(step(params, second), first)
    return jax.tree.map(jnp.subtract, forth, back)


def gradient_bracket(model: PyTree, loss: BatchLoss, first: Any, second: Any) -> PyTree:
    r"""$H_Bg_A - H_Ag_B$, what the commutator of two steps of SGD is to leading order, over $\eta^2$.

    By two products of a Hessian with a vector; no Hessian is formed. It is the Lie bracket of the two gradient flows, up
    to sign.

    **Arguments:**

    - `model`, `loss`, `first`, `second`: as for `step_commutator`.

    **Returns:**

    The bracket, the PyTree of the trainable arrays.

    **Raises:**

    `ValueError` if the model has no trainable arrays or the loss is no number.
    """
    return _bracket(model, loss, first, second)


@eqx.filter_jit
def _bracket(model: PyTree, loss: BatchLoss, first: Any, second: Any) -> PyTree:
    params, gradient = _gradients(model, loss, first)

    def curved(batch: Any, direction: PyTree) -> PyTree:
        return jax.jvp(lambda p: gradient(p, batch), (params,), (direction,))[1]

    of_first, of_second = gradient(params, first), gradient(params, second)
    return jax.tree.map(jnp.subtract, curved(second, of_first), curved(first, of_second))


def _gradients(model: PyTree, loss: BatchLoss, batch: Any) -> tuple[PyTree, Callable[[PyTree, Any], PyTree]]:
    """The trainable arrays, and the gradient as a function of them and of a batch."""
    params, static = eqx.partition(model, eqx.is_inexact_array)
    if not jax.tree.leaves(params):
        raise ValueError("`model` must have trainable arrays, of floating-point numbers; it has none.")

    def value(params: PyTree, batch: Any) -> Array:
        return loss(eqx.combine(params, static), batch)

    result = eqx.filter_eval_shape(value, params, batch)
    if getattr(result, "shape", None) != ():
        raise ValueError(f"`loss` must return a number, of shape (); got {result}.")
    return params, jax.grad(value)
