import jax.numpy as jnp

from tractax.deep_linear import DeepLinear, RegressionTask
from tractax.rules import HalfSquare, LionKFlow, LionQuadratic
from tractax.systems import Run

from ._problem import Problem


def _run(knob):
    """The knob is the weight decay. Fewer examples than parameters, so that one direction is flat."""
    dtype = knob.dtype
    model = DeepLinear((jnp.asarray([[-1.0, 0.8, 0.3]], dtype),))
    inputs = jnp.asarray([[1.5, 0.4, -0.2], [-0.6, 1.1, 0.5]], dtype)
    task = RegressionTask(inputs, jnp.asarray([[1.0], [-0.5]], dtype))
    rule = LionKFlow(HalfSquare(), gradient_rate=1.3, momentum_decay=0.8, lookahead=0.5, weight_decay=knob)
    return Run(model, task, rule, LionQuadratic.from_model(model, task, rule), jnp.linspace(0, 12.0, 21).astype(dtype))


# The state lacks the momentum, so that it obeys no equation of its own.
PROBLEMS = (Problem("lion_k/quadratic", _run, 0.2, residual=None),)
