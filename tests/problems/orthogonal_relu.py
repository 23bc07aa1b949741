import jax
import jax.numpy as jnp

from tractax import GradientFlow
from tractax.deep_linear import RegressionTask
from tractax.systems import Run
from tractax.two_layer import OrthogonalReLUFlow, PatternFixedReLU, TwoLayerNetwork, balanced_units

from ._problem import Problem


def _task(dtype):
    c, s = 0.8, 0.6
    inputs = jnp.asarray([[c, s, 0, 0, 0], [-s, c, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, c, s]], dtype)
    norms = jnp.asarray([1.5, 1.5, 0.7, 0.7], dtype)
    return RegressionTask(inputs * norms[:, None], jnp.asarray([1, 0.4, -0.9, -1], dtype))


def _groups(knob):
    """The knob scales two parallel positive units and a negative one; the norms of the inputs differ between signs."""
    dtype = knob.dtype
    task = _task(dtype)
    along = jnp.asarray([[0.3, 0.5, 0, 0], [0.6, 1.0, 0, 0], [0, 0, 1.0, 0.2]], dtype)
    first = knob * along @ task.inputs
    signs = jnp.asarray([1, 1, -1], dtype)
    model = TwoLayerNetwork(first, signs * jnp.linalg.norm(first, axis=1))
    rule = GradientFlow(0.5)
    return Run(model, task, rule, PatternFixedReLU.from_model(model, task, rule), jnp.linspace(0, 30, 21).astype(dtype))


def _random(knob):
    """The knob scales six random units; several fall silent on the way."""
    dtype = knob.dtype
    task = _task(dtype)
    draw = balanced_units(5, 6, scale=1.0, key=jax.random.key(3))
    model = TwoLayerNetwork(*(knob * x.astype(dtype) for x in (draw.first, draw.second)))
    rule = GradientFlow(0.5)
    solution = OrthogonalReLUFlow.from_model(model, task, rule, t1=12.0)
    return Run(model, task, rule, solution, jnp.linspace(0, 10, 21).astype(dtype))


PROBLEMS = (
    Problem("orthogonal_relu/groups", _groups, 0.1),
    # Which interpolation it ends at, no conserved quantity tells.
    Problem("orthogonal_relu/random", _random, 0.3, residual=1e-7, late=None),
)
