import jax.numpy as jnp

from tractax import GradientFlow
from tractax.deep_linear import DiagonalLinear, DiagonalNetwork, OrthogonalDesign, RegressionTask
from tractax.systems import Run

from ._problem import Problem


def _run(knob, inputs, targets, positive, negative, *, depth=2, t1=30.0, theory=DiagonalNetwork):
    dtype = knob.dtype
    task = RegressionTask(jnp.asarray(inputs, dtype), jnp.asarray(targets, dtype))
    weights = (knob * jnp.asarray(w, dtype) for w in (positive, negative))
    model = DiagonalLinear(*weights, depth)
    rule = GradientFlow(1.5)
    return Run(model, task, rule, theory.from_model(model, task, rule), jnp.linspace(0, t1, 21).astype(dtype))


_FEW = ((1.0, 0.5, -0.3), (0.2, -1.0, 0.8))
_MANY = ((1.0, 0.5), (0.2, -1.0), (-0.7, 0.3), (0.4, 1.1))
# The last input never varies.
_ORTHOGONAL = ((1.0, 1.0, 0.0), (1.0, -1.0, 0.0), (-1.0, 1.0, 0.0), (-1.0, -1.0, 0.0))

PROBLEMS = (
    # Derivatives in time are those of the integrator.
    Problem(
        "diagonal_network/small",
        lambda x: _run(x, _FEW, (1.0, 0.4), (1, 1, 1), (1, 1, 1)),
        0.1,
        residual=1e-8,
    ),
    Problem(
        "diagonal_network/deep_with_many_examples",
        lambda x: _run(x, _MANY, (1.0, -0.4, 0.2, 0.9), (1, 0.5), (-0.6, 1), depth=3, t1=15.0),
        0.5,
        residual=1e-8,
    ),
    Problem(
        "diagonal_network/orthogonal",
        lambda x: _run(
            x, _ORTHOGONAL, (2.0, 1.0, -0.5, -1.0), (1, 0.3, 0.5), (1, -0.6, 0.2), t1=6.0, theory=OrthogonalDesign
        ),
        0.2,
    ),
)
