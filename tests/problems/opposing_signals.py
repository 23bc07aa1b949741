import jax.numpy as jnp

from tractax import GradientFlow
from tractax.deep_linear import OpposingNetwork, OpposingSignals, opposing_signals_task
from tractax.systems import Run

from ._problem import Problem


def _run(knob, *, opposing, outer, t1, time_constant=1.0):
    dtype = knob.dtype
    signal = jnp.asarray([0.5, 0.2, -0.3], dtype)
    model = OpposingNetwork(knob * signal, knob * jnp.asarray(opposing, dtype), jnp.asarray(outer, dtype))
    task = opposing_signals_task(jnp.asarray([1.2, 1.6, 0.0], dtype), 20.0, 2)
    rule = GradientFlow(time_constant)
    return Run(model, task, rule, OpposingSignals.from_model(model, task, rule), jnp.linspace(0, t1, 21).astype(dtype))


# The state is integrated, so its derivative is the vector field by construction: no residual.
PROBLEMS = (
    Problem(
        "opposing_signals/opposing",
        lambda x: _run(x, opposing=(0.6, -0.8), outer=0.6, t1=6.0, time_constant=2.0),
        0.4,
        residual=None,
    ),
)
