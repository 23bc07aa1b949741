import jax
import jax.numpy as jnp

from tractax import GradientFlow
from tractax.systems import Run
from tractax.teacher_student import ClassificationTask, Exponential, LinearClassifier, LogisticRegressionFlow

from ._problem import Problem


def _run(knob, margin_loss=None, *, scale=1.0, t1=50.0, **rule):
    """The knob scales the initial weights; one example vanishes."""
    dtype = knob.dtype
    rotation = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (6, 6)))[0].astype(dtype)
    lengths = jnp.asarray([0.5, 1.0, 2.0, 0.0], dtype)
    task = ClassificationTask(scale * lengths[:, None] * rotation[:4], jnp.asarray([1, -1, 1, -1]), margin_loss)
    model = LinearClassifier(knob * jax.random.normal(jax.random.key(1), (6,)).astype(dtype))
    flow = GradientFlow(**rule)
    solution = LogisticRegressionFlow.from_model(model, task, flow)
    return Run(model, task, flow, solution, jnp.linspace(0, t1, 21).astype(dtype))


PROBLEMS = (
    Problem("logistic_regression/logistic", lambda x: _run(x, time_constant=0.5), 1.5, late=None),
    Problem("logistic_regression/far_wrong", lambda x: _run(x, scale=10.0, rates=jnp.ones(1)), 5.0, late=None),
    Problem("logistic_regression/exponential", lambda x: _run(x, Exponential()), 1.5, late=None),
)
