import jax
import jax.numpy as jnp

from tractax import GradientFlow
from tractax.deep_linear import DeepLinear, LinearRegressionFlow, TeacherRegression
from tractax.systems import Run

from ._problem import Problem


def _run(knob, *, n_in, examples, weight_decay=0.0, time_constant=1.0, repeat=False, t1=20.0):
    """The knob scales the initial weights, the targets and the noise."""
    dtype = knob.dtype
    task = TeacherRegression.draw(n_in, examples, noise_scale=0.5, key=jax.random.key(3))
    inputs, targets, teacher = (x.astype(dtype) for x in (task.inputs, task.targets, task.teacher))
    if repeat:
        # Every example twice: a rank below the number of examples, with rounding in place of zero singular values.
        inputs = jnp.concatenate([inputs, inputs], axis=1)
        targets = jnp.concatenate([targets, 0.5 * targets])
    task = TeacherRegression(inputs, knob * targets, teacher, knob**2)
    model = DeepLinear((knob * jax.random.normal(jax.random.key(4), (1, n_in)).astype(dtype),))
    rule = GradientFlow(jnp.asarray(time_constant, dtype), jnp.asarray(weight_decay, dtype))
    solution = LinearRegressionFlow.from_model(model, task, rule)
    return Run(model, task, rule, solution, jnp.linspace(0, t1, 21).astype(dtype))


PROBLEMS = (
    Problem("linear_regression/more_examples", lambda x: _run(x, n_in=5, examples=9), 0.7),
    Problem("linear_regression/fewer_examples", lambda x: _run(x, n_in=9, examples=5, time_constant=0.5), 0.7),
    Problem("linear_regression/weight_decay", lambda x: _run(x, n_in=7, examples=4, weight_decay=0.3), 0.7),
    Problem("linear_regression/repeated_examples", lambda x: _run(x, n_in=6, examples=4, repeat=True), 0.7),
)
