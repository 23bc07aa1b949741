"""How parameters move."""

import abc
from typing import Any, ClassVar, Generic, TypeVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ._task import AbstractSampledTask, AbstractTask

_State = TypeVar("_State")


class Objective(eqx.Module):
    r"""A task seen as a function of the model's trainable arrays; the `args` of every vector field.

    **Arguments:**

    - `task`: where the error comes from.
    - `static`: the rest of the model, as `equinox.partition(model, equinox.is_inexact_array)` leaves it.
    - `weight_decay`: $\gamma$ of a penalty $\tfrac\gamma2\lVert\theta\rVert^2$ beside the task's loss; `None` for none.
    """

    task: AbstractTask
    static: PyTree
    weight_decay: Float[Array, ""] | None = None

    def model(self, params: PyTree) -> PyTree:
        """The model with these trainable arrays."""
        return eqx.combine(params, self.static)

    def loss(self, params: PyTree) -> Float[Array, ""]:
        """The task's loss, and the penalty."""
        return self.with_penalty(self.task.loss(self.model(params)), params)

    def batch_loss(self, params: PyTree, batch: Any) -> Float[Array, ""]:
        """The task's loss on one batch, and the penalty.

        **Raises:**

        `ValueError` for a task without batches.
        """
        if not isinstance(self.task, AbstractSampledTask):
            raise ValueError(f"`task` must have batches (tx.AbstractSampledTask); got {type(self.task).__name__}.")
        return self.with_penalty(self.task.batch_loss(self.model(params), batch), params)

    def gradient(self, params: PyTree) -> PyTree:
        """The gradient of the loss."""
        return jax.grad(self.loss)(params)

    def penalised(self, weight_decay: Float[Array, ""]) -> "Objective":
        r"""The same with a penalty $\tfrac\gamma2\lVert\theta\rVert^2$: what a rule with weight decay descends."""
        return Objective(self.task, self.static, weight_decay)

    def with_penalty(self, loss: Float[Array, ""], params: PyTree) -> Float[Array, ""]:
        """A loss plus the penalty of these parameters."""
        if self.weight_decay is None:
            return loss
        squares = sum(jnp.sum(w**2).astype(loss.dtype) for w in jax.tree.leaves(params))
        return loss + self.weight_decay.astype(loss.dtype) / 2 * squares


class AbstractRule(eqx.Module):
    """A learning rule, in continuous or in discrete time."""


class AbstractFlowRule(AbstractRule, Generic[_State]):
    """A rule in continuous time: an (extended) state and the diffrax terms that move it.

    The vector fields take `(t, state, objective)`, so the same objects go to `diffrax.diffeqsolve` by hand with
    `args=objective`.

    `real_spectrum` says that the Jacobian of the one vector field has real eigenvalues, as that of a gradient has.
    `train` may then choose a method for stiff flows.
    """

    real_spectrum: ClassVar[bool] = False

    @abc.abstractmethod
    def init(self, params: PyTree) -> _State:
        """The state at time zero: the parameters, and whatever else the rule remembers (velocity, moments, …)."""

    @abc.abstractmethod
    def params(self, state: _State) -> PyTree:
        """The parameters within a state."""

    @abc.abstractmethod
    def terms(self, state: _State, t0: Any, t1: Any, *, key: PRNGKeyArray | None) -> PyTree[diffrax.AbstractTerm]:
        """The terms of the differential equation on `[t0, t1]`; random rules draw their path from `key`."""


class AbstractParameterFlow(AbstractFlowRule[PyTree]):
    """A flow whose state is the parameters alone; one ordinary differential equation, unless `terms` says otherwise."""

    @abc.abstractmethod
    def vector_field(self, t: Any, params: PyTree, objective: Objective) -> PyTree:
        """The velocity of the parameters."""

    def init(self, params: PyTree) -> PyTree:
        """The state is the parameters themselves."""
        return params

    def params(self, state: PyTree) -> PyTree:
        """The state is the parameters themselves."""
        return state

    def terms(self, state: PyTree, t0: Any, t1: Any, *, key: PRNGKeyArray | None) -> diffrax.ODETerm:
        """One `diffrax.ODETerm`."""
        del state, t0, t1, key
        return diffrax.ODETerm(self.vector_field)


class AbstractStepRule(AbstractRule, Generic[_State]):
    """A rule in discrete time: an update, and the flow time that one step takes."""

    time_per_step: eqx.AbstractVar[Float[Array, ""]]

    @abc.abstractmethod
    def init(self, params: PyTree) -> _State:
        """The optimiser state before the first step."""

    @abc.abstractmethod
    def step(
        self, params: PyTree, state: _State, objective: Objective, *, key: PRNGKeyArray | None
    ) -> tuple[PyTree, _State]:
        """One step."""

    @property
    @abc.abstractmethod
    def random(self) -> bool:
        """Whether `step` needs a key."""
