"""River valleys whose curvature changes: simulations in NumPy, constant curvature, the resting place, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import tractax as tx
from tractax.rules import (
    NarrowingValley,
    QuasiStaticRiver,
    RiverDescent,
    RiverPoint,
    RiverValley,
    ScheduledDescent,
    stationary_spread,
)


def curvature(y):
    return 1 + y**2


def solve(rate, steps, *, c=0.1, h=curvature, x=0.0, y=0.8, noise=1.0, **options):
    """A river of slope c times the rate."""
    rule = ScheduledDescent(jnp.atleast_1d(rate), **{"batch_size": 1, **options})
    task = NarrowingValley(h, c * jnp.max(jnp.asarray(rate)), noise)
    return QuasiStaticRiver.from_model(RiverPoint(x, y), task, rule, steps=steps)


def simulated(rate, steps, runs):
    """Final positions, by the definition."""
    generator = np.random.default_rng(0)
    x, y = np.zeros(runs), np.full(runs, 0.8)
    for _ in range(steps):
        gradient = (1 + y**2) * x - generator.standard_normal(runs)
        y = y + rate * (0.1 * rate - y * x**2)
        x = x - rate * gradient
    return y


def test_the_error_is_proportional_to_the_rate():
    relative, chances = [], []
    for rate, steps in ((0.2, 45), (0.1, 180)):
        found = simulated(rate, steps, 20_000)
        relative.append((found.mean() - float(solve(rate, steps).evaluate(steps).river)) / rate)
        chances.append(found.std() / 20_000**0.5 / rate)
    # Not with another power: the ratio would be 2 or 1/2.
    assert relative[0] == pytest.approx(relative[1], abs=4 * np.hypot(*chances))
    assert relative[1] > 10 * chances[1]


def test_constant_curvature():
    solution = solve(0.2, 30, h=lambda y: 1.5 + 0 * y)
    valley = RiverValley(1.5, 0.02, 1.0)
    exact = RiverDescent.from_model(RiverPoint(0.0, 0.8), valley, ScheduledDescent(0.2 * jnp.ones(30), batch_size=1))
    np.testing.assert_allclose(solution.path.river, exact.path.river, rtol=1e-14)
    np.testing.assert_allclose(solution.path.spread, stationary_spread(valley, 0.2), rtol=1e-14)
    state = solution.evaluate(7.4)
    assert float(solution.loss(state)) == pytest.approx(float(exact.loss(state)), rel=1e-14)


@pytest.mark.slow
def test_noise_stops_the_river():
    solution = solve(0.1, 6000)
    rest = scipy.optimize.brentq(lambda y: 0.01 - y * 0.1 / ((1 + y**2) * (2 - 0.1 * (1 + y**2))), 0, 0.9)
    assert float(solution.evaluate(6000).river) == pytest.approx(rest, rel=1e-10)
    # A third of the rate pushes a third as much, which the river overcomes everywhere.
    free = QuasiStaticRiver.from_model(
        RiverPoint(0.0, rest), solution.task, ScheduledDescent(jnp.asarray([0.03]), batch_size=1), steps=20_000
    )
    assert float(free.evaluate(20_000).river) > 1.5
    # Without noise there is nothing in the way.
    quiet = solve(0.1, 100, batch_size=None).evaluate(100)
    assert float(quiet.river) == pytest.approx(0.9, rel=1e-13) and float(quiet.spread) == 0


@pytest.mark.slow
def test_rates_that_change_and_batches():
    rates = 0.2 * 0.995 ** jnp.arange(40.0)
    path = solve(rates, None, noise=2.0, batch_size=4).path
    y, c = 0.8, 0.02
    for rate, found in zip(rates, path.river[1:], strict=True):
        # The mean square across the valley, iterated to rest.
        m = 0.0
        for _ in range(400):
            m = (1 - rate * (1 + y**2)) ** 2 * m + rate**2
        y = y + rate * (c - y * m)
        assert float(found) == pytest.approx(float(y), rel=1e-12)


@pytest.mark.slow
def test_transformations_and_single_precision():
    def last(rate):
        return solve(rate, 20).evaluate(20.0).river

    rates = jnp.asarray([0.1, 0.15])
    together = jax.jit(jax.vmap(last))(rates)
    np.testing.assert_allclose(together, [last(rate) for rate in rates], rtol=1e-13)
    slope = (last(0.1 + 1e-5) - last(0.1 - 1e-5)) / 2e-5
    assert float(jax.grad(last)(0.1)) == pytest.approx(float(slope), rel=1e-7)
    single = jnp.float32
    task = NarrowingValley(curvature, single(0.01), single(1))
    rule = ScheduledDescent(jnp.asarray([0.1], single), batch_size=1)
    state = QuasiStaticRiver.from_model(RiverPoint(single(0), single(0.8)), task, rule, steps=20).evaluate(20.0)
    assert state.river.dtype == single and float(state.river) == pytest.approx(float(together[0]), rel=1e-5)


def test_refusals():
    task, point = NarrowingValley(curvature, 0.01, 1.0), RiverPoint(0.0, 0.8)
    rule = ScheduledDescent(jnp.asarray([0.1]), batch_size=1)
    for call, message in (
        (lambda: NarrowingValley(2.0, 0.1, 1.0), "`curvature` must be a function"),
        (lambda: NarrowingValley(curvature, 0.1, -1.0), "`noise` must be non-negative"),
        (lambda: NarrowingValley(curvature, np.nan, 1.0), "`descent` must be finite"),
        (lambda: solve(1.3, 5), "a stable valley.*FAILS"),
        (lambda: solve(0.1, 5, h=lambda y: y - 1), "a stable valley.*FAILS"),
        (lambda: solve(0.1, 5, x=2.0), "a start within the noise.*FAILS"),
        (lambda: solve(0.1, 5, x=0.1, batch_size=None), "a start within the noise.*FAILS"),
        (lambda: solve(0.1, 20, c=10.0), "a spread that changes slowly.*FAILS"),
        (lambda: solve(jnp.asarray([0.1, 0.05]), 5), "a spread that changes slowly.*FAILS"),
        (lambda: solve(jnp.asarray([0.1, 0.0]), 5), "a spread that changes slowly.*FAILS"),
        (lambda: solve(0.1, 0), "`steps` must be a whole number"),
        (lambda: solve(0.1, 5).evaluate(6.0), "horizon"),
        (lambda: solve(0.1, 5, weight_decay=0.1), "must have no weight decay for QuasiStaticRiver"),
        (lambda: QuasiStaticRiver.from_model(point, RiverValley(1.0, 0.1, 1.0), rule), "must be a NarrowingValley"),
        (lambda: QuasiStaticRiver.from_model(point, task, tx.GradientDescent(0.1)), "must be a ScheduledDescent"),
        (lambda: QuasiStaticRiver.from_model(jnp.ones(2), task, rule), "must be a RiverPoint"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    outside = QuasiStaticRiver.from_model(RiverPoint(0.0, 5.0), task, rule, steps=3, check=False)
    assert jnp.isinf(outside.path.spread[0])
