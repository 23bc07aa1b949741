"""The curve of massive activations: reference values, its peak, fits with and without noise, the ratio, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from tractax.transformers import MassiveActivationCurve, activation_ratio, fit_massive_activation

CURVE = MassiveActivationCurve(50, 0.02, 0.5, 1.2, 10)


def test_reference_values():
    assert float(CURVE(0.0)) == pytest.approx(18.899896523937649, rel=1e-15)
    assert float(CURVE.peak_time) == pytest.approx(32.554155447704076, rel=1e-14)
    assert float(CURVE.peak_value) == pytest.approx(110.847984431720889, rel=1e-14)


@pytest.mark.parametrize("decay", [1e-12, 1e-3, 0.3, 20.0, 100.0])
def test_peak_is_the_maximum(decay):
    curve = MassiveActivationCurve(3.0, decay, 0.7, 1e-3, 0.0)
    peak, value = float(curve.peak_time), float(curve.peak_value)
    found = scipy.optimize.minimize_scalar(lambda t: -float(curve(t)), bounds=(0.2 * peak, 5 * peak), method="bounded")
    assert found.x == pytest.approx(peak, rel=1e-3) and -found.fun == pytest.approx(value, rel=1e-9)
    assert abs(float(jax.grad(curve.__call__)(curve.peak_time))) * peak < 1e-10 * abs(value)
    assert float(curve(curve.peak_time)) == pytest.approx(value, rel=1e-13)


def test_late_times_and_early_peaks():
    assert float(CURVE(jnp.inf)) == 10.0 and float(CURVE(1e300)) == 10.0
    assert jnp.all(jnp.isfinite(CURVE(jnp.asarray([0.0, 1e10, jnp.inf]))))
    # A large decay: it has peaked before training.
    assert float(MassiveActivationCurve(10, 0.5, 1.0, 3.0, 2.0).peak_time) < 0
    single = MassiveActivationCurve(*(jnp.float32(x) for x in (50, 0.02, 0.5, 1.2, 10)))
    assert single.peak_value.dtype == jnp.float32 == single(3.0).dtype
    assert float(single.peak_value) == pytest.approx(110.847984, rel=1e-5) and float(single(jnp.inf)) == 10.0
    slope = jax.grad(lambda decay: MassiveActivationCurve(50.0, decay, 0.5, 1.2, 10.0).peak_value)(0.02)
    # The envelope: ∂f/∂λ at the peak is -A x* e^(-λx*) ln x*.
    x = 0.5 * float(CURVE.peak_time) + 1.2
    assert float(slope) == pytest.approx(-50 * x * np.exp(-0.02 * x) * np.log(x), rel=1e-12)


@pytest.mark.slow
def test_fits():
    ts = jnp.linspace(0.0, 200.0, 60)
    exact = fit_massive_activation(ts, CURVE(ts))
    assert float(exact.r_squared) == pytest.approx(1.0, abs=1e-14)
    np.testing.assert_allclose(jax.tree.leaves(exact.curve), jax.tree.leaves(CURVE), rtol=1e-8)
    noise = 0.3 * jax.random.normal(jax.random.key(0), (60,))
    noisy = fit_massive_activation(ts, CURVE(ts) + noise)
    assert 0.9997 < float(noisy.r_squared) < 1.0
    assert float(noisy.curve.peak_time) == pytest.approx(float(CURVE.peak_time), rel=0.02)
    # Not worse than the truth, and R² is what its definition says.
    left = CURVE(ts) + noise - noisy.curve(ts)
    assert float(jnp.sum(left**2)) <= float(jnp.sum(noise**2))
    values = CURVE(ts) + noise
    expected = 1 - jnp.sum(left**2) / jnp.sum((values - jnp.mean(values)) ** 2)
    assert float(noisy.r_squared) == pytest.approx(float(expected), rel=1e-10)
    # Other curves: past their peak, upside down, in other units.
    for parameters, end in (
        ((10, 0.5, 1.0, 3.0, 2.0), 12.0),
        ((-5, 1e-3, 0.3, 1.5, 8), 3e3),
        ((3e3, 0.1, 1e-3, 1.1, 5), 2e4),
    ):
        curve = MassiveActivationCurve(*parameters)
        ts = jnp.linspace(0.0, end, 60)
        fit = fit_massive_activation(ts, curve(ts))
        assert float(fit.r_squared) == pytest.approx(1.0, abs=1e-12)
        assert float(fit.curve.peak_time) == pytest.approx(float(curve.peak_time), rel=1e-5)
    assert jnp.isnan(fit_massive_activation(ts, jnp.ones(60)).r_squared)


@pytest.mark.slow
def test_noise_is_no_curve():
    ts = jnp.linspace(0.0, 1.0, 60)
    fit = fit_massive_activation(ts, jax.random.normal(jax.random.key(1), (60,)))
    assert 0 <= float(fit.r_squared) < 0.3


def test_activation_ratio():
    hidden = np.asarray([[1.0, -2.0, 3.0], [-4.0, 50.0, 0.5]])
    assert float(activation_ratio(hidden)) == 50.0 / 2.5
    assert float(activation_ratio(-7 * hidden)) == pytest.approx(20.0)
    assert activation_ratio(np.asarray([0.0, 0.0, 1.0])) == jnp.inf
    assert jnp.isnan(activation_ratio(np.zeros(3)))


def test_refusals():
    ts = jnp.arange(6.0)
    for call, message in (
        (lambda: MassiveActivationCurve(1.0, 0.0, 1.0, 1.0, 1.0), "`decay` must be positive"),
        (lambda: MassiveActivationCurve(1.0, 1.0, -1.0, 1.0, 1.0), "`time_scale` must be positive"),
        (lambda: MassiveActivationCurve(1.0, 1.0, 1.0, 0.0, 1.0), "`offset` must be positive"),
        (lambda: MassiveActivationCurve(np.ones(2), 1.0, 1.0, 1.0, 1.0), "`amplitude` must be one number"),
        (lambda: MassiveActivationCurve(1.0, 1.0, 1.0, 1.0, np.nan), "`asymptote` must be finite"),
        (lambda: fit_massive_activation(ts[:5], ts[:5]), "six times or more"),
        (lambda: fit_massive_activation(ts, ts[:5]), "one shape"),
        (lambda: fit_massive_activation(ts[::-1], ts), "`ts` must increase strictly"),
        (lambda: fit_massive_activation(ts, ts.at[2].set(jnp.nan)), "`ratios` must be finite"),
        (lambda: activation_ratio(np.asarray([1.0, np.inf])), "`hidden` must be finite"),
        (lambda: activation_ratio(np.zeros((0, 3))), "`hidden` must hold numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
