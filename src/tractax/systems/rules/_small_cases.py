"""What several systems share: a network that is not linear, a quadratic loss, and tight integration."""

from typing import Any

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ...core import AbstractFlowRule, AbstractRule
from ...deep_linear import DeepLinear, RegressionTask
from ...two_layer import TwoLayerNetwork


def tanh_network() -> tuple[TwoLayerNetwork, RegressionTask]:
    """A network of three hidden units with a bias, and four examples."""
    first = jnp.asarray([[0.9, -0.4], [-0.3, 0.8], [0.5, 0.6]])
    model = TwoLayerNetwork(first, jnp.asarray([0.7, -0.9, 0.4]), "tanh", bias=jnp.asarray([0.1, -0.2, 0.3]))
    inputs = jnp.asarray([[1.0, 0.5], [-0.7, 1.2], [0.4, -1.1], [-1.3, -0.6]])
    return model, RegressionTask(inputs, jnp.asarray([1.2, -0.8, 0.5, -1.0]))


def single_layer() -> tuple[DeepLinear, RegressionTask]:
    """A single linear layer, and examples whose covariance is not diagonal."""
    inputs = jnp.asarray([[1.5, 0.4], [-0.6, 1.1], [0.9, -0.7]])
    targets = jnp.asarray([[1.0], [-0.5], [0.3]])
    return DeepLinear((jnp.asarray([[-1.0, 0.8]]),)), RegressionTask(inputs, targets)


def flat(model: PyTree) -> Float[Array, " parameters"]:
    """All parameters of a model."""
    return ravel_pytree(eqx.filter(model, eqx.is_inexact_array))[0]


def tight(rule: AbstractRule) -> dict[str, Any]:
    """Options of `train` that integrate flows far more tightly than anything they are compared with."""
    if not isinstance(rule, AbstractFlowRule):
        return {}
    return {"solver": diffrax.Tsit5(), "stepsize_controller": diffrax.PIDController(rtol=1e-10, atol=1e-13)}
