"""Spectra of random products: moments, edge, density, determinant, orthogonal layers."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

import tractax as tx
from tractax.deep_linear import (
    expected_log_determinant,
    fuss_catalan_density,
    fuss_catalan_edge,
    fuss_catalan_moment,
    gaussian,
    jacobian_singular_values,
    orthogonal,
)


@pytest.mark.parametrize("depth", [1, 2, 3, 7])
def test_moments_have_their_closed_forms(depth):
    assert fuss_catalan_moment(depth, 0) == 1
    assert fuss_catalan_moment(depth, 1) == 1
    assert fuss_catalan_moment(depth, 2) == depth + 1
    assert fuss_catalan_moment(depth, 3) == pytest.approx((depth + 1) * (3 * depth + 2) / 2)


@pytest.mark.parametrize("depth", [1, 2, 5, 50])
def test_density_has_these_moments(depth):
    log_x, density = (np.asarray(x) for x in fuss_catalan_density(depth, 200_001))
    assert np.all(np.isfinite(log_x)) and np.all(np.isfinite(density)) and np.all(np.diff(log_x) < 0)
    for order in range(4):
        moment = -np.trapezoid(density * np.exp(order * log_x), log_x)
        # At order zero a long thin tail, of singular values near zero, is cut off.
        assert moment == pytest.approx(fuss_catalan_moment(depth, order), rel=2e-2 if order == 0 else 2e-3)
    assert np.exp(log_x[0]) == pytest.approx(fuss_catalan_edge(depth), rel=1e-3)


def test_one_layer_is_marchenko_pastur():
    log_x, density = (np.asarray(x) for x in fuss_catalan_density(1, 50))
    x = np.exp(log_x)
    np.testing.assert_allclose(density, np.sqrt(x * (4 - x)) / (2 * np.pi), rtol=1e-10)


def test_log_determinant_against_many_digits_and_draws(getkey):
    for size, depth in ((1, 1), (20, 1), (7, 3)):
        terms = [mpmath.log(mpmath.mpf(2) / size) + mpmath.digamma(mpmath.mpf(i) / 2) for i in range(1, size + 1)]
        expected = float(depth * mpmath.fsum(terms) / 2)
        assert float(expected_log_determinant(size, depth)) == pytest.approx(expected, rel=1e-12)
    assert float(expected_log_determinant(20, 1)) == pytest.approx(-10.8187, abs=5e-5)
    matrices = jax.random.normal(getkey(), (4000, 5, 5)) / jnp.sqrt(5.0)
    logs = jnp.linalg.slogdet(matrices)[1]
    error = float(jnp.std(logs)) / 4000**0.5
    assert abs(float(jnp.mean(logs)) - float(expected_log_determinant(5, 1))) < 4 * error


def test_orthogonal_layers_are_isometric_at_any_depth(getkey):
    values = jacobian_singular_values(orthogonal((20,) * 31, key=getkey()))
    np.testing.assert_allclose(values, 1.0, atol=1e-14)
    single = jacobian_singular_values(orthogonal((12,) * 31, gain=jnp.asarray(1.0, jnp.float32), key=getkey()))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, 1.0, atol=1e-5)


def test_gaussian_layers_spread_with_depth(getkey):
    def spread(depth):
        model = gaussian((100,) * (depth + 1), scale=0.1, key=getkey())
        return float(jnp.var(jacobian_singular_values(model) ** 2))

    assert spread(1) == pytest.approx(1, rel=0.2) and spread(4) == pytest.approx(4, rel=0.6)


@pytest.mark.parametrize("name", ["orthogonal_isometry", pytest.param("gaussian_spectrum", marks=pytest.mark.slow)])
def test_catalogue(name):
    assert tx.verify(name).passed


def test_bad_input():
    for call, name in (
        (lambda: fuss_catalan_moment(0, 1), "depth"),
        (lambda: fuss_catalan_moment(2, -1), "order"),
        (lambda: fuss_catalan_edge(0), "depth"),
        (lambda: fuss_catalan_density(2, 1), "points"),
        (lambda: expected_log_determinant(0, 1), "size"),
    ):
        with pytest.raises(ValueError, match=f"`{name}` must be a whole number"):
            call()
