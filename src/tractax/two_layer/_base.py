"""What the theories of two-layer networks ask of a model and its data."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..core import AbstractRule, Assumption, tolerance_for
from ..deep_linear import RegressionTask
from ..rules import GradientFlow, check_flow
from ._network import LeakyReLU, TwoLayerNetwork


class Layers(eqx.Module):
    """The weights of a two-layer network.

    **Attributes:**

    - `first`: $W_1$, shape `(hidden, in)`.
    - `second`: $W_2$, shape `(out, hidden)`.
    """

    first: Float[Array, "*times hidden in"]
    second: Float[Array, "*times out hidden"]


def check_network(model: Any, theory: str, *, relu: bool = False) -> TwoLayerNetwork:
    """The model, if it is a two-layer network without biases whose units are (leaky) rectifiers."""
    if not isinstance(model, TwoLayerNetwork):
        raise ValueError(f"`model` must be a TwoLayerNetwork for {theory}; got {type(model).__name__}.")
    if model.bias is not None:
        raise ValueError(f"`model` must have no bias for {theory}.")
    wanted = "relu" if relu else "leaky rectifier"
    if not isinstance(model.activation, LeakyReLU) or (relu and model.activation.slope != 0):
        raise ValueError(f"`model` must have {wanted} units for {theory}; got activation {model.activation}.")
    return model


def check_data(model: TwoLayerNetwork, task: Any) -> RegressionTask:
    """The task, if it is regression on data that the model fits."""
    if not isinstance(task, RegressionTask):
        raise ValueError(f"`task` must be a RegressionTask; got {type(task).__name__}.")
    n_in, _, n_out = model.sizes
    wanted = (task.inputs.shape[1], targets_of(task).shape[1])
    if (n_in, n_out) != wanted:
        raise ValueError(
            f"`model` must have {wanted[0]} inputs and {wanted[1]} outputs to fit `task`; got {n_in} and {n_out}."
        )
    return task


def check_single_output(
    theory: str, model: Any, task: Any, rule: AbstractRule | None
) -> tuple[TwoLayerNetwork, RegressionTask, GradientFlow]:
    """The case, if it is gradient flow of a rectifier network with one output on data."""
    model = check_network(model, theory, relu=True)
    if model.sizes[2] != 1:
        raise ValueError(f"`model` must have one output for {theory}; got {model.sizes[2]}.")
    return model, check_data(model, task), check_flow(rule, theory)


def targets_of(task: RegressionTask) -> Float[Array, "examples out"]:
    """The targets, one example a row."""
    return task.targets[:, None] if task.targets.ndim == 1 else task.targets


def sign_groups(task: RegressionTask) -> Bool[Array, "2 examples"]:
    """The examples with positive targets, and those with negative ones; a target of zero belongs to neither."""
    y = targets_of(task)[:, 0]
    return jnp.stack([y > 0, y < 0])


def orthogonal_inputs(task: RegressionTask) -> Assumption:
    """The inputs of different examples are orthogonal, and none is zero."""
    gram = task.inputs @ task.inputs.T
    norms = jnp.sqrt(jnp.diagonal(gram))
    safe = jnp.where(norms == 0, 1.0, norms)
    cosines = jnp.where(jnp.eye(norms.shape[0], dtype=bool), 0.0, gram / (safe[:, None] * safe[None, :]))
    violation = jnp.where(jnp.all(norms > 0), jnp.max(jnp.abs(cosines)), jnp.inf)
    return Assumption("orthogonal inputs, x_k·x_l = 0", violation, tolerance_for(gram))
