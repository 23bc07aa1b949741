"""DeepModes against quadrature, SciPy and gradient descent; fixed points, refusals."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import tractax as tx
from tractax.deep_linear import (
    DeepLinear,
    DeepModes,
    LinearTask,
    TwoLayerModes,
    aligned,
    deep_mode,
    gaussian,
    infinite_depth_time,
    largest_stable_rate,
    learning_time,
)
from tractax.systems import get

gradient = jax.jit(jax.grad(deep_mode, (0, 1, 2)), static_argnums=3)

# (u0, s, u): rising, falling, without signal, from the wrong side.
JOURNEYS = (
    (1e-3, 2.0, 1.0),
    (1e-10, 1.0, 0.9999999),
    (0.3, 1.0, 0.95),
    (3.0, 1.0, 1.01),
    (3.0, 1.0, 2.9),
    (1e4, 1e-3, 2e-3),
    (0.1, 1e-17, 0.01),
    (0.1, 0.0, 0.03),
    (-0.3, 1.0, -1e-3),
    (-2.0, 1e-9, -1e-3),
    (-30.0, 1.0, -1e-10),
    (2.0, -1.0, 1e-5),
)


@pytest.mark.parametrize(
    ("depth", "expected"), [(2, 2.059435950973), (3, 2.403354692963), (4, 2.691177804209), (8, 2.789726929148)]
)
def test_reference_times(depth, expected):
    assert float(learning_time(0.01, 1.9, 2.0, depth)) == pytest.approx(expected, abs=1e-12)
    assert float(deep_mode(0.01, 2.0, expected, depth)) == pytest.approx(1.9, rel=1e-12)


def _quadrature(u0, u, s, depth):
    """The time by 30-digit quadrature, on intervals that are equal in the logarithm of u."""
    with mp.workdps(30):
        u0, u, power = mp.mpf(u0), mp.mpf(u), 2 - mp.mpf(2) / depth
        ends = [u0 * (u / u0) ** (mp.mpf(k) / 12) for k in range(13)]
        return mp.quad(lambda v: 1 / (depth * abs(v) ** power * (s - v)), ends)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [2, 3, 4, 8, 50])
def test_times_and_curves_against_quadrature(depth):
    for u0, s, u in JOURNEYS:
        t = float(_quadrature(u0, u, s, depth))
        assert float(learning_time(u0, u, s, depth)) == pytest.approx(t, rel=1e-12), (u0, s, u)
        # An error of 1e-15 in the (rounded) time or, where that is less, in the logarithm of the initial strength.
        speed, first_speed = (depth * abs(v) ** (2 - 2 / depth) * abs(s - v) for v in (u, u0))
        rounding = 4e-15 * speed * max(t, depth * abs(u0) / first_speed)
        assert float(deep_mode(u0, s, t, depth)) == pytest.approx(u, rel=1e-12, abs=rounding), (u0, s, u)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [1, 2, 3, 7])
@pytest.mark.parametrize(("u0", "s"), [(0.05, 1.3), (2.0, 0.7), (0.6, 0.0), (-0.5, 1.1), (0.8, -0.4)])
def test_derivatives_against_scipy(depth, u0, s):
    def by_scipy(u0, s, t):
        def field(_, u):
            return depth * np.abs(u) ** (2 - 2 / depth) * (s - u)

        return solve_ivp(field, (0, t), [u0], method="DOP853", rtol=1e-12, atol=1e-14).y[0, -1]

    t, h = 0.9, 1e-4
    assert float(deep_mode(u0, s, t, depth)) == pytest.approx(by_scipy(u0, s, t), rel=1e-9)
    found = gradient(u0, s, t, depth)
    point = np.array([u0, s, t])
    for slope, step in zip(found, h * np.eye(3), strict=True):
        expected = (by_scipy(*(point + step)) - by_scipy(*(point - step))) / (2 * h)
        assert float(slope) == pytest.approx(expected, rel=1e-5, abs=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [1, 2, 3, 7])
def test_ends_and_fixed_points(depth):
    for u0, s in ((0.01, 2.0), (3.0, 2.0), (3.0, 0.0), (-3.0, 1.0), (0.0, 1.0), (1.0, 1.0), (-1.0, -3.0), (1e-30, 1e6)):
        learned = depth == 1 or (s != 0 and u0 * s > 0)
        end = deep_mode(u0, s, jnp.inf, depth)
        assert float(end) == (s if learned else 0.0)
        assert float(deep_mode(u0, s, 0.0, depth)) == pytest.approx(u0, rel=1e-13)
        slopes = gradient(u0, s, 1e12, depth)
        assert all(bool(jnp.isfinite(slope)) for slope in slopes)
    # A weak perturbation of the fixed point decays at the rate of the Hessian.
    slope = gradient(2.0, 2.0, 0.1, depth)[0]
    assert float(slope) == pytest.approx(np.exp(-0.1 * depth * 2 ** (2 - 2 / depth)), rel=1e-12)


def test_time_that_is_never_reached():
    for depth in (1, 3):
        assert float(learning_time(0.1, 1.0, 1.0, depth)) == np.inf
        assert float(learning_time(2.0, 1.0, 1.0, depth)) == np.inf
        assert float(learning_time(0.1, 0.1, 1.0, depth)) == 0.0
        assert np.isnan(float(learning_time(0.1, 0.05, 1.0, depth)))
        assert np.isnan(float(learning_time(0.1, 1.5, 1.0, depth)))
    assert float(learning_time(-0.1, 0.0, 1.0, 3)) == np.inf
    assert np.isnan(float(learning_time(-0.1, 0.5, 1.0, 3)))
    assert float(learning_time(-0.1, 0.5, 1.0, 1)) == pytest.approx(np.log(2.2))
    times = learning_time(jnp.asarray([0.1, 0.2])[:, None], jnp.asarray([0.3, 0.4, 0.5])[None, :], 1.0, 3)
    assert times.shape == (2, 3)


@pytest.mark.slow
def test_two_layers_are_two_layer_modes():
    task = LinearTask(jnp.diag(jnp.asarray([3.0, 1.0])))
    model = aligned(task, (2,), strength=0.01, key=jax.random.key(0))
    ts = jnp.linspace(0.0, 6.0, 13)
    deep = jax.vmap(DeepModes.from_model(model, task).product)(ts)
    np.testing.assert_allclose(deep, jax.vmap(TwoLayerModes.from_model(model, task).product)(ts), rtol=0, atol=1e-13)


@pytest.mark.slow
def test_steps_become_independent_of_depth():
    steps = [get("deep_modes").steps(depth) for depth in (2, 8, 512)]
    assert steps == [189, 266, 303]
    limit = float(infinite_depth_time(0.3, 0.95, 1.0)) / 0.02
    assert limit == pytest.approx(303.6, abs=0.05)
    gaps = [limit - depth * float(learning_time(0.3, 0.95, 1.0, depth)) / 0.02 for depth in (64, 128, 256)]
    # The approach is of order 1/L.
    np.testing.assert_allclose(np.divide(gaps[:-1], gaps[1:]), 2.0, rtol=0.05)


def test_infinite_depth_from_above():
    expected = mp.quad(lambda v: 1 / (v**2 * (1 - v)), [3, 2, 1.1])
    assert float(infinite_depth_time(3.0, 1.1, 1.0)) == pytest.approx(float(expected), rel=1e-13)
    assert np.isnan(float(infinite_depth_time(0.3, 1.1, 1.0)))


@pytest.mark.slow
@pytest.mark.parametrize("depth", [2, 5])
def test_gradient_descent_is_stable_below_the_bound_only(depth, getkey):
    task = LinearTask(jnp.diag(jnp.asarray([1.5, 0.8])))
    minimum = aligned(task, (3,) * (depth - 1), strength=jnp.asarray([1.5, 0.8]), key=getkey())
    keys = jax.random.split(getkey(), depth)
    nearby = DeepLinear(
        tuple(w + 1e-6 * jax.random.normal(key, w.shape) for w, key in zip(minimum.weights, keys, strict=True))
    )
    bound = largest_stable_rate(1.5, depth)
    losses = []
    for factor in (0.98, 1.02):
        rule = tx.GradientDescent(factor * bound)
        losses.append(float(tx.train(nearby, task, rule, 400 * rule.time_per_step[None]).observed[0]))
    start = float(task.loss(nearby))
    assert losses[0] < 1e-4 * start and losses[1] > 1e2 * start


@pytest.mark.slow
def test_half_times():
    task = LinearTask(jnp.diag(jnp.asarray([3.0, 2.0, 1.0])))
    solution = DeepModes.from_model(aligned(task, (3, 3), strength=0.1), task, tx.GradientFlow(2.0))
    strengths = jax.vmap(lambda t: solution.evaluate(t).strength)(solution.half_times())
    np.testing.assert_allclose(jnp.diagonal(strengths), solution.singular_values / 2, rtol=1e-12)


@pytest.mark.slow
def test_mode_without_a_hidden_unit_never_moves():
    task = LinearTask(jnp.diag(jnp.asarray([2.0, 1.0])))
    solution = DeepModes.from_model(aligned(task, (3, 1, 3), strength=0.5, key=jax.random.key(0)), task)
    np.testing.assert_allclose(solution.evaluate(1e12).strength, jnp.asarray([2.0, 0.0]), rtol=1e-12)


def test_refuses_what_it_does_not_cover(getkey):
    task = LinearTask(jnp.diag(jnp.asarray([2.0, 1.0])))
    model = aligned(task, (2, 2), strength=0.1)
    first, *others = model.weights
    with pytest.raises(ValueError, match=r"aligned weights.*FAILS \(violation \d"):
        DeepModes.from_model(gaussian((2, 3, 3, 2), scale=0.1, key=getkey()), task)
    with pytest.raises(ValueError, match=r"balanced modes.*FAILS \(violation 0\.5"):
        DeepModes.from_model(DeepLinear((2 * first, *others)), task)
    with pytest.raises(ValueError, match="whitened inputs"):
        DeepModes.from_model(model, LinearTask(jnp.diag(jnp.asarray([2.0, 1.0])), jnp.diag(jnp.asarray([1.0, 2.0]))))
    with pytest.raises(ValueError, match="no weight decay"):
        DeepModes.from_model(model, task, tx.GradientFlow(weight_decay=0.1))
    with pytest.raises(ValueError, match="equal rates"):
        DeepModes.from_model(model, task, tx.GradientFlow(rates=jnp.asarray([1.0, 1.0, 0.5])))
    with pytest.raises(ValueError, match="GradientFlow"):
        DeepModes.from_model(model, task, tx.GradientDescent(0.1))
    with pytest.raises(ValueError, match="2 inputs and 2 outputs"):
        DeepModes.from_model(gaussian((3, 2), scale=1.0, key=getkey()), task)
    with pytest.raises(ValueError, match=r"`depth` must be a whole number.*got 0"):
        learning_time(0.1, 0.2, 1.0, 0)
    with pytest.raises(ValueError, match="`s` must be positive"):
        largest_stable_rate(0.0, 3)
    unchecked = DeepModes.from_model(gaussian((2, 3, 3, 2), scale=0.1, key=getkey()), task, check=False)
    assert jnp.all(jnp.isfinite(unchecked.evaluate(1.0).strength))
