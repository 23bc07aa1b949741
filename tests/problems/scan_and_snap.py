import jax.numpy as jnp
import numpy as np

from tractax import GradientFlow
from tractax.systems import Run
from tractax.transformers import NextTokenTask, ScanAndSnap, TokenAttention, TokenAttentionFlow

from ._problem import Problem

# Two shared tokens and two of every class, in no order.
ORDER = np.asarray([3, 0, 6, 1, 7, 2, 5, 4])


def _classes(shared, own):
    """One row for every class."""
    return np.concatenate([np.tile(shared, (3, 1)), np.kron(np.eye(3), own)], axis=1)[:, ORDER]


def _alike(knob):
    """The knob is the rate of attention; the last tokens are in no order either, and weights not zero."""
    dtype = knob.dtype
    task = NextTokenTask(jnp.asarray(_classes([0.2, 0.15], [0.4, 0.25]), dtype), (2, 0, 1))
    decoder = _classes([0.0, 0.0], [0.3, -0.1]).T @ (np.eye(3) - 1 / 3)
    logits = _classes([0.2, -0.3], [0.1, 0.5])[[1, 2, 0]]
    model = TokenAttention(jnp.asarray(decoder, dtype), jnp.asarray(logits, dtype))
    rule = GradientFlow(2.0, rates=jnp.stack([jnp.ones_like(knob), knob]))
    solution = ScanAndSnap.from_model(model, task, rule, t1=100.0)
    return Run(model, task, rule, solution, jnp.linspace(0, 50, 21).astype(dtype))


def _general(knob):
    """The knob scales weights; two next tokens share a last one, and one output never occurs."""
    dtype = knob.dtype
    rows = np.asarray([[0.3, 0.5, 0.0, 0.2], [0.4, 0.0, 0.6, 0.0], [0.0, 0.1, 0.3, 0.6]])
    task = NextTokenTask(jnp.asarray(rows, dtype), (0, 1, 0), probabilities=jnp.asarray([0.5, 0.2, 0.3], dtype))
    draw = np.random.default_rng(0)
    weights = (jnp.asarray(draw.normal(size=shape), dtype) for shape in ((4, 4), (2, 4)))
    model = TokenAttention(*(knob * w for w in weights))
    rule = GradientFlow(weight_decay=0.01, rates=jnp.asarray([1.0, 0.7], dtype))
    solution = TokenAttentionFlow.from_model(model, task, rule, t1=40.0)
    return Run(model, task, rule, solution, jnp.linspace(0, 20, 21).astype(dtype))


PROBLEMS = (
    # Weights grow for ever.
    Problem("scan_and_snap/alike", _alike, 0.5, residual=1e-7, late=None, slow=True),
    Problem("scan_and_snap/general", _general, 0.4, residual=1e-7, late=None, slow=True),
)
