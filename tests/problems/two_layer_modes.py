import jax
import jax.numpy as jnp

from tractax import GradientFlow
from tractax.deep_linear import DeepLinear, LinearTask, TwoLayerModes, aligned, haar
from tractax.systems import Run

from ._problem import Problem


def _run(knob, *, singular_values, sizes=None, strength=None, rates=None, variances=None, t1=8.0):
    """Random singular vectors; unbalanced unless the strengths say otherwise."""
    dtype = knob.dtype
    s = jnp.asarray(singular_values, dtype)
    k = s.shape[0]
    n_in, hidden, n_out = sizes or (k, k, k)
    keys = jax.random.split(jax.random.key(0), 3)
    v, r, u = (haar(key, n, k, dtype) for key, n in zip(keys, (n_in, hidden, n_out), strict=True))
    if variances is None:
        task = LinearTask((u * s[None, :]) @ v.T)
    else:
        ell = jnp.asarray(variances, dtype)
        task = LinearTask((u * s[None, :]) @ v.T, (v * ell[None, :]) @ v.T)
    first, second = (jnp.asarray(x, dtype) for x in strength)
    model = DeepLinear(((r * (knob * first)[None, :]) @ v.T, (u * (knob * second)[None, :]) @ r.T))
    rule = GradientFlow(rates=None if rates is None else jnp.asarray(rates, dtype))
    solution = TwoLayerModes.from_model(model, task, rule)
    return Run(model, task, rule, solution, jnp.linspace(0, t1, 21).astype(dtype))


def _balanced(knob):
    task = LinearTask(jnp.diag(jnp.asarray([3.0, 2.0, 1.0], knob.dtype)))
    model = aligned(task, (5,), strength=knob, key=jax.random.key(0))
    solution = TwoLayerModes.from_model(model, task)
    return Run(model, task, GradientFlow(), solution, jnp.linspace(0, 8.0, 21).astype(knob.dtype))


PROBLEMS = (
    Problem("two_layer_modes/balanced", _balanced, 1e-2),
    Problem(
        "two_layer_modes/unbalanced",
        lambda x: _run(x, singular_values=(2.5, 1.0, 0.3), sizes=(5, 4, 3), strength=((1, -0.5, 2), (0.3, 1, -1))),
        0.3,
    ),
    Problem(
        "two_layer_modes/repeated",
        lambda x: _run(x, singular_values=(1.5, 1.5, 1.5), strength=((1, 0.4, 0.2), (0.8, 1.1, 0.3))),
        0.2,
    ),
    Problem(
        "two_layer_modes/zero_mode",
        # The mode without signal decays as 1/t, so no late time reaches the limit.
        lambda x: _run(x, singular_values=(2.0, 0.0), strength=((1, 0.8), (1, 0.8))),
        0.5,
        late=None,
    ),
    Problem(
        "two_layer_modes/rates_and_variances",
        lambda x: _run(
            x,
            singular_values=(2.0, 1.0),
            strength=((1, 0.7), (0.5, 1.2)),
            rates=(0.3, 2.0),
            variances=(0.7, 1.6),
            t1=12.0,
        ),
        0.2,
    ),
)
