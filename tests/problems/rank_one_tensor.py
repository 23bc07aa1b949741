import jax
import jax.numpy as jnp

from tractax import GradientFlow
from tractax.systems import Run
from tractax.transformers import (
    BalancedTensor,
    ClampedTensor,
    RankOneTensor,
    RankOneTensorFlow,
    RankOneTensorTask,
    gaussian_tensor,
)

from ._problem import Problem


def _cast(tensor, scale):
    return RankOneTensor(*(scale * x.astype(scale.dtype) for x in tensor.factors))


def _draws(knob):
    task = RankOneTensorTask(_cast(gaussian_tensor((3, 2, 4), scale=1.0, key=jax.random.key(0)), jnp.ones_like(knob)))
    return task, _cast(gaussian_tensor((3, 2, 4), scale=1.0, key=jax.random.key(1)), knob)


def _clamped(knob):
    """The knob scales random factors; `b` stays where it is, `a` and `c` learn at rates of their own."""
    task, model = _draws(knob)
    rule = GradientFlow(0.5, rates=(1.0, 0.0, 1.7))
    ts = jnp.linspace(0, 60, 21).astype(knob.dtype)
    return Run(model, task, rule, ClampedTensor.from_model(model, task, rule), ts)


def _any(knob):
    """The knob scales random factors, all trained."""
    task, model = _draws(knob)
    rule = GradientFlow(0.1, rates=(1.0, 0.4, 1.3), weight_decay=0.01)
    solution = RankOneTensorFlow.from_model(model, task, rule, t1=20.0)
    return Run(model, task, rule, solution, jnp.linspace(0, 10, 21).astype(knob.dtype))


def _balanced(knob):
    """The knob is the size of factors along the true ones."""
    # Along an axis, where rounding leaves nothing across the truth.
    units = [jnp.eye(n, dtype=knob.dtype)[0] for n in (3, 2, 4)]
    task = RankOneTensorTask(RankOneTensor(2 * units[0], units[1], units[2]))
    model = RankOneTensor(-knob * units[0], knob * units[1], -knob * units[2])
    rule = GradientFlow(0.1)
    ts = jnp.linspace(0, 20, 21).astype(knob.dtype)
    return Run(model, task, rule, BalancedTensor.from_model(model, task, rule), ts)


PROBLEMS = (
    Problem("rank_one_tensor/clamped", _clamped, 0.4),
    Problem("rank_one_tensor/balanced", _balanced, 0.3),
    Problem("rank_one_tensor/any", _any, 0.4, residual=1e-7, late=None),
)
