"""Gradient descent with a learning rate of its own for every step."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray, PyTree

from ...core import AbstractSampledTask, AbstractStepRule, Objective, check_key, check_matrix, check_positive


class ScheduledDescent(AbstractStepRule[Int[Array, ""]]):
    r"""$\theta\leftarrow\theta - \eta_k\nabla L(\theta)$ with given rates, on the full loss or on mini-batches.

    Unlike an optax schedule the rates are an array, which may be differentiated and vmapped. Time is counted in steps.

    **Arguments:**

    - `rates`: $\eta_0, \eta_1, …$, not negative, shape `(steps,)`; the last one holds for all later steps.
    - `batch_size`: `None` for the full loss, or the number of examples drawn afresh at each step; the task must then be
      an `AbstractSampledTask`.

    **Raises:**

    `ValueError` for rates that are negative or not an array of one axis, or a batch size below one.
    """

    rates: Float[Array, " steps"]
    time_per_step: Float[Array, ""]
    batch_size: int | None = eqx.field(static=True)

    def __init__(self, rates: ArrayLike, *, batch_size: PyTree = None):
        self.rates = check_positive("rates", check_matrix("rates", rates, (None,)), zero=True)
        if batch_size is not None and (isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1):
            raise ValueError(
                f"`batch_size` must be a whole number of at least 1, or None for the full loss; got {batch_size!r}."
            )
        self.time_per_step = jnp.ones_like(self.rates[0])
        self.batch_size = batch_size

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
        gradient = self._gradient(params, objective, key)
        return jax.tree.map(lambda w, g: w - rate.astype(w.dtype) * g, params, gradient), state + 1

    def _gradient(self, params: PyTree, objective: Objective, key: PRNGKeyArray | None) -> Any:
        if self.batch_size is None:
            return objective.gradient(params)
        check_key(key)
        task = objective.task
        if not isinstance(task, AbstractSampledTask):
            raise ValueError(
                f"`batch_size` needs a task that can be sampled (tx.AbstractSampledTask); got {type(task).__name__}."
            )
        batch = task.sample(key, self.batch_size)
        return jax.grad(lambda params: task.batch_loss(objective.model(params), batch))(params)
