"""Online stochastic gradient descent, with the rates that high-dimensional limits ask for."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ..core import (
    AbstractSampledTask,
    AbstractStepRule,
    Assumption,
    Objective,
    check_count,
    check_key,
    check_positive,
)
from ._committee import SoftCommittee


class OnlineSGD(AbstractStepRule[None]):
    r"""Steps on fresh examples, $w \leftarrow w - \eta_w\nabla_w$ and $v \leftarrow v - (\eta_v/N)\nabla_v$.

    Gradients are those of half the squared error, averaged over the batch. One step takes the time $1/N$, so that the
    overlaps of the weights move by order one in a time of order one.

    **Arguments:**

    - `learning_rate`: $\eta_w > 0$, of the first layer; may be an array under `vmap`.
    - `size`: $N$, the number of inputs.
    - `readout_rate`: $\eta_v \ge 0$, of the second layer; zero leaves it as it is.
    - `batch_size`: how many examples, drawn afresh, one step sees.
    """

    learning_rate: Float[Array, ""]
    readout_rate: Float[Array, ""]
    time_per_step: Float[Array, ""]
    batch_size: int = eqx.field(static=True)

    def __init__(self, learning_rate: ArrayLike, size: int, *, readout_rate: ArrayLike = 0.0, batch_size: int = 1):
        for name, number in (("size", size), ("batch_size", batch_size)):
            check_count(name, number)
        self.learning_rate = check_positive("learning_rate", learning_rate, scalar=True)
        self.readout_rate = check_positive("readout_rate", readout_rate, zero=True, scalar=True)
        self.time_per_step = jnp.asarray(1 / size, self.learning_rate.dtype)
        self.batch_size = batch_size

    def time_assumption(self, size: int) -> Assumption:
        """That a step takes the time of limits for so many inputs, 1/N."""
        return Assumption("a step takes the time 1/N", jnp.abs(size * self.time_per_step - 1), 1e-5)

    @property
    def random(self) -> bool:
        """Every step draws its examples."""
        return True

    def init(self, params: Any) -> None:
        """Nothing to remember."""
        if not isinstance(params, SoftCommittee):
            raise ValueError(f"`model` must be a SoftCommittee for OnlineSGD; got {type(params).__name__}.")

    def step(
        self, params: SoftCommittee, state: None, objective: Objective, *, key: PRNGKeyArray | None
    ) -> tuple[SoftCommittee, None]:
        """One step on fresh examples."""
        check_key(key)
        task = objective.task
        if not isinstance(task, AbstractSampledTask):
            raise ValueError(f"`task` must be one that can be sampled for OnlineSGD; got {type(task).__name__}.")
        batch = task.sample(key, self.batch_size)
        gradient = jax.grad(lambda params: task.batch_loss(objective.model(params), batch))(params)
        dtype = params.weights.dtype
        weights = params.weights - self.learning_rate.astype(dtype) * gradient.weights
        readout_rate = (self.readout_rate * self.time_per_step).astype(dtype)
        readout = params.readout - readout_rate * gradient.readout
        return eqx.tree_at(lambda p: (p.weights, p.readout), params, (weights, readout)), state
