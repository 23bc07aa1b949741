import jax
import jax.numpy as jnp

from tractax import GradientFlow
from tractax.systems import Run
from tractax.two_layer import ModularAddition, ModularModesFlow, ModularNetwork, PhaseLocking, gaussian_modular_network

from ._problem import Problem


def _case(knob):
    """The knob scales two random neurons, modulo 7."""
    draw = gaussian_modular_network(7, 2, scale=1.0, key=jax.random.key(0))
    model = ModularNetwork(knob * draw.embedding.astype(knob.dtype), knob * draw.readout.astype(knob.dtype))
    return model, ModularAddition(7, "correlation"), GradientFlow(0.5)


def _closed(knob):
    model, task, rule = _case(knob)
    solution = PhaseLocking.from_model(model, task, rule)
    return Run(model, task, rule, solution, jnp.linspace(0, 0.8, 21).astype(knob.dtype) * solution.t1)


def _integrated(knob):
    model, task, rule = _case(knob)
    solution = ModularModesFlow.from_model(model, task, rule, t1=4.0)
    return Run(model, task, rule, solution, jnp.linspace(0, 3.9, 21).astype(knob.dtype))


PROBLEMS = (
    # The modes diverge in finite time.
    Problem("modular_addition_modes/closed", _closed, 0.4, late=None),
    Problem("modular_addition_modes/integrated", _integrated, 0.4, residual=1e-7, late=None),
)
