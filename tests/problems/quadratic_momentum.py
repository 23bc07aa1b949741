import jax.numpy as jnp

from tractax.deep_linear import DeepLinear, RegressionTask
from tractax.rules import HeavyBallFlow, NesterovFlow, QuadraticAcceleration
from tractax.systems import Run

from ._problem import Problem


def _run(knob, rule):
    """The knob is a coefficient of the rule. Fewer examples than parameters, so that one direction is flat."""
    dtype = knob.dtype
    model = DeepLinear((jnp.asarray([[-1.0, 0.8, 0.3]], dtype),))
    inputs = jnp.asarray([[1.5, 0.4, -0.2], [-0.6, 1.1, 0.5]], dtype)
    task = RegressionTask(inputs, jnp.asarray([[1.0], [-0.5]], dtype))
    solution = QuadraticAcceleration.from_model(model, task, rule(knob))
    return Run(model, task, rule(knob), solution, jnp.linspace(0, 12.0, 21).astype(dtype))


# The state lacks the velocities, so that it obeys no equation of its own.
PROBLEMS = (
    Problem("quadratic_momentum/oscillator", lambda x: _run(x, lambda s: NesterovFlow(s, 0.8)), 0.05, residual=None),
    Problem(
        "quadratic_momentum/bessel",
        lambda x: _run(x, lambda r: NesterovFlow(0.05, order=1, friction=r)),
        3.4,
        residual=None,
        late=1e6,
        slow=True,
    ),
    Problem(
        "quadratic_momentum/heavy_ball",
        lambda x: _run(x, lambda b: HeavyBallFlow(0.05, b, first_step=1.3, weight_decay=0.1)),
        0.7,
        residual=None,
        slow=True,
    ),
)
