"""Exponents and their intervals, against known power laws and SciPy."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import tractax as tx


def test_exact_power_law():
    for exponent in (-2.0, -0.5, 1.0, 3.3):
        found = tx.scaling(lambda size, p=exponent: jnp.asarray(0.7 * size**p), [3.0, 10.0, 30.0, 200.0])
        assert float(found.exponent) == pytest.approx(exponent, abs=1e-12)
        assert found.contains(exponent) and not found.contains(exponent + 1e-6)


def test_interval_is_students():
    sizes = np.asarray([10.0, 20.0, 40.0, 80.0, 160.0])
    errors = sizes**-0.5 * np.asarray([1.1, 0.93, 1.02, 0.97, 1.05])
    lookup = dict(zip(sizes.tolist(), errors, strict=True))
    fit = stats.linregress(np.log(sizes), np.log(errors))
    for confidence in (0.5, 0.95, 0.999):
        found = tx.scaling(lambda size: jnp.asarray(lookup[size]), sizes.tolist(), confidence=confidence)
        margin = stats.t.ppf((1 + confidence) / 2, 3) * fit.stderr
        assert float(found.exponent) == pytest.approx(fit.slope, rel=1e-12)
        np.testing.assert_allclose(found.interval, [fit.slope - margin, fit.slope + margin], rtol=1e-8)


def test_interval_covers_as_often_as_it_says():
    generator = np.random.default_rng(0)
    sizes = [10.0, 30.0, 100.0, 300.0]

    def noisy(size):
        return jnp.asarray(size**-1.0 * np.exp(0.1 * generator.normal()))

    covered = sum(tx.scaling(noisy, sizes, confidence=0.8).contains(-1.0) for _ in range(200))
    assert 140 <= covered <= 180


def test_repeats_are_bootstrapped():
    generator = np.random.default_rng(1)

    def draws(size):
        return jnp.asarray(generator.normal(size=400) / np.sqrt(size))

    found = tx.scaling(draws, [10.0, 40.0, 160.0, 640.0])
    low, high = found.interval
    # What a change of spread by sampling would explain: 1/sqrt(2 n) in each log error.
    slope_error = 1 / np.sqrt(800) / np.sqrt(np.sum((np.log([10, 40, 160, 640]) - np.log(80)) ** 2))
    assert abs(float(found.exponent) + 0.5) < 4 * slope_error
    assert float(high - low) == pytest.approx(2 * 1.96 * slope_error, rel=0.3)


def test_correction_removes_the_next_order():
    def error(size):
        return jnp.asarray(size**-1.0 * (1 + 3 / size))

    sizes = [20.0, 40.0, 80.0, 160.0, 320.0]
    assert abs(float(tx.scaling(error, sizes).exponent) + 1) > 0.02
    assert abs(float(tx.scaling(error, sizes, correction=-1.0).exponent) + 1) < 0.003


def test_sizes_arrive_as_they_were_given():
    given = []

    def error(size):
        given.append(size)
        return jnp.asarray(1.0 / size)

    tx.scaling(error, [2, 4, 8])
    tx.scaling(error, np.asarray([2, 4, 8]))
    assert all(type(size) is int for size in given)


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ([1.0, 2.0], {}, "`sizes` must be at least 3 different positive numbers"),
        ([1.0, 2.0, 2.0], {}, "`sizes` must be at least 3 different"),
        ([1.0, 2.0, -3.0], {}, "positive"),
        ([1.0, 2.0, np.inf], {}, "`sizes`"),
        ([1.0, 2.0, 3.0], {"correction": 1.0}, "at least 4 different"),
        ([1.0, 2.0, 3.0], {"confidence": 1.0}, "`confidence` must lie between 0 and 1"),
    ],
)
def test_refuses_bad_sizes(sizes, options, message):
    with pytest.raises(ValueError, match=message):
        tx.scaling(lambda size: jnp.asarray(size), sizes, **options)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_refuses_errors_that_have_no_logarithm(bad):
    if bad == -1.0:
        # A signed error counts by its size.
        assert tx.scaling(lambda size: jnp.asarray(-size), [1.0, 2.0, 4.0]).contains(1.0)
        return
    with pytest.raises(ValueError, match="`f` must return positive finite errors"):
        tx.scaling(lambda size: jnp.asarray(bad), [1.0, 2.0, 4.0])
