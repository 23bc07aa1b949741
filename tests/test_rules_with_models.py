"""Every rule trains every kind of model, under jit, and with its learning rate as a vmapped axis."""

import functools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import tractax as tx
from tractax.deep_linear import RegressionTask, gaussian
from tractax.rules import (
    AdamFlow,
    CentralFlow,
    CurlDescent,
    HeavyBall,
    HeavyBallFlow,
    HyperbolicEntropy,
    InertialFlow,
    LangevinFlow,
    LionK,
    LionKFlow,
    MirrorDescent,
    MirrorFlow,
    ModifiedFlow,
    Nesterov,
    NesterovFlow,
    OrthogonalFlow,
    PrincipalFlow,
    ReshuffledDescent,
    ReshuffledFlow,
    RMSPropCentralFlow,
    SGDFlow,
    SmoothAbsolute,
    TripleMomentum,
    diffgrad,
    drift_adjusted,
    lanton,
    perp_grad,
    scalar_rmsprop,
    scale_by_fan_in,
    spam,
)
from tractax.transformers import InContextRegression, gaussian_attention
from tractax.two_layer import TwoLayerNetwork

INPUTS = jax.random.normal(jax.random.key(0), (6, 2))
REGRESSION = RegressionTask(INPUTS, jnp.stack([INPUTS[:, 0] * INPUTS[:, 1], INPUTS[:, 0]], axis=1))
BATCHES = jnp.arange(6).reshape(3, 2)
LAYERS = 0.7 * jax.random.normal(jax.random.key(1), (2, 3, 2))

MODELS = {
    "deep linear": (gaussian((2, 3, 2), scale=0.5, key=jax.random.key(2)), REGRESSION),
    "relu": (TwoLayerNetwork(LAYERS[0], LAYERS[1].T, "relu"), REGRESSION),
    "attention": (gaussian_attention(2, scale=0.4, key=jax.random.key(3)), InContextRegression(jnp.eye(2), 8)),
}

STEPS = {
    "descent": tx.GradientDescent,
    "mini-batches": lambda rate: tx.GradientDescent(rate, batch_size=3),
    "adam": lambda rate: tx.GradientDescent(rate, optax.adam),
    "heavy ball": functools.partial(HeavyBall, momentum=0.5, weight_decay=0.01),
    "nesterov": Nesterov,
    "triple momentum": lambda rate: TripleMomentum(1 / rate, 0.1 / rate),
    "lion": functools.partial(LionK, weight_decay=0.01),
    "perp_grad": lambda rate: tx.GradientDescent(rate, lambda eta: optax.chain(perp_grad(), optax.sgd(eta))),
    "drift adjusted": lambda rate: tx.GradientDescent(rate, drift_adjusted(maximum=0.1)),
    "fan-in": lambda rate: tx.GradientDescent(
        rate, lambda eta: optax.chain(optax.sgd(eta), scale_by_fan_in(lambda m: jax.tree.leaves(m)[0], 2))
    ),
    "rmsprop": lambda rate: tx.GradientDescent(rate, functools.partial(scalar_rmsprop, initial=1.0)),
    "diffgrad": lambda rate: tx.GradientDescent(rate, diffgrad),
    "spam": lambda rate: tx.GradientDescent(rate, spam),
    "lanton": lambda rate: tx.GradientDescent(rate, lanton),
    "reshuffled": lambda rate: ReshuffledDescent(rate, BATCHES),
    "mirror": lambda rate: MirrorDescent(rate, HyperbolicEntropy()),
}
FLOWS = {
    "flow": lambda rate: tx.GradientFlow(time_constant=0.02 / rate, weight_decay=0.01),
    "modified": ModifiedFlow,
    "principal": PrincipalFlow,
    "adam": functools.partial(AdamFlow, b2=0.9, eps_root=0.1),
    "heavy ball": functools.partial(HeavyBallFlow, momentum=0.5, weight_decay=0.01),
    "nesterov": NesterovFlow,
    "inertia": lambda rate: InertialFlow.from_momentum(rate, 0.5),
    "lion": lambda rate: LionKFlow(SmoothAbsolute(0.5), gradient_rate=10 * rate),
    "central": CentralFlow,
    "rmsprop central": lambda rate: RMSPropCentralFlow(rate, 0.9, 1.0),
    "orthogonal": lambda rate: OrthogonalFlow(time_constant=0.02 / rate),
    "langevin": lambda rate: LangevinFlow(temperature=1e-4 * rate),
    "sgd": lambda rate: SGDFlow(rate, examples=6, batch_size=3),
    "reshuffled": lambda rate: ReshuffledFlow(rate, BATCHES),
    "curl": lambda rate: CurlDescent((1.0, 1.0), time_constant=0.02 / rate),
    "mirror": lambda rate: MirrorFlow(HyperbolicEntropy(), time_constant=0.02 / rate),
}
NEEDS_EXAMPLES = ("mini-batches", "reshuffled", "sgd")


def _cases():
    """Steps with one of the small models by default, in turn; attention and the flows, which compile longer, are slow."""
    kinds = [("steps", name) for name in STEPS] + [("flows", name) for name in FLOWS]
    for i, (kind, name) in enumerate(kinds):
        models = [m for m in MODELS if m != "attention" or name not in NEEDS_EXAMPLES]
        for j, model in enumerate(models):
            marks = () if kind == "steps" and model != "attention" and j == i % 2 else pytest.mark.slow
            yield pytest.param(kind, name, model, id=f"{name} {kind}, {model}", marks=marks)


@pytest.mark.parametrize(("kind", "name", "model"), list(_cases()))
def test_trains(kind, name, model):
    start, task = MODELS[model]
    build = (STEPS if kind == "steps" else FLOWS)[name]
    solver = diffrax.Heun() if name in ("langevin", "sgd") else diffrax.Tsit5()
    options = {} if kind == "steps" else {"solver": solver}
    if name in ("langevin", "sgd"):
        options |= {"stepsize_controller": diffrax.ConstantStepSize(), "dt0": 0.02}

    def losses(rate):
        rule = build(rate)
        end = 12 * rule.time_per_step if kind == "steps" else 0.5
        return tx.train(start, task, rule, jnp.stack([0 * end, end]), key=jax.random.key(4), **options).observed

    rates = jnp.asarray([0.01, 0.02])
    together = jax.jit(jax.vmap(losses))(rates)
    assert jnp.all(together[:, 1] < together[:, 0])
    # The same as the second one by itself; for noise, along the same path.
    np.testing.assert_allclose(together[1], losses(rates[1]), rtol=1e-6)
