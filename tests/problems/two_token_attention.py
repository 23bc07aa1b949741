import jax.numpy as jnp
import numpy as np

from tractax import GradientFlow
from tractax.systems import Run
from tractax.transformers import AttentionPooling, TokenSelection, TwoTokenAttention

from ._problem import Problem


def _orthogonal(knob):
    """The knob scales a start that prefers some wrong tokens; the last two tokens are the same."""
    dtype = knob.dtype
    u = jnp.asarray([[1.2, 1.6, 0.0, 0.0], [-0.8, 0.6, 0.0, 0.0], [0.0, 0.0, 1.5, 0.0], [0.0, 0.0, 0.0, 0.0]], dtype)
    shift = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)), dtype)
    scores = jnp.asarray([[1.0, 0.0], [0.2, 0.7], [1.0, 0.5], [0.0, 3.0]], dtype)
    task = TokenSelection(jnp.stack([shift + u, shift], axis=1), scores)
    model = AttentionPooling(knob * jnp.asarray([-0.5, 1.0, -1.0, 0.3], dtype))
    rule = GradientFlow(0.5)
    return Run(model, task, rule, TwoTokenAttention.from_model(model, task, rule), jnp.linspace(0, 50, 21).astype(dtype))


PROBLEMS = (
    # Gaps grow for ever.
    Problem("two_token_attention/orthogonal", _orthogonal, 1.0, late=None),
)
