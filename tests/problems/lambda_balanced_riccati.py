import jax
import jax.numpy as jnp

from tractax import GradientFlow
from tractax.deep_linear import DeepLinear, LambdaBalancedRiccati, LinearTask, balanced, lambda_balanced
from tractax.systems import Run

from ._problem import Problem


def _run(knob, *, sizes, lam=0.0, singular_values=None, seed=0, t1=8.0, time_constant=1.0):
    """Random weights, not aligned with the task; the knob is their scale."""
    dtype = knob.dtype
    n_in, _, n_out = sizes
    task_key, key = jax.random.split(jax.random.key(seed))
    sigma = jax.random.normal(task_key, (n_out, n_in))
    if singular_values is not None:
        u, _, vt = jnp.linalg.svd(sigma, full_matrices=False)
        sigma = (u * jnp.asarray(singular_values)[None, :]) @ vt
    task = LinearTask(sigma.astype(dtype))
    # Drawn in float64 and then rounded: a key draws other numbers in other dtypes.
    scale = knob.astype(jnp.float64)
    model = lambda_balanced(sizes, lam=lam, scale=scale, key=key) if lam else balanced(sizes, scale=scale, key=key)
    model = DeepLinear(tuple(w.astype(dtype) for w in model.weights))
    rule = GradientFlow(time_constant)
    solution = LambdaBalancedRiccati.from_model(model, task, rule)
    return Run(model, task, rule, solution, jnp.linspace(0, t1, 17).astype(dtype))


def _one_hidden_unit(knob):
    task = LinearTask(jnp.asarray([[1.0, 0.5], [0.0, -0.8]], knob.dtype))
    first = jnp.asarray([[0.3, -0.2]], knob.dtype)
    model = DeepLinear((knob * first, jnp.asarray([[0.5], [0.1]], knob.dtype)))
    solution = LambdaBalancedRiccati.from_model(model, task)
    return Run(model, task, GradientFlow(), solution, jnp.linspace(0, 10, 17).astype(knob.dtype))


PROBLEMS = (
    # One hidden unit is λ-balanced from any start.
    Problem("lambda_balanced_riccati/one_hidden_unit", _one_hidden_unit, 1.0),
    Problem(
        "lambda_balanced_riccati/bottleneck",
        lambda x: _run(x, sizes=(5, 2, 4), singular_values=(2.0, 1.0, 1.0, 0.4), time_constant=0.7),
        0.05,
        late=200.0,
    ),
    Problem("lambda_balanced_riccati/lazy_funnel", lambda x: _run(x, sizes=(5, 3, 3), lam=2.0), 0.1),
    Problem(
        # More hidden units than Σ has rank: the rest of the hidden layer decays as 1/t, so no late time is the limit.
        "lambda_balanced_riccati/rank_deficient",
        lambda x: _run(x, sizes=(3, 5, 4), singular_values=(1.5, 0.7, 0.0), t1=12.0),
        0.3,
        late=None,
    ),
)
