import jax
import jax.numpy as jnp

from tractax import GradientFlow
from tractax.systems import Run
from tractax.transformers import (
    AlignedAttention,
    InContextRegression,
    SeparateAttention,
    SeparateAttentionFlow,
    gaussian_separate_attention,
)

from ._problem import Problem


def _aligned(knob):
    """The knob scales two heads, of three principal components in a rotated basis."""
    dtype = knob.dtype
    c, s = 0.8, 0.6
    basis = jnp.asarray([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]], dtype)
    task = InContextRegression((basis * jnp.asarray([1.5, 0.8, 0.5], dtype)[None, :]) @ basis.T, 8, noise_variance=0.1)
    strengths, signs = knob * jnp.asarray([1.0, 1.5], dtype), jnp.asarray([1.0, -1.0], dtype)
    rows = (strengths[:, None] * basis[:, :2].T)[:, None, :]
    model = SeparateAttention.embed(signs * strengths, signs[:, None, None] * rows, rows)
    rule = GradientFlow(0.5)
    return Run(model, task, rule, AlignedAttention.from_model(model, task, rule), jnp.linspace(0, 20, 21).astype(dtype))


def _random(knob):
    """The knob scales three random heads of rank two."""
    dtype = knob.dtype
    task = InContextRegression(
        jnp.diag(jnp.asarray([1.2, 0.7], dtype)), 6, task_covariance=jnp.asarray([[1.0, 0.3], [0.3, 0.5]], dtype)
    )
    draw = gaussian_separate_attention(2, 3, 2, scale=1.0, key=jax.random.key(0))
    model = SeparateAttention(*(knob * x.astype(dtype) for x in (draw.value, draw.key, draw.query)))
    rule = GradientFlow()
    solution = SeparateAttentionFlow.from_model(model, task, rule, t1=20.0)
    return Run(model, task, rule, solution, jnp.linspace(0, 10, 21).astype(dtype))


PROBLEMS = (
    Problem("separate_kq_attention/aligned", _aligned, 0.3),
    # How heads share in the optimum, no conserved quantity tells.
    Problem("separate_kq_attention/random", _random, 0.4, residual=1e-7, late=None),
)
