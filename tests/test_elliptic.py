"""Elliptic integrals and functions against SciPy and mpmath, with their derivatives."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.special

from tractax.special import carlson_rf, weierstrass_half_period, weierstrass_root, weierstrass_root_inverse

# Two real roots, two conjugate ones, a double one, far apart, nearly meeting, of very different sizes.
CASES = np.asarray([(1, 0.1), (0.1, 1), (0, 1), (2, 1), (1, 1e-6), (1, 1e-14), (1, 1e-30), (1e-8, 1e-3), (1e10, 3)])
root, inverse, half_period = (jax.jit(f) for f in (weierstrass_root, weierstrass_root_inverse, weierstrass_half_period))


def test_carlson_rf():
    x, y, z = np.exp(8 * np.random.default_rng(0).normal(size=(3, 40)))
    np.testing.assert_allclose(carlson_rf(x, y, z), scipy.special.elliprf(x, y, z), rtol=2e-15)
    for y in (1.0, 1e-15, 1e-40):
        assert float(carlson_rf(0.0, y, 1.0)) == pytest.approx(scipy.special.elliprf(0, y, 1), rel=1e-15)
    assert float(carlson_rf(0.0, 2.0, 0.0)) == np.inf and np.isnan(carlson_rf(-1.0, 1.0, 1.0))
    single = carlson_rf(jnp.asarray(0.5, jnp.float32), 2, 3.0)
    assert single.dtype == jnp.float32 and float(single) == pytest.approx(scipy.special.elliprf(0.5, 2, 3), rel=1e-6)
    # ∂R_F/∂x = -R_D(y, z, x)/6.
    found = jax.grad(carlson_rf)(0.7, 1.9, 0.2)
    assert float(found) == pytest.approx(-scipy.special.elliprd(1.9, 0.2, 0.7) / 6, rel=1e-12)


def _exact(z, a, b):
    """k cs(k z, m), with k² and l² the roots of x² - a x + b and m = 1 - l²/k²."""
    with mpmath.workdps(40):
        a, b, z = (mpmath.mpf(float(x)) for x in (a, b, z))
        gap = mpmath.sqrt(a * a - 4 * b)
        k = mpmath.sqrt((a + gap) / 2)
        if gap == 0:
            return float(k * mpmath.cot(k * z))
        m = gap / k**2
        return float(mpmath.re(k * mpmath.ellipfun("cn", k * z, m=m) / mpmath.ellipfun("sn", k * z, m=m)))


def test_weierstrass_root_and_its_inverse():
    fractions = np.asarray([1e-3, 0.1, 0.25, 0.4, 0.5, 0.75, 0.9, 1.3, 1.9])
    a, b = np.repeat(CASES, fractions.size, axis=0).T
    z = np.tile(fractions, len(CASES)) * np.asarray(half_period(a, b))
    exact = np.asarray([_exact(*case) for case in zip(z, a, b, strict=True)])
    # Its own sensitivity to rounding of z, where it is small.
    slope = np.sqrt(exact**4 + a * exact**2 + b)
    assert np.max(np.abs(root(z, a, b) - exact) / (np.abs(exact) + 2e-3 * z * slope)) < 2e-11
    plain = (b >= 1e-14) & np.isin(np.tile(fractions, len(CASES)), (0.1, 0.25, 0.4, 0.5, 0.75))
    np.testing.assert_allclose(root(z, a, b)[plain], exact[plain], rtol=1e-12)
    np.testing.assert_allclose(inverse(exact, a, b), z, rtol=2e-13)


def test_weierstrass_root_is_that_of_weierstrass():
    # Halphen's notation: e1 = a/3 and the other two from their sum and product, ℘ by its lattice sum in mpmath's theta
    # functions is ℘ = e1 + (π/2ω · θ1'(0) θ2(v) / (θ2(0) θ1(v)))².
    a, b, z = 1.4, 0.2, 0.8
    with mpmath.workdps(30):
        gap = mpmath.sqrt(a * a - 4 * mpmath.mpf(b))
        e1, e2, e3 = mpmath.mpf(a) / 3, mpmath.mpf(a) / 3 - (a - gap) / 2, mpmath.mpf(a) / 3 - (a + gap) / 2
        m = (e2 - e3) / (e1 - e3)
        q = mpmath.qfrom(m=m)
        omega = mpmath.ellipk(m) / mpmath.sqrt(e1 - e3)
        v = mpmath.pi * z / (2 * omega)
        theta = mpmath.jtheta(1, 0, q, 1) * mpmath.jtheta(2, v, q) / (mpmath.jtheta(2, 0, q) * mpmath.jtheta(1, v, q))
        exact = float(mpmath.pi / (2 * omega) * theta)
    assert float(root(z, a, b)) == pytest.approx(exact, rel=1e-13)
    assert float(half_period(a, b)) == pytest.approx(float(omega), rel=1e-14)


def test_degenerate_coefficients():
    z = np.asarray([1e-3, 0.5, 3.0, 20.0])
    np.testing.assert_allclose(root(z, 2.0, 0.0), 2**0.5 / np.sinh(2**0.5 * z), rtol=1e-11)
    np.testing.assert_allclose(root(z, 0.0, 0.0), 1 / z, rtol=1e-15)
    np.testing.assert_allclose(inverse(2**0.5 / np.sinh(2**0.5 * z), 2.0, 0.0), z, rtol=1e-13)
    assert float(half_period(1.0, 0.0)) == np.inf == float(inverse(-1.0, 1.0, 0.0)) == float(inverse(0.0, 0.0, 0.0))
    assert float(root(jnp.inf, 2.0, 0.0)) == pytest.approx(0.0, abs=1e-15)
    assert float(root(0.0, 1.0, 0.5)) == np.inf
    single = weierstrass_root(jnp.asarray(0.7, jnp.float32), 1.0, 0.3)
    assert single.dtype == jnp.float32 and float(single) == pytest.approx(_exact(0.7, 1.0, 0.3), rel=3e-6)


def test_derivatives():
    step = 1e-5
    for function, points in (
        (root, [(0.7, 1.0, 0.3), (2.0, 0.3, 1.2), (0.3, 2.0, 1.0)]),
        (inverse, [(0.2, 1.0, 0.3), (0.0, 1.0, 0.3), (-0.5, 1.0, 0.3), (3.0, 0.5, 2.0), (0.5, 2.0, 1.0)]),
    ):
        x = np.asarray(points)
        gradients = jax.jit(jax.vmap(jax.grad(lambda x, f=function: f(*x))))(x)
        for i in range(3):
            shift = step * np.eye(3)[i]
            difference = (function(*(x + shift).T) - function(*(x - shift).T)) / (2 * step)
            np.testing.assert_allclose(gradients[:, i], difference, rtol=1e-7, atol=1e-9)
