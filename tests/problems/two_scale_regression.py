import jax
import jax.numpy as jnp

from tractax import GradientFlow
from tractax.systems import Run
from tractax.teacher_student import GaussianRegression, LeastSquaresPath, LinearModel, RegressionSample

from ._problem import Problem


def _run(knob, *, size, examples, time_constant=1.0, t1=20.0):
    """The knob scales the initial weights and the labels."""
    dtype = knob.dtype
    inputs, labels = GaussianRegression(jnp.ones(size), noise_scale=0.5).sample(jax.random.key(3), examples)
    population = GaussianRegression(jnp.ones(size, dtype), noise_scale=0.5)
    task = RegressionSample(population, inputs, knob * labels.astype(dtype))
    model = LinearModel(knob * jnp.linspace(-1.0, 0.5, size).astype(dtype))
    rule = GradientFlow(jnp.asarray(time_constant, dtype))
    solution = LeastSquaresPath.from_model(model, task, rule)
    return Run(model, task, rule, solution, jnp.linspace(0, t1, 21).astype(dtype))


# The state is not closed: it holds the risk, whose derivative depends on more than the state.
PROBLEMS = (
    Problem("two_scale_regression/more_examples", lambda x: _run(x, size=4, examples=12), 0.7, residual=None),
    Problem(
        "two_scale_regression/fewer_examples",
        lambda x: _run(x, size=9, examples=5, time_constant=0.5),
        0.7,
        residual=None,
    ),
)
