import jax.numpy as jnp

import tractax as tx
from tractax.rules import EntropyTask, KnowledgeFlow, KnowledgeLayer
from tractax.systems import Run

from ._problem import Problem


def _run(knob):
    """The knob scales the initial weights. One unit sits where nothing moves."""
    dtype = knob.dtype
    model = KnowledgeLayer(knob * jnp.asarray([[0.5, -0.2, 0.1], [1.2, 0.7, -1.0], [0.0, 0.0, 2.0]], dtype))
    task = EntropyTask(jnp.asarray([[1.0, 1.0, 0.0], [-1.5, 1.5, 0.0]], dtype))
    rule = tx.GradientFlow(time_constant=0.5)
    solution = KnowledgeFlow.from_model(model, task, rule)
    return Run(model, task, rule, solution, jnp.linspace(0, 20.0, 21).astype(dtype))


PROBLEMS = (Problem("structured_knowledge/three_units", _run, 0.8, late=None),)
