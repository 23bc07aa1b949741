import jax.numpy as jnp

from tractax import GradientFlow
from tractax.systems import Run
from tractax.transformers import InContextRegression, SoftmaxHeads, SoftmaxHeadsFlow, SoftmaxHeadsTask

from ._problem import Problem


def _task(dtype):
    """Inputs and tasks that are not of unit variance."""
    unit = jnp.eye(3, dtype=dtype)
    return SoftmaxHeadsTask(InContextRegression(1.3 * unit, 20, task_covariance=0.4 * unit, noise_variance=0.2))


def _opposite(knob):
    """The knob is the first head's ω, of two that differ in sign and size."""
    dtype = knob.dtype
    model = SoftmaxHeads(jnp.stack([knob, -0.5 * knob]), jnp.asarray([0.1, -0.2], dtype))
    rule = GradientFlow(0.5)
    solution = SoftmaxHeadsFlow.from_model(model, _task(dtype), rule, t1=8.0)
    return Run(model, _task(dtype), rule, solution, jnp.linspace(0, 6, 21).astype(dtype))


def _single(knob):
    """The knob scales one head."""
    dtype = knob.dtype
    model = SoftmaxHeads(knob * jnp.asarray([-1.0], dtype), knob * jnp.asarray([-0.3], dtype))
    rule = GradientFlow()
    solution = SoftmaxHeadsFlow.from_model(model, _task(dtype), rule, t1=12.0)
    return Run(model, _task(dtype), rule, solution, jnp.linspace(0, 10, 21).astype(dtype))


PROBLEMS = (
    # The slide of opposite heads has no end.
    Problem("softmax_heads/opposite", _opposite, 0.2, residual=1e-7, late=None),
    # That of one head is tested by itself: it takes long.
    Problem("softmax_heads/single", _single, 0.3, residual=1e-7, late=None),
)
