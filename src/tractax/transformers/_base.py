"""What the solutions of linear attention have in common: they predict the effective map."""

import abc
from typing import Any, TypeVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..core import AbstractSolution, Assumption, relative_norm, tolerance_for
from ._in_context_regression import InContextRegression
from ._linear_attention import AbstractLinearAttention


class AbstractHeads(eqx.Module):
    """The weights that reach the prediction, and move."""

    @property
    @abc.abstractmethod
    def effective_map(self) -> Float[Array, "*times inputs inputs"]:
        """$A$; of a recorded trajectory, at every time."""


_State = TypeVar("_State", bound=AbstractHeads)
_Model = TypeVar("_Model", bound=AbstractLinearAttention)


class AbstractAttentionSolution(AbstractSolution[_State]):
    """A solution that knows the effective map, and with it the risk on the training task and on any other."""

    task: eqx.AbstractVar[InContextRegression]

    def effective_map(self, t: ArrayLike) -> Float[Array, "inputs inputs"]:
        """$A$ at one time."""
        return self.evaluate(t).effective_map

    def loss(self, t: ArrayLike) -> Float[Array, ""]:
        """The task's loss at one time, half the mean squared error."""
        return self.task.loss_of_map(self.effective_map(t))

    def risk(self, t: ArrayLike, task: InContextRegression | None = None) -> Float[Array, ""]:
        """The mean squared error (no ½) at one time, on another task than that of training if one is given."""
        return (self.task if task is None else task).risk_of_map(self.effective_map(t))


def check_attention(model: Any, task: Any, kind: type[_Model]) -> _Model:
    """The model, if it is of this kind and fits the task."""
    if not isinstance(task, InContextRegression):
        raise ValueError(f"`task` must be an InContextRegression; got {type(task).__name__}.")
    if not isinstance(model, kind):
        raise ValueError(f"`model` must be a {kind.__name__} network; got {type(model).__name__}.")
    if model.inputs != task.inputs:
        raise ValueError(f"`model` must have {task.inputs} inputs to fit `task`; got {model.inputs}.")
    return model


def uncoupled(model: AbstractLinearAttention) -> Assumption:
    """Inputs and labels do not mix: the flow then leaves these weights at zero."""
    mixing = jnp.concatenate([jnp.ravel(x) for x in model.couplings])
    rest = jnp.concatenate([jnp.ravel(model.value[:, -1, -1]), jnp.ravel(model.key_query[:, :-1, :-1])])
    name = "zero weights between inputs and labels (`couplings`)"
    return Assumption(name, relative_norm(mixing, rest), tolerance_for(mixing))


def leaves_zero(velocity: Array, effective_map: Array) -> Assumption:
    """The start is not the saddle at zero, from which nothing moves."""
    stuck = jnp.all(velocity == 0) & jnp.all(effective_map == 0)
    return Assumption("weights that move: not the saddle at zero", jnp.where(stuck, jnp.inf, 0.0), 0.0)
