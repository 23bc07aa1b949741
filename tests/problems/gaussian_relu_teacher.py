import jax.numpy as jnp

from tractax import GradientFlow
from tractax.systems import Run
from tractax.two_layer import GaussianReLUTask, ReLUUnitFlow, TwoLayerNetwork

from ._problem import Problem


def _unit(knob, rates, negative=1):
    """The knob scales a unit in three dimensions, at an obtuse angle to its teacher."""
    dtype = knob.dtype
    teacher = TwoLayerNetwork(jnp.asarray([[1.2, 0.3, 0]], dtype), jnp.asarray([negative * 0.8], dtype))
    model = TwoLayerNetwork(knob * jnp.asarray([[-0.5, 0.6, 0.4]], dtype), jnp.asarray([negative * 0.9], dtype))
    task, rule = GaussianReLUTask(teacher), GradientFlow(0.5, rates=jnp.asarray(rates, dtype))
    solution = ReLUUnitFlow.from_model(model, task, rule, t1=60.0)
    return Run(model, task, rule, solution, jnp.linspace(0, 10, 21).astype(dtype))


PROBLEMS = (
    Problem("gaussian_relu_teacher/both_layers", lambda k: _unit(k, (1, 0.7)), 0.7, residual=1e-7, late=60.0),
    Problem("gaussian_relu_teacher/kept_readout", lambda k: _unit(k, (1, 0), -1), 0.7, residual=1e-7, late=60.0),
)
