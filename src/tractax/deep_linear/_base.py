"""What the exact solutions of deep linear networks have in common: they predict the input-output map."""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..core import AbstractRule, AbstractSolution, Assumption, relative_norm, tolerance_for
from ..rules import check_flow as check_flow
from ..rules import no_weight_decay as no_weight_decay
from ._network import DeepLinear
from ._task import LinearTask


class AbstractLinearSolution(AbstractSolution):
    """A solution that knows the product of the weights, and with it the loss and the strength of every mode."""

    task: eqx.AbstractVar[LinearTask]

    @classmethod
    @abc.abstractmethod
    def assumptions(cls, model: Any, task: Any, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """How far the case is from what the solution takes for granted."""

    @abc.abstractmethod
    def product_of(self, state: Any) -> Float[Array, "out in"]:
        """The input-output map $W_L \\cdots W_1$ in a given state."""

    def product(self, t: ArrayLike) -> Float[Array, "out in"]:
        """The input-output map at one time."""
        return self.product_of(self.evaluate(t))

    def loss(self, t: ArrayLike) -> Float[Array, ""]:
        """The task's loss at one time."""
        return self.task.loss_of_map(self.product(t))


class Product(eqx.Module):
    """The input-output map of a linear network.

    **Attributes:**

    - `product`: $W_L \\cdots W_1$, shape `(out, in)`.
    """

    product: Float[Array, "out in"]


def check_layers(model: Any, task: LinearTask, depth: int | None = None) -> DeepLinear:
    """The model, if it is a `DeepLinear` network that fits the task."""
    if not isinstance(model, DeepLinear):
        raise ValueError(f"`model` must be a DeepLinear network; got {type(model).__name__}.")
    if not isinstance(task, LinearTask):
        raise ValueError(f"`task` must be a LinearTask; got {type(task).__name__}.")
    if depth is not None and model.depth != depth:
        raise ValueError(f"`model` must have {depth} layers of weights; got {model.depth}.")
    n_out, n_in = task.optimum.shape
    if (model.sizes[-1], model.sizes[0]) != (n_out, n_in):
        raise ValueError(
            f"`model` must have {n_in} inputs and {n_out} outputs to fit `task`; got {model.sizes[0]} and "
            f"{model.sizes[-1]}."
        )
    return model


def whitened(task: LinearTask) -> Assumption:
    """The inputs have unit covariance."""
    if task.input_covariance is None:
        return Assumption("whitened inputs, Σxx = I", jnp.zeros((), task.optimum.dtype), tolerance_for(task.optimum))
    identity = jnp.eye(task.input_covariance.shape[0], dtype=task.optimum.dtype)
    violation = relative_norm(task.input_covariance - identity, identity)
    return Assumption("whitened inputs, Σxx = I", violation, tolerance_for(task.optimum))


def balance_matrices(model: DeepLinear) -> tuple[Float[Array, "_ _"], ...]:
    r"""$D_l = W_{l+1}^\top W_{l+1} - W_l W_l^\top$, one matrix for each hidden layer; gradient flow conserves them."""
    return tuple(
        after.T @ after - before @ before.T for before, after in zip(model.weights[:-1], model.weights[1:], strict=True)
    )
