import itertools

import jax.numpy as jnp
import numpy as np

from tractax import GradientFlow
from tractax.deep_linear import ConservationLaws, DeepLinear, LinearTask, MapTask
from tractax.systems import Run

from ._problem import Problem


def _run(knob, sizes, task, t1=6.0, rates=None, **rule):
    generator = np.random.default_rng(0)
    shapes = [(after, before) for before, after in itertools.pairwise(sizes)]
    model = DeepLinear(tuple(knob * jnp.asarray(generator.normal(size=shape), knob.dtype) for shape in shapes))
    flow = GradientFlow(rates=None if rates is None else jnp.asarray(rates, knob.dtype), **rule)
    return Run(
        model, task, flow, ConservationLaws.from_model(model, task, flow), jnp.linspace(0, t1, 21).astype(knob.dtype)
    )


def _unequal_rates(knob):
    target = np.asarray([[1.0, -0.5, 0.3], [0.2, 0.8, -1.0]])
    task = MapTask(lambda w: jnp.sum((w - target.astype(w.dtype)) ** 4))
    return _run(knob, (3, 4, 3, 2), task, rates=(0.5, 2.0, 1.0), time_constant=2.0)


def _weight_decay(knob):
    covariance = jnp.asarray([[1.0, 0.4], [0.4, 0.6]], knob.dtype)
    task = LinearTask(jnp.asarray([[1.0, -1.0], [0.5, 0.2]], knob.dtype), covariance)
    return _run(knob, (2, 5, 2), task, weight_decay=0.3)


PROBLEMS = (
    Problem("conservation_laws/unequal_rates", _unequal_rates, 0.4, late=1.0),
    Problem("conservation_laws/weight_decay", _weight_decay, 0.5, late=100.0),
)
