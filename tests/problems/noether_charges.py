import equinox as eqx
import jax
import jax.numpy as jnp

import tractax as tx
from tractax.rules import InertialFlow, NoetherCharges, ScaleSymmetry, TranslationSymmetry
from tractax.systems import Run

from ._problem import Problem


class Unit(eqx.Module):
    """A direction and logits."""

    direction: jax.Array
    logits: jax.Array


class Target(tx.AbstractTask):
    """The loss sees the direction, and the probabilities that belong to the logits."""

    def loss(self, model):
        unit = model.direction / jnp.linalg.norm(model.direction)
        probabilities = jax.nn.softmax(model.logits)
        return jnp.sum(jnp.sin(unit) * jnp.arange(3.0, dtype=unit.dtype)) + jnp.sum(probabilities**2)


def _direction(model):
    return model.direction


def _logits(model):
    return model.logits


def _run(knob, rule, symmetry):
    """The knob is the weight decay."""
    dtype = knob.dtype
    model = Unit(jnp.asarray([0.7, -1.1, 0.4], dtype), jnp.asarray([0.5, 0.9, -0.2], dtype))
    solution = NoetherCharges.from_model(model, Target(), rule(knob), symmetry=symmetry)
    return Run(model, Target(), rule(knob), solution, jnp.linspace(0, 6.0, 21).astype(dtype))


PROBLEMS = (
    Problem(
        "noether_charges/scale", lambda x: _run(x, lambda r: tx.GradientFlow(2.0, r), ScaleSymmetry(_direction)), 0.2
    ),
    Problem(
        "noether_charges/inertia",
        lambda x: _run(x, lambda r: InertialFlow(0.5, 0.8, r), TranslationSymmetry(_logits)),
        0.9,
        residual=None,
    ),
)
