import jax
import jax.numpy as jnp

from tractax import GradientFlow
from tractax.deep_linear import DeepLinear, DeepModes, LinearTask, aligned, haar
from tractax.systems import Run

from ._problem import Problem


def _aligned(knob, *, depth, singular_values, strength, time_constant=1.0, t1=8.0):
    """Random singular vectors, and layers of unequal sizes."""
    dtype = knob.dtype
    s = jnp.asarray(singular_values, dtype)
    k = s.shape[0]
    out_key, in_key, key = jax.random.split(jax.random.key(1), 3)
    u, v = haar(out_key, k, k, dtype), haar(in_key, k + 2, k, dtype)
    task = LinearTask((u * s[None, :]) @ v.T)
    hidden = tuple(k + i % 2 for i in range(depth - 1))
    model = aligned(task, hidden, strength=knob * jnp.asarray(strength, dtype), key=key)
    rule = GradientFlow(jnp.asarray(time_constant, dtype))
    return Run(model, task, rule, DeepModes.from_model(model, task, rule), jnp.linspace(0, t1, 21).astype(dtype))


def _from_above(knob):
    """Too strong a mode, a growing one, and one without signal."""
    task = LinearTask(jnp.diag(jnp.asarray([2.0, 1.0, 0.0], knob.dtype)))
    strength = jnp.asarray([3.0, 0.5, 1.5], knob.dtype)
    model = aligned(task, (3, 3, 3), strength=knob * strength, key=jax.random.key(0))
    rule = GradientFlow()
    return Run(model, task, rule, DeepModes.from_model(model, task, rule), jnp.linspace(0, 4.0, 21).astype(knob.dtype))


def _wrong_sign(knob):
    """A flipped last layer: both modes decay to the saddle."""
    task = LinearTask(jnp.diag(jnp.asarray([1.0, 0.5], knob.dtype)))
    model = aligned(task, (2, 2), strength=knob * jnp.asarray([1.0, 0.7], knob.dtype), key=jax.random.key(0))
    model = DeepLinear((*model.weights[:-1], -model.weights[-1]))
    rule = GradientFlow()
    return Run(model, task, rule, DeepModes.from_model(model, task, rule), jnp.linspace(0, 4.0, 21).astype(knob.dtype))


PROBLEMS = (
    Problem(
        "deep_modes/shallow",
        lambda x: _aligned(x, depth=1, singular_values=(2.0, 0.5), strength=(0.1, 1.0), time_constant=0.7),
        0.5,
    ),
    Problem("deep_modes/three_layers", lambda x: _aligned(x, depth=3, singular_values=(2.0, 1.0), strength=(1, 2)), 0.03),
    Problem(
        "deep_modes/six_layers_repeated",
        lambda x: _aligned(x, depth=6, singular_values=(1.5, 1.5, 1.0), strength=(1, 0.7, 1.2), time_constant=2.0),
        0.1,
    ),
    # The mode without signal decays as a power of time, so no late time reaches the limit.
    Problem("deep_modes/from_above", _from_above, 0.8, late=None),
    Problem("deep_modes/wrong_sign", _wrong_sign, 0.6, late=None),
)
