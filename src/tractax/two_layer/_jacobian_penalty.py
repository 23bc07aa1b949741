r"""GrokAlign: any task with the size of the network's Jacobian in its loss.

Set-up. $L_\lambda = L + \lambda\,\tfrac1n\sum_i\lVert J(x_i)\rVert_F$ with $J = \partial f/\partial x$ at given inputs.

Theory. For a linear map $f = Wx$ on white inputs, $L = \tfrac12\lVert W - W_*\rVert_F^2$, the Jacobian is $W$ itself,
and the minimum is $W_*$ shrunk as a whole, $(1 - \lambda/\lVert W_*\rVert)_+W_*$. From a start along $W_*$ of norm $s_0$
gradient flow keeps the direction, and $\tau\dot s = \lVert W_*\rVert - \lambda - s$. For networks there is no such
solution.

Source: Walker, Humayun, Balestriero and Baraniuk 2025, arXiv 2506.12284; the linear case is derived here.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray, PyTree

from ..analysis import jacobian_norm, projected_jacobian_norm
from ..core import AbstractSampledTask, AbstractTask, check_count, check_matrix, check_positive


class JacobianPenalty(AbstractSampledTask):
    r"""A task with $\lambda\,\tfrac1n\sum_i\lVert J(x_i)\rVert_F$ added to its loss.

    On mini-batches the penalty of as many inputs, drawn on their own, is estimated with random projections, which is
    biased: use many of them where the exact minimum matters.

    **Arguments:**

    - `task`: any task.
    - `inputs`: $x_i$, where the Jacobian is taken, one example a row.
    - `strength`: $\lambda \ge 0$.
    - `projections`: how many projections estimate the norm of a Jacobian on a mini-batch; `None` for the norm itself.

    **Raises:**

    `ValueError` for another kind of task, NaN, a negative strength or fewer than one projection.
    """

    task: AbstractTask
    inputs: Float[Array, "inputs in"]
    strength: Float[Array, ""]
    projections: int | None = eqx.field(static=True)

    def __init__(self, task: PyTree, inputs: ArrayLike, strength: ArrayLike, *, projections: int | None = None):
        if not isinstance(task, AbstractTask):
            raise ValueError(f"`task` must be a task, a subclass of tx.AbstractTask; got {type(task).__name__}.")
        self.task = task
        self.inputs = check_matrix("inputs", inputs)
        self.strength = check_positive("strength", strength, zero=True, scalar=True).astype(self.inputs.dtype)
        self.projections = None if projections is None else check_count("projections", projections)

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """The loss of the task, and the exact penalty."""
        return self.task.loss(model) + self.strength * jacobian_norm(model, self.inputs)

    def sample(self, key: PRNGKeyArray, batch: int) -> tuple[Any, Int[Array, " batch"], PRNGKeyArray]:
        """A batch of the task, the indices of as many inputs, drawn with replacement, and a key for the projections."""
        if not isinstance(self.task, AbstractSampledTask):
            raise ValueError(f"`task` must be one that can be sampled for mini-batches; got {type(self.task).__name__}.")
        examples, inputs, projections = jax.random.split(key, 3)
        indices = jax.random.randint(inputs, (batch,), 0, self.inputs.shape[0])
        return self.task.sample(examples, batch), indices, projections

    def batch_loss(self, model: PyTree, batch: tuple[Any, Int[Array, " batch"], PRNGKeyArray]) -> Float[Array, ""]:
        """The loss of the batch, and the penalty of its inputs."""
        examples, indices, key = batch
        task: Any = self.task
        inputs = self.inputs[indices]
        if self.projections is None:
            penalty = jacobian_norm(model, inputs)
        else:
            penalty = projected_jacobian_norm(model, inputs, projections=self.projections, key=key)
        return task.batch_loss(model, examples) + self.strength * penalty


def shrunk_map(target: Float[ArrayLike, "out in"], strength: ArrayLike) -> Float[Array, "out in"]:
    r"""$(1 - \lambda/\lVert W_*\rVert_F)_+W_*$: the linear map that a `JacobianPenalty` leaves on white inputs.

    **Arguments:**

    - `target`: $W_*$.
    - `strength`: $\lambda \ge 0$.
    """
    target = check_matrix("target", target)
    strength = check_positive("strength", strength, zero=True, scalar=True).astype(target.dtype)
    size = jnp.linalg.norm(target)
    return jnp.where(size > strength, 1 - strength / jnp.where(size > 0, size, 1.0), 0.0) * target
