import jax.numpy as jnp

from tractax.rules import CurlDescent
from tractax.systems import Run
from tractax.teacher_student import CurlDescentScalar, TwoLayerLinear, VectorTask

from ._problem import Problem


def _run(knob, *, hidden, readout, target, flipped, time_constant=1.0):
    """The knob scales the weights, and its square the target, which leaves the regime as it is."""
    dtype = knob.dtype
    model = TwoLayerLinear(knob * jnp.asarray([[hidden]], dtype), knob * jnp.asarray([readout], dtype))
    task = VectorTask(knob**2 * jnp.asarray([target], dtype))
    signs = (-1.0, 1.0) if flipped == "hidden" else (1.0, -1.0)
    rule = CurlDescent(tuple(jnp.asarray(sign, dtype) for sign in signs), jnp.asarray(time_constant, dtype))
    solution = CurlDescentScalar.from_model(model, task, rule)
    return Run(model, task, rule, solution, jnp.linspace(0, 12.0, 21).astype(dtype))


PROBLEMS = (
    # A rotating solution has no limit, and a critical one approaches it as 1/t.
    Problem(
        "curl_descent/rotates",
        lambda x: _run(x, hidden=0.8, readout=-0.6, target=0.9, flipped="readout", time_constant=2.0),
        1.1,
        late=None,
    ),
    Problem("curl_descent/locks", lambda x: _run(x, hidden=1.2, readout=0.7, target=-0.6, flipped="hidden"), 0.9),
    Problem(
        "curl_descent/critical",
        lambda x: _run(x, hidden=0.0, readout=-1.0, target=0.5, flipped="hidden"),
        1.0,
        late=None,
    ),
    Problem("curl_descent/no_target", lambda x: _run(x, hidden=-0.5, readout=1.1, target=0.0, flipped="readout"), 0.9),
)
