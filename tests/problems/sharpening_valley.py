import jax.numpy as jnp

from tractax.rules import CentralFlow, SharpeningValley, SharpeningValleyFlow, ValleyPoint
from tractax.systems import Run

from ._problem import Problem


def _run(knob):
    """The knob is the slope of the valley."""
    z, eta = jnp.asarray(1.0, knob.dtype), jnp.asarray(0.25, knob.dtype)
    model = ValleyPoint(0 * z, 2 / eta - z**2, z)
    task, rule = SharpeningValley(knob, 0 * z + 0.3, 0 * z + 2.0), CentralFlow(eta)
    solution = SharpeningValleyFlow.from_model(model, task, rule)
    return Run(model, task, rule, solution, jnp.linspace(0.0, 12.0, 21).astype(knob.dtype))


PROBLEMS = (Problem("sharpening_valley/from_the_edge", _run, 0.5, slow=True),)
