r"""Epochs of mini-batches in random order, and the flow that their mean follows.

Set-up: the data are split into $m$ batches with losses $C_i$, and every epoch goes through all of them once, in an order
drawn anew, with steps $\theta\leftarrow\theta - h\nabla C_i$. The end of an epoch, averaged over all $m!$ orders, lies up
to $O(h^3)$ on the flow of

$$\bar C + \frac h{4m}\sum_i\lVert\nabla C_i\rVert^2,\qquad \bar C = \frac1m\sum_iC_i,$$

which penalises the spread of the batches' gradients beside that of full descent. Without the penalty it does so up to
$O(h^2)$.

Assumes losses that are smooth where training passes. Time: a step takes the flow time $h$, an epoch $mh$.

Source: Smith, Dherin, Barrett, De 2021 (arXiv 2101.12176).
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray, PyTree

from ...core import AbstractParameterFlow, AbstractStepRule, Objective, check_key, check_positive
from ._modified_flow import check_order
from ._weight_decay import check_decay


class ReshuffledDescent(AbstractStepRule[tuple[Int[Array, " batches"], Int[Array, ""]]]):
    r"""Gradient descent through all batches in random order, drawn anew at every epoch. `tx.train` needs a `key`.

    One step is one batch and takes the flow time `learning_rate`.

    **Arguments:**

    - `learning_rate`: $h > 0$; may be an array under `vmap`.
    - `batches`: the batches, stacked: a PyTree of arrays with a leading axis of $m$, each entry of which the task's
      `batch_loss` takes. For tasks on a data set that is an array of indices, shape `(m, batch)`, such as
      `jnp.arange(examples).reshape(m, -1)`.
    - `weight_decay`: $\gamma \ge 0$, the coefficient of the penalty $\tfrac\gamma2\lVert\theta\rVert^2$.

    **Raises:**

    `ValueError` for a learning rate that is not positive, no batches, or a negative decay.
    """

    time_per_step: Float[Array, ""]
    weight_decay: Float[Array, ""]
    batches: PyTree

    def __init__(self, learning_rate: ArrayLike, batches: PyTree, *, weight_decay: ArrayLike = 0.0):
        self.time_per_step = check_positive("learning_rate", learning_rate, scalar=True)
        self.weight_decay = check_decay(weight_decay)
        self.batches = _check_batches(batches)

    @property
    def learning_rate(self) -> Float[Array, ""]:
        """$h$."""
        return self.time_per_step

    @property
    def random(self) -> bool:
        """Every epoch draws its order."""
        return True

    def init(self, params: PyTree) -> tuple[Int[Array, " batches"], Int[Array, ""]]:
        """The order of this epoch, and how much of it is done: an epoch that is over."""
        del params
        count = _count(self.batches)
        return jnp.arange(count), jnp.asarray(count)

    def step(
        self,
        params: PyTree,
        state: tuple[Int[Array, " batches"], Int[Array, ""]],
        objective: Objective,
        *,
        key: PRNGKeyArray | None,
    ) -> tuple[PyTree, tuple[Int[Array, " batches"], Int[Array, ""]]]:
        """One batch."""
        check_key(key)
        order, done = state
        over = done == order.shape[0]
        order = jax.lax.cond(over, lambda: jax.random.permutation(key, order), lambda: order)
        done = jnp.where(over, 0, done)
        batch = jax.tree.map(lambda x: x[order[done]], self.batches)
        gradient = jax.grad(objective.penalised(self.weight_decay).batch_loss)(params, batch)
        params = jax.tree.map(lambda w, g: w - self.time_per_step.astype(w.dtype) * g, params, gradient)
        return params, (order, done + 1)


class ReshuffledFlow(AbstractParameterFlow):
    r"""The flow on which epochs of `ReshuffledDescent` end, averaged over all orders, up to $O(h^{p+1})$ an epoch.

    Compare at the ends of epochs, $t = mhk$. Order 1 is the gradient flow of the mean of the batches.

    **Arguments:**

    - `learning_rate`, `batches`, `weight_decay`: as for `ReshuffledDescent`.
    - `order`: $p$, 1 or 2.

    **Raises:**

    `ValueError` for a learning rate that is not positive, no batches, another order, or a negative decay.
    """

    learning_rate: Float[Array, ""]
    weight_decay: Float[Array, ""]
    batches: PyTree
    order: int = eqx.field(static=True)

    def __init__(self, learning_rate: ArrayLike, batches: PyTree, order: PyTree = 2, *, weight_decay: ArrayLike = 0.0):
        self.learning_rate = check_positive("learning_rate", learning_rate, scalar=True)
        self.weight_decay = check_decay(weight_decay)
        self.batches = _check_batches(batches)
        self.order = check_order(order, 2)

    def vector_field(self, t: Any, params: PyTree, objective: Objective) -> PyTree:
        """The velocity of the parameters."""
        del t
        slope = jax.grad(objective.penalised(self.weight_decay).batch_loss)

        def descent(batch: Any) -> PyTree:
            if self.order == 1:
                return slope(params, batch)
            gradient, product = jax.linearize(lambda params: slope(params, batch), params)
            half = self.learning_rate / 2
            return jax.tree.map(lambda g, hg: g + half.astype(g.dtype) * hg, gradient, product(gradient))

        return jax.tree.map(lambda x: -jnp.mean(x, axis=0), jax.vmap(descent)(self.batches))


def _check_batches(batches: PyTree) -> PyTree:
    batches = jax.tree.map(jnp.asarray, batches)
    sizes = {leaf.shape[:1] for leaf in jax.tree.leaves(batches)}
    if len(sizes) != 1 or sizes & {(), (0,)}:
        raise ValueError(f"`batches` must hold arrays with one leading axis of batches; got leading sizes {sizes}.")
    return batches


def _count(batches: PyTree) -> int:
    return jax.tree.leaves(batches)[0].shape[0]
