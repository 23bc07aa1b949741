import jax.numpy as jnp

import tractax as tx
from tractax.rules import EquilibriumNetwork, HomeostasisFlow, HomeostasisTask
from tractax.systems import Run

from ._problem import Problem


def _run(knob):
    """The knob is the strength."""
    dtype = knob.dtype
    model = EquilibriumNetwork(jnp.asarray([[0.2, 0.9, -0.4], [-0.3, 0.1, 0.5], [0.6, 0.2, -0.5]], dtype))
    task = HomeostasisTask(jnp.asarray([[1.0, 0.0, -0.5]], dtype), knob)
    rule = tx.GradientFlow(time_constant=2.0, weight_decay=0.1)
    solution = HomeostasisFlow.from_model(model, task, rule)
    return Run(model, task, rule, solution, jnp.linspace(0, 12.0, 21).astype(dtype))


PROBLEMS = (Problem("equilibrium_propagation/homeostasis", _run, 0.3),)
