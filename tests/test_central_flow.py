"""Central flows: sharpness, the field at and below the edge, reference values, means of descent, refusals."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import tractax as tx
from tractax.deep_linear import RegressionTask
from tractax.rules import (
    CentralFlow,
    RMSPropCentralFlow,
    RMSPropState,
    SharpeningValley,
    SharpeningValleyFlow,
    ValleyPoint,
    scalar_rmsprop,
    sharpness,
)
from tractax.two_layer import TwoLayerNetwork

VALLEY, RATE = SharpeningValley(0.01, 0.004, 3.0), 0.1
EDGE = ValleyPoint(0.0, 2 / RATE - 0.04, 0.2)


class Point(eqx.Module):
    """A model that is nothing but its parameters."""

    w: jax.Array


class Quadratic(tx.AbstractTask):
    """½ wᵀHw."""

    hessian: jax.Array

    def loss(self, model):
        return model.w @ self.hessian @ model.w / 2


def network(dtype=jnp.float64):
    rng = np.random.default_rng(8)
    first, second, inputs, targets = (jnp.asarray(rng.normal(size=s), dtype) for s in ((3, 2), 3, (5, 2), 5))
    return TwoLayerNetwork(first, second, "tanh"), RegressionTask(inputs, targets)


@pytest.fixture(scope="module")
def dense():
    """Gradient, largest eigenvalue of the whole Hessian, and its derivative, by automatic differentiation."""
    model, task = network()
    params, static = eqx.partition(model, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(params)

    def loss(w):
        return task.loss(eqx.combine(unravel(w), static))

    top, slope = jax.jit(jax.value_and_grad(lambda w: jnp.linalg.eigvalsh(jax.hessian(loss)(w))[-1]))(flat)
    return jax.grad(loss)(flat), top, slope


@eqx.filter_jit
def velocity(rule, model, task, nu=None):
    params, static = eqx.partition(model, eqx.is_inexact_array)
    state = params if nu is None else RMSPropState(params, nu)
    moved = rule.vector_field(0.0, state, tx.Objective(task, static))
    return ravel_pytree(moved if nu is None else moved.params)[0], None if nu is None else moved.second_moment


def test_sharpness(dense):
    assert float(eqx.filter_jit(sharpness)(*network())) == pytest.approx(float(dense[1]), rel=1e-12)
    of_quadratic = eqx.filter_jit(lambda hessian: sharpness(Point(jnp.ones(hessian.shape[0])), Quadratic(hessian)))
    # Repeated eigenvalues use up the space of the first vector at once; negative ones must not be taken for large.
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    for eigenvalues in ([3.0, 3.0, 3.0], [-1.0, -1.0, -2.0], [0.0, 0.0, 0.0], [2.0, 0.0, -5.0]):
        found = of_quadratic(jnp.asarray(turn @ np.diag(eigenvalues) @ turn.T))
        assert float(found) == pytest.approx(max(eigenvalues), abs=1e-12)
    spectrum = np.append(np.linspace(-1, 1, 199), 1.5)
    many = of_quadratic(jnp.diag(jnp.asarray(spectrum)))
    assert float(many) == pytest.approx(1.5, rel=1e-6)


def test_field_of_descent(dense):
    model, task = network()
    g, top, slope = dense
    below = velocity(CentralFlow(0.5 / top), model, task)[0]
    np.testing.assert_allclose(below, -g, rtol=1e-11)
    # At the edge: gradient flow without the part that would raise the sharpness.
    at = velocity(CentralFlow(2 / top), model, task)[0]
    assert float(-g @ slope) > 0
    np.testing.assert_allclose(at, -(g - slope * (g @ slope) / (slope @ slope)), rtol=1e-10, atol=1e-13)
    # Beyond: the excess falls at the rate of one step.
    beyond = velocity(CentralFlow(2.2 / top), model, task)[0]
    assert float(slope @ beyond) == pytest.approx(-float((top - top / 1.1) * top / 2.2), rel=1e-10)


def test_field_of_rmsprop(dense):
    model, task = network()
    g, top, slope = dense
    eta, decay = 1.0, 0.9
    nu = (eta * top / 2) ** 2
    rule = RMSPropCentralFlow(eta, decay, nu)
    found, change = velocity(rule, model, task, nu)
    # The published variance, with the time of a step for unit.
    memory = 1 - decay
    top_growth = decay * (-g @ slope) + memory * (top**2 / 4 - g @ g / eta**2)
    variance = jnp.maximum(0, top_growth / (decay * slope @ slope / 2 + memory * top**2 / eta**2))
    assert float(variance) > 0
    np.testing.assert_allclose(found, -(g + variance / 2 * slope) / jnp.sqrt(nu), rtol=1e-10, atol=1e-13)
    assert float(change) == pytest.approx(float(memory / decay * (g @ g + top**2 * variance - nu) / eta), rel=1e-10)
    # Which holds the edge.
    assert float(slope @ found - change / (eta * jnp.sqrt(nu))) == pytest.approx(0, abs=1e-10)
    free, change = velocity(rule, model, task, 100 * nu)
    np.testing.assert_allclose(free, -g / (10 * jnp.sqrt(nu)), rtol=1e-10)
    assert float(change) == pytest.approx(float(memory / decay * (g @ g - 100 * nu) / eta), rel=1e-10)


def test_reference_valley():
    solution = SharpeningValleyFlow.from_model(EDGE, VALLEY, CentralFlow(RATE))
    end = solution.limit()
    np.testing.assert_allclose([end.z, end.y, solution.variance(end.z)], [0.5, 19.75, 0.02], rtol=1e-14)
    found = jax.vmap(solution.evaluate)(RATE * jnp.asarray([500.0, 2000.0, 5000.0, 1e4])).z
    np.testing.assert_allclose(found, [0.3750, 0.48310, 0.49955, 0.5000], atol=5.1e-5)
    assert float(solution.variance(found[1])) == pytest.approx(0.02041, abs=5e-6)
    for t in (1e12, jnp.inf):
        assert float(solution.evaluate(t).z) == pytest.approx(0.5, rel=1e-14)
    at_rest = SharpeningValleyFlow.from_model(ValleyPoint(0.0, 19.75, 0.5), VALLEY, CentralFlow(RATE))
    assert float(at_rest.evaluate(7.0).z) == pytest.approx(0.5, rel=1e-14)


@pytest.mark.slow
def test_oscillation():
    rule = CentralFlow(RATE)
    found = rule.oscillation(EDGE, VALLEY)
    variance = 2 * (0.01 + 2 * 0.004 * 0.2 * 2.8) / 1.16
    loss = float(VALLEY.loss(EDGE)) + 20 * variance / 2
    np.testing.assert_allclose([found.sharpness, found.variance, found.loss], [20.0, variance, loss], rtol=1e-10)
    below = rule.oscillation(ValleyPoint(0.0, 15.0, 0.2), VALLEY)
    assert float(below.variance) == 0 and float(below.sharpness) == pytest.approx(15.04)


def test_scalar_rmsprop_is_its_definition():
    eta, decay, nu = 0.02, 0.9, 0.3
    optimiser = scalar_rmsprop(eta, decay, initial=nu)
    params = {"a": jnp.asarray([1.0, -2.0]), "b": jnp.asarray(3.0)}
    state, expected = optimiser.init(params), np.asarray([1.0, -2.0, 3.0])
    for _ in range(3):
        updates, state = optimiser.update(params, state)
        params = optax.apply_updates(params, updates)
        nu = decay * nu + (1 - decay) * expected @ expected
        expected = expected - eta * expected / np.sqrt(nu)
    np.testing.assert_allclose(ravel_pytree(params)[0], expected, rtol=1e-14)
    still = scalar_rmsprop(eta)
    updates, _ = still.update(jnp.zeros(2), still.init(jnp.zeros(2)))
    np.testing.assert_array_equal(updates, np.zeros(2))


def test_float32():
    single = velocity(CentralFlow(1.0), *network(jnp.float32))[0]
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, velocity(CentralFlow(1.0), *network())[0], rtol=2e-3, atol=2e-4)


@pytest.mark.slow
def test_transformations():
    rates, nu = jnp.asarray([0.5, 1.0]), jnp.asarray(0.1)
    rmsprop = velocity(RMSPropCentralFlow(1.0, 0.9, 0.1), *network(jnp.float32), nu.astype(jnp.float32))
    reference = velocity(RMSPropCentralFlow(1.0, 0.9, 0.1), *network(), nu)
    assert all(x.dtype == jnp.float32 for x in rmsprop)
    for single, double in zip(rmsprop, reference, strict=True):
        np.testing.assert_allclose(single, double, rtol=2e-3, atol=2e-4)

    def at(eta):
        return velocity(CentralFlow(eta), *network())[0]

    together = jax.vmap(at)(rates)
    np.testing.assert_allclose(together[1], at(rates[1]), rtol=1e-9, atol=1e-12)
    slope = jax.jacfwd(at)(1.0)
    np.testing.assert_allclose(slope, (at(1.0 + 1e-6) - at(1.0 - 1e-6)) / 2e-6, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_from_below_the_edge_and_from_beyond():
    rule, ts = CentralFlow(RATE), [150.0, 300.0, 900.0]
    for y in (15.0, 22.0):
        start = ValleyPoint(0.0, y, 0.2)
        run = tx.train(start, VALLEY, rule, ts, observe=lambda model: sharpness(model, VALLEY))
        ahead = tx.train(start, VALLEY, tx.GradientFlow(), ts[:1], observe=lambda model: sharpness(model, VALLEY))
        if y < 20:
            np.testing.assert_allclose(run.observed[0], ahead.observed[0], rtol=1e-6)
        np.testing.assert_allclose(run.observed[1:], 20.0, rtol=1e-6)


@pytest.mark.slow
def test_reference_rmsprop():
    eta, decay, nu = 0.02, 0.99, (0.02 * 1.04 / 2) ** 2
    task, rule = SharpeningValley(0.002, 0.001, 3.0), RMSPropCentralFlow(eta, decay, nu)
    params, static = eqx.partition(ValleyPoint(0.0, 1.0, 0.2), eqx.is_inexact_array)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(rule.vector_field),
        diffrax.Tsit5(),
        t0=0.0,
        t1=eta * 3000,
        dt0=None,
        y0=rule.init(params),
        args=tx.Objective(task, static),
        stepsize_controller=diffrax.PIDController(rtol=1e-8, atol=1e-12),
    )
    state = jax.tree.map(lambda x: float(x[0]), solution.ys)
    np.testing.assert_allclose([state.params.y, state.params.z], [3.5764, 2.1309], atol=6e-5)
    assert state.second_moment == pytest.approx(0.0065889, abs=6e-8)
    # Descent itself, over 401 steps: the published means of another start's oscillation, and the edge.
    ks = eta * jnp.arange(2800.0, 3201.0)
    descent = tx.GradientDescent(eta, scalar_rmsprop(eta, decay, initial=nu))
    run = tx.train(ValleyPoint(1e-3, 1.0, 0.2), task, descent, ks, observe=lambda model: (model.y, model.z))
    np.testing.assert_allclose(jnp.mean(jnp.stack(run.observed), axis=1), [3.5758, 2.1307], rtol=1e-3)


def test_refusals():
    rule = CentralFlow(RATE)
    for call, message in (
        (lambda: CentralFlow(0.0), "`learning_rate` must be positive"),
        (lambda: CentralFlow(0.1, iterations=0), "`iterations` must be a whole number of at least 1; got 0"),
        (lambda: RMSPropCentralFlow(0.1, 1.0, 1.0), "`decay` must lie below 1"),
        (lambda: RMSPropCentralFlow(0.1, 0.9, 0.0), "`initial` must be positive"),
        (lambda: scalar_rmsprop(0.1, 1.5), "`decay` must lie below 1"),
        (lambda: scalar_rmsprop(0.1, 0.9, initial=-1.0), "`initial` must be non-negative"),
        (lambda: SharpeningValley(0.0, 1.0, 1.0), "`slope` must be positive"),
        (lambda: ValleyPoint(jnp.ones(2), 0.0, 0.0), "`x` must be one number"),
        (lambda: SharpeningValleyFlow.from_model(EDGE, VALLEY), "`rule` must be a CentralFlow"),
        (lambda: SharpeningValleyFlow.from_model(ValleyPoint(0.0, 15.0, 0.2), VALLEY, rule), "at the edge"),
        (lambda: SharpeningValleyFlow.from_model(ValleyPoint(0.1, 19.96, 0.2), VALLEY, rule), "on the floor"),
        (lambda: SharpeningValleyFlow.from_model(ValleyPoint(0.0, 4.0, -4.0), VALLEY, rule), "pushed over the edge"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
