"""Steps of momentum methods against their flows on a tanh network: orders, initial velocities, both precisions."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import tractax as tx
from tractax.deep_linear import RegressionTask
from tractax.rules import HeavyBall, HeavyBallFlow, Nesterov, NesterovFlow, strongly_convex_momentum
from tractax.two_layer import TwoLayerNetwork

KEYS = jax.random.split(jax.random.key(3), 3)
FIRST, INPUTS = 0.8 * jax.random.normal(KEYS[0], (3, 2)), jax.random.normal(KEYS[1], (5, 2))
TANH = TwoLayerNetwork(FIRST, jnp.asarray([0.7, -0.9, 0.4]), "tanh", bias=jnp.asarray([0.1, -0.2, 0.3]))
DATA = RegressionTask(INPUTS, jax.random.normal(KEYS[2], (5, 1)))
ROOTS = jnp.asarray([0.1, 0.05, 0.025, 0.0125])


def _flat(model):
    return ravel_pytree(eqx.filter(model, eqx.is_inexact_array))[0]


def _drift_exponent(steps, flow):
    """How the distance at a fixed time falls with the root of the learning rate."""

    def distance(root):
        tight = diffrax.PIDController(rtol=1e-11, atol=1e-14)
        stepped = tx.train(TANH, DATA, steps(root**2), [2.0], observe=_flat).observed[0]
        flowed = tx.train(TANH, DATA, flow(root**2), [2.0], observe=_flat, stepsize_controller=tight).observed[0]
        return jnp.linalg.norm(stepped - flowed)

    drifts = dict(zip(ROOTS.tolist(), jax.jit(jax.vmap(distance))(ROOTS).tolist(), strict=True))
    return float(tx.scaling(drifts.__getitem__, ROOTS.tolist(), correction=1.0).exponent)


def _beta(s):
    return strongly_convex_momentum(s, 0.25)


@pytest.mark.slow
def test_growing_momentum_order():
    assert _drift_exponent(Nesterov, NesterovFlow) == pytest.approx(2, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(
    ("steps", "flow"),
    [
        (lambda s: Nesterov(s, friction=4.5), lambda s, p: NesterovFlow(s, order=p, friction=4.5)),
        (lambda s: Nesterov(s, weight_decay=0.2), lambda s, p: NesterovFlow(s, order=p, weight_decay=0.2)),
        (lambda s: Nesterov(s, _beta(s)), lambda s, p: NesterovFlow(s, _beta(s), p)),
        (lambda s: HeavyBall(s, _beta(s)), lambda s, p: HeavyBallFlow(s, _beta(s), p)),
        (
            lambda s: HeavyBall(s, _beta(s), first_step=1 + _beta(s)),
            lambda s, p: HeavyBallFlow(s, _beta(s), p, first_step=1 + _beta(s)),
        ),
    ],
    ids=["friction", "decay", "nesterov", "heavy_ball", "heavy_ball_kicked"],
)
def test_every_order(steps, flow, order):
    assert _drift_exponent(steps, lambda s: flow(s, order)) == pytest.approx(order, abs=0.1)


@pytest.mark.slow
def test_another_velocity_at_the_start_loses_an_order():
    # That of Shi et al. for constant momentum, -2√s g/(1 + √(μs)), where Nesterov's steps have 3/2 in place of 2.
    params, static = eqx.partition(TANH, eqx.is_inexact_array)
    objective = tx.Objective(DATA, static)

    def distance(root):
        beta = _beta(root**2)
        flow = NesterovFlow(root**2, beta)
        start = flow.init(params)
        drive = jax.tree.map(lambda g: -(1 + beta) / 4 * root * g, objective.gradient(params))
        solution = diffrax.diffeqsolve(
            flow.terms(start, 0.0, 2.0, key=None),
            diffrax.Tsit5(),
            t0=0.0,
            t1=2.0,
            dt0=None,
            y0=eqx.tree_at(lambda state: state.drive, start, drive),
            args=objective,
            stepsize_controller=diffrax.PIDController(rtol=1e-10, atol=1e-13),
        )
        stepped = tx.train(TANH, DATA, Nesterov(root**2, beta), [2.0], observe=_flat).observed[0]
        return jnp.linalg.norm(stepped - _flat(solution.ys.params))

    drifts = jax.jit(jax.vmap(distance))(ROOTS / 4)
    fit = tx.scaling(dict(zip(ROOTS.tolist(), drifts.tolist(), strict=True)).__getitem__, ROOTS.tolist(), correction=1.0)
    assert float(fit.exponent) == pytest.approx(1, abs=0.1)


def test_the_velocity_at_the_start():
    # Of Nesterov's first step, up to a power of the rate.
    params, static = eqx.partition(TANH, eqx.is_inexact_array)
    objective, s = tx.Objective(DATA, static), 0.04
    gradient = ravel_pytree(objective.gradient(params))[0]
    for flow, kick in ((NesterovFlow(s), 1.0), (NesterovFlow(s, 0.8), 1.35), (NesterovFlow(s, order=1), 0.0)):
        velocity = flow.vector_field(0.0, flow.init(params), objective).params
        np.testing.assert_allclose(ravel_pytree(velocity)[0], -kick * 0.2 * gradient, rtol=1e-13)


@pytest.mark.slow
def test_float32_and_gradients_in_the_hyper_parameters():
    single = jax.tree.map(lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, (TANH, DATA))
    for rule in (HeavyBall(0.01, 0.8), Nesterov(0.01), NesterovFlow(0.01, 0.8), NesterovFlow(0.01)):
        small, big = tx.train(*single, rule, [1.0]), tx.train(TANH, DATA, rule, [1.0])
        assert small.observed.dtype == jnp.float32
        np.testing.assert_allclose(small.observed, big.observed, rtol=1e-3)

    def end(beta):
        return tx.train(TANH, DATA, HeavyBall(0.01, beta), [1.0]).observed[0]

    slopes = jax.jit(jax.vmap(jax.grad(end)))(jnp.asarray([0.3, 0.8]))
    ahead, behind = (jax.vmap(end)(jnp.asarray([0.3, 0.8]) + step) for step in (1e-5, -1e-5))
    np.testing.assert_allclose(slopes, (ahead - behind) / 2e-5, rtol=1e-6)
