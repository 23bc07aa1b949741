import jax.numpy as jnp

import tractax as tx
from tractax.rules import CertainToken, TokenLogit, TokenTask
from tractax.systems import Run

from ._problem import Problem


def _run(knob):
    """The knob is the logit at the start."""
    model, task = TokenLogit(knob), TokenTask(jnp.ones((), knob.dtype))
    solution = CertainToken.from_model(model, task)
    return Run(model, task, tx.GradientFlow(), solution, jnp.linspace(0.0, 20.0, 21).astype(knob.dtype))


PROBLEMS = (Problem("certain_token/wrong_start", _run, -3.0, late=None),)
