"""Taylor radius of cross-entropy: reference value, zeros found by search, coefficients, limited steps, refusals."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import MODEL, TASK

import tractax as tx
from tractax.rules import (
    RadiusLimit,
    binary_ghost,
    binary_taylor_radius,
    cross_entropy_coefficients,
    logits_along,
    taylor_radius_bound,
)
from tractax.two_layer import CrossEntropyTask, TwoLayerNetwork

RHO = 1.6484541547378075


def test_reference_value():
    # Logits 1 and 0 apart by one, slopes by two.
    logits, slopes = jnp.asarray([0.7, -0.3]), jnp.asarray([0.5, -1.5])
    assert float(binary_taylor_radius(logits, slopes)) == pytest.approx(RHO, rel=1e-15)
    ghost = complex(binary_ghost(logits, slopes))
    assert abs(ghost) == pytest.approx(RHO, rel=1e-15)
    assert abs(np.sum(np.exp(np.asarray(logits) + np.asarray(slopes) * ghost))) < 1e-14
    assert float(taylor_radius_bound(slopes)) == pytest.approx(np.pi / 2, rel=1e-15)
    equal = jnp.zeros(2)
    assert float(binary_taylor_radius(equal, slopes)) == float(taylor_radius_bound(slopes))


def test_no_effect_no_ghost():
    logits, still = jnp.asarray([[0.3, 1.0], [0.1, 0.2]]), jnp.asarray([[2.0, 2.0], [0.0, 1.0]])
    np.testing.assert_array_equal(jnp.isinf(binary_taylor_radius(logits, still)), [True, False])
    np.testing.assert_array_equal(jnp.isinf(taylor_radius_bound(still)), [True, False])
    slope = jax.grad(lambda a: jnp.min(taylor_radius_bound(a)))(still)
    assert jnp.all(jnp.isfinite(slope))


def _nearest_zero(z, a):
    """The smallest zero of Σ exp(z + a t), by Newton's method from a grid."""
    t = (np.linspace(-8, 8, 81)[:, None] + 1j * np.linspace(0.05, 8, 40)[None, :]).ravel()
    with np.errstate(all="ignore"):
        for _ in range(60):
            terms = np.exp(z[:, None] + a[:, None] * t[None, :])
            t = t - terms.sum(0) / (a[:, None] * terms).sum(0)
        residual = np.abs(np.exp(z[:, None] + a[:, None] * t[None, :]).sum(0))
    return np.min(np.abs(t[residual < 1e-9]))


@pytest.mark.parametrize("classes", [2, 3, 4, 6])
def test_bound_against_a_search_for_zeros(classes):
    generator = np.random.default_rng(classes)
    for _ in range(5):
        z, a = generator.standard_normal((2, classes))
        nearest = _nearest_zero(z, a)
        assert float(taylor_radius_bound(a)) <= nearest * (1 + 1e-12)
        if classes == 2:
            assert float(binary_taylor_radius(z, a)) == pytest.approx(nearest, rel=1e-10)


@pytest.fixture(scope="module")
def coefficients():
    return np.asarray(cross_entropy_coefficients(jnp.asarray([1.0, 0.0]), jnp.asarray([2.0, 0.0]), 1, 200, RHO))


def test_coefficients_of_high_order(coefficients):
    n, theta = np.arange(20, 201), np.angle((-1 + 1j * np.pi) / 2)
    np.testing.assert_allclose(coefficients[20:], -2 / n * np.cos(n * theta), rtol=1e-9, atol=1e-14)
    b = np.arange(201) * coefficients
    _, q = np.linalg.solve([[b[-3], b[-4]], [b[-2], b[-3]]], [b[-2], b[-1]])
    assert 1 / np.sqrt(-q) == pytest.approx(1, rel=1e-13)
    assert np.exp(np.max(np.log(np.abs(coefficients[150:]) + 1e-300) / np.arange(150, 201))) == pytest.approx(1, abs=0.03)


@pytest.mark.slow
def test_coefficients_are_derivatives():
    z, a, label = jnp.asarray([0.4, -1.2, 0.9]), jnp.asarray([1.0, -0.7, 0.3]), 2
    found = cross_entropy_coefficients(z, a, label, 3, 0.8)

    def loss(t):
        return optax.losses.softmax_cross_entropy_with_integer_labels(z + a * 0.8 * t, jnp.asarray(label))

    derivatives = [loss]
    for _ in range(3):
        derivatives.append(jax.grad(derivatives[-1]))
    expected = [float(jax.jit(d)(0.0)) / math.factorial(n) for n, d in enumerate(derivatives)]
    np.testing.assert_allclose(found, expected, rtol=1e-11)
    np.testing.assert_allclose(cross_entropy_coefficients(z, a, label, 0), expected[:1], rtol=1e-14)
    np.testing.assert_allclose(cross_entropy_coefficients(z, a, label, 1, 0.8), expected[:2], rtol=1e-14)


def test_polynomials_within_and_beyond_the_radius(coefficients):
    def error(fraction, order):
        t = fraction * RHO
        polynomial = np.sum(coefficients[: order + 1] * fraction ** np.arange(order + 1))
        return abs(polynomial - np.logaddexp(1 + 2 * t, 0.0))

    assert error(0.8, 120) < 1e-9 < error(0.8, 30)
    assert error(1.2, 120) > 1e5 > 1 > error(1.2, 5)


