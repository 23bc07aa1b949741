import jax
import jax.numpy as jnp

from tractax import GradientFlow
from tractax.systems import Run
from tractax.transformers import (
    InContextRegression,
    IsotropicAttention,
    LinearAttention,
    LinearAttentionFlow,
    gaussian_attention,
)

from ._problem import Problem


def _isotropic(knob):
    """The knob scales balanced weights."""
    dtype = knob.dtype
    task = InContextRegression(jnp.asarray(0.8, dtype) * jnp.eye(2, dtype=dtype), 5, noise_variance=0.1)
    matrix = knob * jnp.asarray([[0.5, 0.3], [-0.2, -0.1]], dtype)
    model = LinearAttention.embed(jnp.linalg.norm(matrix)[None], matrix[None])
    rule = GradientFlow(2.0)
    return Run(model, task, rule, IsotropicAttention.from_model(model, task, rule), jnp.linspace(0, 20, 21).astype(dtype))


def _any(knob):
    """Unbalanced weights; covariances of inputs, tasks and queries that do not commute."""
    dtype = knob.dtype
    task = InContextRegression(
        jnp.asarray([[1.3, 0.4], [0.4, 0.7]], dtype),
        3,
        task_covariance=jnp.asarray([[0.8, -0.3], [-0.3, 1.1]], dtype),
        query_covariance=jnp.asarray([[0.9, 0.2], [0.2, 1.6]], dtype),
        noise_variance=0.2,
    )
    model = LinearAttention.embed(knob[None], jnp.asarray([[[0.2, 0.1], [-0.3, 0.4]]], dtype))
    rule = GradientFlow()
    solution = LinearAttentionFlow.from_model(model, task, rule, t1=60.0)
    return Run(model, task, rule, solution, jnp.linspace(0, 10, 21).astype(dtype))


def _heads(knob):
    """The knob scales two random heads."""
    dtype = knob.dtype
    task = InContextRegression(jnp.diag(jnp.asarray([1.2, 0.7], dtype)), 6)
    draw = gaussian_attention(2, 2, scale=1.0, key=jax.random.key(0))
    model = LinearAttention(knob * draw.value.astype(dtype), knob * draw.key_query.astype(dtype))
    rule = GradientFlow(0.5)
    solution = LinearAttentionFlow.from_model(model, task, rule, t1=20.0)
    return Run(model, task, rule, solution, jnp.linspace(0, 8, 21).astype(dtype))


PROBLEMS = (
    Problem("linear_self_attention/isotropic", _isotropic, 0.4),
    Problem("linear_self_attention/any", _any, 0.3, residual=1e-7, late=50.0),
    # Of several heads only the effective map has a limit that is known.
    Problem("linear_self_attention/heads", _heads, 0.2, residual=1e-7, late=None),
)
