import jax.numpy as jnp

from tractax.deep_linear import DeepLinear, RegressionTask
from tractax.rules import ModifiedFlow, PrincipalFlow, QuadraticDescent
from tractax.systems import Run

from ._problem import Problem


def _run(knob, rule):
    """The knob is the learning rate. Fewer examples than parameters, so that one direction is flat."""
    dtype = knob.dtype
    model = DeepLinear((jnp.asarray([[-1.0, 0.8, 0.3]], dtype),))
    inputs = jnp.asarray([[1.5, 0.4, -0.2], [-0.6, 1.1, 0.5]], dtype)
    task = RegressionTask(inputs, jnp.asarray([[1.0], [-0.5]], dtype))
    solution = QuadraticDescent.from_model(model, task, rule(knob))
    return Run(model, task, rule(knob), solution, jnp.linspace(0, 12.0, 21).astype(dtype))


PROBLEMS = (
    Problem("quadratic_descent/order_3", lambda x: _run(x, lambda h: ModifiedFlow(h, 3)), 0.4),
    Problem("quadratic_descent/principal", lambda x: _run(x, PrincipalFlow), 0.5),
)
