import jax.numpy as jnp

from tractax import GradientFlow
from tractax.systems import Run
from tractax.transformers import FreeLogits, FreeLogitsSolution, LabelTask

from ._problem import Problem


def _free(knob):
    """The knob scales the logits at the start."""
    model = FreeLogits(knob * jnp.asarray([1.0, -2.0, 0.5, 0.0], knob.dtype))
    task, rule = LabelTask(1), GradientFlow(0.5)
    ts = jnp.linspace(0, 20, 21).astype(knob.dtype)
    return Run(model, task, rule, FreeLogitsSolution.from_model(model, task, rule), ts)


PROBLEMS = (Problem("transformer_stability/free_logits", _free, 1.3, late=None),)
