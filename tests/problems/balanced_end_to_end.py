import itertools

import jax
import jax.numpy as jnp
import numpy as np

from tractax import GradientFlow
from tractax.deep_linear import BalancedEndToEnd, DeepLinear, LinearTask, MapTask
from tractax.systems import Run

from ._problem import Problem


def _layers(values, sizes, dtype):
    """Balanced layers whose product has these singular values, and random singular vectors."""
    generator = np.random.default_rng(0)
    bases = [jnp.asarray(np.linalg.qr(generator.normal(size=(n, values.shape[0])))[0], dtype) for n in sizes]
    roots = values ** (1 / (len(sizes) - 1))
    return DeepLinear(tuple((after * roots[None, :]) @ before.T for before, after in itertools.pairwise(bases)))


def _run(model, task, t1, horizon, **rule):
    flow = GradientFlow(**rule)
    dtype = model.weights[0].dtype
    solution = BalancedEndToEnd.from_model(model, task, flow, t1=horizon)
    return Run(model, task, flow, solution, jnp.linspace(0, t1, 21).astype(dtype))


def _bottleneck(knob):
    dtype = knob.dtype
    target = jnp.asarray([[1.5, -0.5, 0.2, 0.1], [0.3, 1.0, 0.4, 0.0], [0.2, 0.1, 0.4, 0.5]], dtype)
    covariance = jnp.asarray([[1, 0.3, 0, 0], [0.3, 0.7, -0.2, 0], [0, -0.2, 1.4, 0.1], [0, 0, 0.1, 0.8]], dtype)
    model = _layers(knob * jnp.asarray([1.0, 0.6], dtype), (4, 5, 2, 3), dtype)
    return _run(model, LinearTask(target @ covariance, covariance), 8.0, 80.0)


def _identity_start(knob):
    dtype = knob.dtype
    target = jnp.asarray([[1.2, 0.3, 0.0], [-0.2, 0.8, 0.1], [0.1, 0.0, 0.9]], dtype)
    layer = knob * jnp.eye(3, dtype=dtype)
    return _run(DeepLinear((layer,) * 4), LinearTask(target), 5.0, 30.0)


def _logistic(knob):
    dtype = knob.dtype
    inputs = np.asarray([[1.0, 0.5, -0.3], [-0.4, 1.2, 0.7], [0.2, -0.9, 1.1], [-1.3, 0.1, 0.2]])
    labels = np.asarray([0, 1, 2, 1])

    def cross_entropy(w):
        logits = jax.nn.log_softmax(inputs.astype(w.dtype) @ w.T, axis=1)
        return -jnp.mean(jnp.take_along_axis(logits, labels[:, None], axis=1))

    model = _layers(knob * jnp.asarray([1.0, 0.8, 0.5], dtype), (3, 3, 4, 3), dtype)
    return _run(model, MapTask(cross_entropy), 6.0, 6.0, weight_decay=0.05, time_constant=0.5)


PROBLEMS = (
    Problem("balanced_end_to_end/bottleneck", _bottleneck, 0.3, residual=1e-7, late=60.0),
    Problem("balanced_end_to_end/identity_start", _identity_start, 0.8, residual=1e-7, late=20.0),
    Problem("balanced_end_to_end/cross_entropy_decay", _logistic, 0.5, residual=1e-7, late=None),
)
