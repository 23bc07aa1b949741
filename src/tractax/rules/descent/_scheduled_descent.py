"""Gradient descent with a learning rate of its own for every step."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray, PyTree

from ...core import AbstractStepRule, Objective, check_matrix, check_positive
from ._batch_loss import check_batch_size, loss_seen
from ._weight_decay import check_decay


class ScheduledDescent(AbstractStepRule[Int[Array, ""]]):
    r"""$\theta\leftarrow\theta - \eta_k\nabla L(\theta)$ with given rates, on the full loss or on mini-batches.

    Unlike an optax schedule the rates are an array, which may be differentiated and vmapped. Time is counted in steps.

    **Arguments:**

    - `rates`: $\eta_0, \eta_1, …$, not negative, shape `(steps,)`; the last one holds for all later steps.
    - `batch_size`: `None` for the full loss, or the number of examples drawn afresh at each step; the task must then be
      an `AbstractSampledTask`.
    - `weight_decay`: $\gamma \ge 0$, the coefficient of the penalty $\tfrac\gamma2\lVert\theta\rVert^2$.

    **Raises:**

    `ValueError` for rates that are negative or not an array of one axis, a batch size below one or a negative decay.
    """

    rates: Float[Array, " steps"]
    time_per_step: Float[Array, ""]
    weight_decay: Float[Array, ""]
    batch_size: int | None = eqx.field(static=True)

    def __init__(self, rates: ArrayLike, *, batch_size: PyTree = None, weight_decay: ArrayLike = 0.0):
        self.rates = check_positive("rates", check_matrix("rates", rates, (None,)), zero=True)
        self.time_per_step = jnp.ones_like(self.rates[0])
        self.weight_decay = check_decay(weight_decay)
        self.batch_size = check_batch_size(batch_size)

    @property
    def random(self) -> bool:
        """Whether a step draws a mini-batch."""
        return self.batch_size is not None

    def init(self, params: PyTree) -> Int[Array, ""]:
        """The number of steps made."""
        del params
        return jnp.asarray(0, jnp.int32)

    def step(
        self, params: PyTree, state: Int[Array, ""], objective: Objective, *, key: PRNGKeyArray | None
    ) -> tuple[PyTree, Int[Array, ""]]:
        """One step at its own rate."""
        rate = self.rates[jnp.minimum(state, self.rates.shape[0] - 1)]
        gradient = jax.grad(loss_seen(objective.penalised(self.weight_decay), self.batch_size, key))(params)
        return jax.tree.map(lambda w, g: w - rate.astype(w.dtype) * g, params, gradient), state + 1