def test_radius_after_moving_along_the_step():
    # The zeros do not move: from t₀ on, the radius is their distance from there.
    logits, slopes, t = jnp.asarray([1.0, 0.0]), jnp.asarray([2.0, 0.0]), 0.9
    ghost = complex(binary_ghost(logits, slopes))
    assert float(binary_taylor_radius(logits + slopes * t, slopes)) == pytest.approx(abs(ghost - t), rel=1e-14)


def _network():
    keys = jax.random.split(jax.random.key(0), 3)
    model = TwoLayerNetwork(jax.random.normal(keys[0], (4, 2)), jax.random.normal(keys[1], (3, 4)), "tanh")
    return model, CrossEntropyTask(jax.random.normal(keys[2], (6, 2)), jnp.arange(6) % 3)


def test_task_and_slopes_of_any_model():
    model, task = _network()
    logits = np.asarray(jax.vmap(model)(task.inputs))
    scores = np.log(np.exp(logits).sum(1)) - logits[np.arange(6), np.arange(6) % 3]
    assert float(task.loss(model)) == pytest.approx(np.mean(scores), rel=1e-14)
    direction = jax.tree.map(jnp.ones_like, eqx.filter(model, eqx.is_inexact_array))
    found, slopes = logits_along(task.logits, model, direction)
    np.testing.assert_allclose(found, logits, rtol=1e-14)
    ahead, behind = (
        jax.vmap(eqx.tree_at(lambda m: (m.first, m.second), model, (model.first + h, model.second + h)))(task.inputs)
        for h in (1e-6, -1e-6)
    )
    np.testing.assert_allclose(slopes, (ahead - behind) / 2e-6, rtol=1e-7, atol=1e-8)


def test_limited_steps():
    model, task = _network()
    params, static = eqx.partition(model, eqx.is_inexact_array)
    objective = tx.Objective(task, static)

    @jax.jit
    def spread(rate):
        """By how much a step moves logits against each other, to first order, and the direction that it takes."""
        rule = RadiusLimit(tx.GradientDescent(rate), task.logits, 0.5)
        new, _ = rule.step(params, rule.init(params), objective, key=None)
        change = jax.tree.map(jnp.subtract, new, params)
        _, slopes = logits_along(task.logits, model, change)
        return jnp.max(jnp.max(slopes, axis=1) - jnp.min(slopes, axis=1)), change

    gradient = objective.gradient(params)
    reached, change = spread(100.0)
    assert float(reached) == pytest.approx(np.pi / 2, rel=1e-12)
    ratio = change.first / gradient.first
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-9)
    _, small = spread(1e-3)
    np.testing.assert_allclose(small.second, -1e-3 * gradient.second, rtol=1e-9, atol=1e-15)


def _step_of_still_logits(rate):
    model, task = _network()
    params, static = eqx.partition(model, eqx.is_inexact_array)
    rule = RadiusLimit(tx.GradientDescent(rate), lambda model: jnp.zeros((6, 3)))
    return rule.step(params, rule.init(params), tx.Objective(task, static), key=None)[0].first


@pytest.mark.slow
def test_training_over_learning_rates_and_in_float32():
    model, task = _network()

    def final(rate):
        rule = RadiusLimit(tx.GradientDescent(rate, time_per_step=1.0), task.logits)
        return tx.train(model, task, rule, [30.0]).observed

    found = jax.jit(jax.vmap(final))(jnp.asarray([0.5, 50.0]))
    assert jnp.all(found < task.loss(model))
    # Where nothing moves the logits, steps are as long as the rule has them, and derivatives are finite.
    slope = jax.grad(lambda rate: jnp.sum(_step_of_still_logits(rate)))(0.3)
    assert jnp.isfinite(slope)
    small, single = (
        jax.tree.map(lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, tree) for tree in (model, task)
    )
    rule = RadiusLimit(tx.GradientDescent(0.5, time_per_step=1.0), single.logits)
    run = tx.train(small, single, rule, [30.0])
    assert run.observed.dtype == jnp.float32
    np.testing.assert_allclose(run.observed[0], found[0, 0], rtol=1e-3)


def test_float32_radius():
    logits, slopes = jnp.asarray([1.0, 0.0], jnp.float32), jnp.asarray([2.0, 0.0], jnp.float32)
    radius = binary_taylor_radius(logits, slopes)
    assert radius.dtype == jnp.float32 and float(radius) == pytest.approx(RHO, rel=1e-6)
    assert jnp.all(jnp.isfinite(cross_entropy_coefficients(logits, slopes, 0, 60, RHO)))
    assert float(binary_taylor_radius(1e30 * logits, slopes)) == pytest.approx(0.5e30, rel=1e-6)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: binary_taylor_radius(jnp.zeros(3), jnp.ones(3)), r"two classes along the last axis; got \(3,\)"),
        (lambda: taylor_radius_bound(jnp.asarray([jnp.nan, 1.0])), "`slopes` must be finite"),
        (lambda: cross_entropy_coefficients(jnp.zeros(2), jnp.ones(3), 0, 4), r"`slopes` must have shape \(2,\)"),
        (lambda: cross_entropy_coefficients(jnp.zeros(2), jnp.ones(2), 0, -1), "`order` must be a whole number"),
        (lambda: cross_entropy_coefficients(jnp.zeros(2), jnp.ones(2), 0, 4, 0.0), "`scale` must be positive"),
        (lambda: RadiusLimit(tx.GradientFlow(), TASK.loss), "`rule` must be a step rule, .*; got GradientFlow"),
        (lambda: RadiusLimit(tx.GradientDescent(1.0), MODEL, 0.0), "`fraction` must be positive"),
    ],
)
def test_refuses(build, message):
    with pytest.raises(ValueError, match=message):
        build()
