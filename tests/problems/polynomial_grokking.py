import jax
import jax.numpy as jnp

from tractax import GradientFlow
from tractax.systems import Run
from tractax.two_layer import PolynomialGrokking, PolynomialNetwork, PolynomialTask, QuadraticPolynomial

from ._problem import Problem


def _case(knob, examples):
    """The knob scales the outputs; the task is centred, and its target has a linear part."""
    dtype = knob.dtype
    keys = jax.random.split(jax.random.key(5), 4)
    draw = [jax.random.normal(key, shape).astype(dtype) for key, shape in zip(keys, ((5, 3), (3,), (3, 3)), strict=False)]
    model = PolynomialNetwork(draw[0], knob, jnp.asarray(0.5, dtype))
    target = QuadraticPolynomial(draw[1], draw[2] + draw[2].T)
    inputs = None if examples is None else jax.random.normal(keys[3], (examples, 3)).astype(dtype)
    task = PolynomialTask(target, inputs).centred(model)
    rule = GradientFlow(model.time_constant)
    solution = PolynomialGrokking.from_model(model, task, rule, t1=12.0)
    return Run(model, task, rule, solution, jnp.linspace(0, 10, 21).astype(dtype))


PROBLEMS = (
    # Where training ends, no conserved quantity tells.
    Problem("polynomial_grokking/examples", lambda knob: _case(knob, 5), 1.5, residual=1e-7, late=None, slow=True),
    Problem("polynomial_grokking/population", lambda knob: _case(knob, None), 1.5, residual=1e-7, late=None, slow=True),
)
