import jax
import jax.numpy as jnp

from tractax import GradientFlow
from tractax.deep_linear import TwoLayerModes, balanced
from tractax.systems import Run
from tractax.two_layer import LeakyReLU, RankOneReLU, SymmetricReLU, TwoLayerNetwork, antipodal_network, mirrored_task

from ._problem import Problem


def _white(dtype):
    """Three inputs with a covariance of one."""
    basis = jnp.asarray([[1, 1, 1], [1, -1, 0], [1, 1, -2]], dtype)
    return 3**0.5 * basis / jnp.linalg.norm(basis, axis=1)[:, None]


def _pairs(knob):
    """The knob scales two random balanced pairs of leaky rectifiers."""
    dtype = knob.dtype
    x = _white(dtype)
    task = mirrored_task(x, x @ jnp.asarray([[1, 0.4], [-0.5, 0.8], [0.2, 0.1]], dtype))
    draw = balanced((3, 2, 2), scale=1.0, key=jax.random.key(2)).weights
    model = antipodal_network(*(knob * w.astype(dtype) for w in draw), slope=0.2)
    rule = GradientFlow(0.5)
    return Run(model, task, rule, SymmetricReLU.from_model(model, task, rule), jnp.linspace(0, 8, 21).astype(dtype))


def _unbalanced(knob):
    """Pairs along the modes of inputs that are not white, not balanced, with layers that learn at different rates."""
    dtype = knob.dtype
    modes = jnp.asarray([[0.8, -0.6], [0.6, 0.8]], dtype)
    x = jnp.asarray([[1.2, 0.8], [1.2, -0.8]], dtype) @ modes.T
    task = mirrored_task(x, (x @ modes) * jnp.asarray([1, 0.5], dtype)[None, :])
    first, second = (jnp.diag(jnp.asarray(w, dtype)) for w in ((1, 0.8), (0.5, 1.2)))
    model = antipodal_network(knob * first @ modes.T, knob * second)
    rule = GradientFlow(rates=jnp.asarray([1, 0.5], dtype))
    solution = SymmetricReLU.from_model(model, task, rule, linear=TwoLayerModes)
    return Run(model, task, rule, solution, jnp.linspace(0, 8, 21).astype(dtype))


def _rank_one(knob):
    """The knob scales three units of rank one, on inputs of variance 0.49."""
    dtype = knob.dtype
    x = 0.7 * _white(dtype)
    task = mirrored_task(x, x @ jnp.asarray([1, -0.5, 0.2], dtype))
    q = knob * jnp.asarray([0.6, -1.0, 0.8], dtype)
    model = TwoLayerNetwork(q[:, None] * jnp.asarray([[0.6, 0.8, 0]], dtype), q, LeakyReLU(0.1))
    rule = GradientFlow(0.5)
    return Run(model, task, rule, RankOneReLU.from_model(model, task, rule), jnp.linspace(0, 20, 21).astype(dtype))


PROBLEMS = (
    Problem("symmetric_relu/rank_one", _rank_one, 0.1),
    Problem("symmetric_relu/pairs", _pairs, 0.3),
    Problem("symmetric_relu/unbalanced", _unbalanced, 0.3),
)
