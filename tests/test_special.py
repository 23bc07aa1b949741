"""Special functions against mpmath, with their derivatives and in both precisions."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.special

from tractax.special import (
    circle_angle,
    damped_oscillation,
    exprel,
    geometric,
    normalised_bessel,
    safe_sqrt,
    talbot,
    wright_omega,
)

POINTS = [0.0, 1e-300, -1e-17, 1e-9, -1e-3, 0.3, -0.999, 0.9999, 1.0001, -1.5, 3.0, -20.0, 50.0, -700.0, 600.0]


def _exact(order, x):
    """The derivative ∫₀¹ sᵏ exp(s x) ds, from its power series in 60 digits (in closed form far from zero)."""
    with mpmath.workdps(60):
        x = mpmath.mpf(x)
        if abs(x) < 2:
            return float(sum(x**j / (mpmath.factorial(j) * (j + order + 1)) for j in range(80)))
        value = mpmath.expm1(x) / x
        for k in range(1, order + 1):
            value = (mpmath.exp(x) - k * value) / x
        return float(value)


@pytest.mark.parametrize("x", POINTS)
def test_exprel_and_its_derivatives(x):
    function = exprel
    for order, tolerance in ((0, 1e-15), (1, 1e-14), (2, 1e-12)):
        assert float(function(jnp.asarray(x))) == pytest.approx(_exact(order, x), rel=tolerance)
        function = jax.grad(function)


def test_exprel_at_infinity_and_in_float32():
    assert float(exprel(-jnp.inf)) == 0.0 and float(jax.grad(exprel)(-jnp.inf)) == 0.0
    assert float(exprel(jnp.inf)) == jnp.inf
    x = jnp.asarray(POINTS[:-2], jnp.float32)
    assert exprel(x).dtype == jnp.float32
    np.testing.assert_allclose(exprel(x), [_exact(0, v) for v in x.tolist()], rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(jax.grad(exprel))(x), [_exact(1, v) for v in x.tolist()], rtol=2e-6)


def test_safe_sqrt():
    x = jnp.asarray([4.0, 0.0, -1e-20, jnp.inf, jnp.nan])
    np.testing.assert_array_equal(safe_sqrt(x), [2.0, 0.0, 0.0, np.inf, np.nan])
    np.testing.assert_array_equal(jax.vmap(jax.grad(safe_sqrt))(x[:4]), [0.25, 0.0, 0.0, 0.0])
    # The length of a vector that vanishes has second derivatives of zero, too.
    np.testing.assert_array_equal(jax.hessian(lambda v: safe_sqrt(v @ v))(jnp.zeros(2)), np.zeros((2, 2)))
    assert safe_sqrt(x.astype(jnp.float32)).dtype == jnp.float32


def test_exprel_takes_numbers_and_forward_mode():
    assert float(exprel(0)) == 1.0 and float(exprel(1)) == pytest.approx(np.e - 1, rel=1e-15)
    _, tangent = jax.jvp(exprel, (jnp.zeros(3),), (jnp.ones(3),))
    np.testing.assert_allclose(tangent, 0.5)


def _exact_omega(x):
    with mpmath.workdps(40):
        if x < 1e3:
            return float(mpmath.lambertw(mpmath.exp(mpmath.mpf(x))).real)
        return float(mpmath.findroot(lambda w: w + mpmath.log(w) - mpmath.mpf(x), x - mpmath.log(x)))


def test_wright_omega():
    x = np.array([-600.0, -41.0, -39.9, -17.3, -2.01, -1.99, -1e-9, 0.0, 0.3, 0.999, 1.0, 1.001, 2.0, 50.0, 1e5, 1e200])
    exact = np.array([_exact_omega(v) for v in x.tolist()])
    np.testing.assert_allclose(wright_omega(jnp.asarray(x)), exact, rtol=5e-16)
    np.testing.assert_allclose(wright_omega(jnp.asarray(x)), scipy.special.wrightomega(x).real, rtol=1e-14)
    slope = jax.vmap(jax.grad(wright_omega))
    np.testing.assert_allclose(slope(jnp.asarray(x)), 1 / (1 + 1 / exact), rtol=1e-15)
    curvature = jax.vmap(jax.grad(jax.grad(wright_omega)))(jnp.asarray(x[3:-1]))
    np.testing.assert_allclose(curvature, exact[3:-1] / (1 + exact[3:-1]) ** 3, rtol=1e-14)
    single = jnp.asarray(x[1:-1], jnp.float32)
    assert wright_omega(single).dtype == jnp.float32
    np.testing.assert_allclose(wright_omega(single), [_exact_omega(v) for v in single.tolist()], rtol=3e-7)


def test_wright_omega_at_the_ends():
    assert float(wright_omega(1)) == 1.0 and jnp.isnan(wright_omega(jnp.nan))
    assert float(wright_omega(-jnp.inf)) == 0.0 and float(jax.grad(wright_omega)(-jnp.inf)) == 0.0
    assert float(wright_omega(jnp.inf)) == jnp.inf and float(jax.grad(wright_omega)(jnp.inf)) == 1.0
    assert float(wright_omega(1.7e308)) == 1.7e308 and float(jax.grad(wright_omega)(1.7e308)) == 1.0


def test_talbot_inverts_known_transforms():
    z, w = talbot()
    for t in (1e-3, 1.0, 50.0):
        for transform, expected in (
            (lambda z: 1 / (z + 0.7), np.exp(-0.7 * t)),
            (lambda z: 1 / z**2, t),
            (lambda z: 1 / jnp.sqrt(z), 1 / np.sqrt(np.pi * t)),
        ):
            found = float(jnp.real(w @ transform(z / t))) / t
            assert found == pytest.approx(expected, rel=1e-11, abs=1e-12)
    # Of two times: e^{-t - 2t'} cos(t - t') is no product.
    pairs = 1 / (z[:, None] + 1 + 1j) / (z[None, :] + 2 - 1j)
    assert float(jnp.real(w @ pairs @ w)) == pytest.approx(np.exp(-3.0), rel=1e-10)
    with pytest.raises(ValueError, match="`nodes` must be even"):
        talbot(7)
    with jax.enable_x64(False), pytest.raises(ValueError, match="`jax_enable_x64` must be on"):
        talbot()


@pytest.mark.parametrize("x", [0.0, 1e-300, 1e-9, -1e-9, 0.3, 0.5, 1.0, 1.7, 2.0, 2.4, -0.8])
def test_geometric(x):
    for n in (0, 1, 2, 7, 40):
        with mpmath.workdps(40):
            kept = 1 - mpmath.mpf(x)
            power, total = float(kept**n), float(sum(kept**j for j in range(n)))
        np.testing.assert_allclose(geometric(jnp.asarray(x), jnp.asarray(float(n))), (power, total), rtol=1e-13)


def test_geometric_for_ever_and_its_slope():
    power, total = geometric(jnp.asarray([0.3, 1.0, 1.7, 0.0, 2.4, -0.1]), jnp.asarray(jnp.inf))
    np.testing.assert_array_equal(power, [0.0, 0.0, 0.0, 1.0, jnp.inf, jnp.inf])
    np.testing.assert_allclose(total[:3], [1 / 0.3, 1.0, 1 / 1.7], rtol=1e-15)
    assert total[3] == jnp.inf and total[5] == jnp.inf
    slopes = jax.vmap(jax.grad(lambda x: geometric(x, jnp.asarray(5.0))[1]))
    x = np.array([0.0, 1e-12, 0.3, 1.0, 1.7])
    expected = -sum(j * (1 - x) ** (j - 1) for j in range(1, 5))
    np.testing.assert_allclose(slopes(jnp.asarray(x)), expected, rtol=1e-12)


@pytest.mark.slow
def test_normalised_bessel():
    zs = [0.0, 1e-6, 0.5, 7.0, 29.0, 59.9, 60.1, 150.0, 1e4]
    for order in (0.0, 0.75, 10.0):
        exact = [float(mpmath.gamma(order + 1) * (2 / mpmath.mpf(z)) ** order * mpmath.besselj(order, z)) for z in zs[1:]]
        np.testing.assert_allclose(normalised_bessel(order, jnp.asarray(zs)), [1.0, *exact], atol=2e-14)
    slope = jax.grad(normalised_bessel, argnums=1)(1.0, 3.0)
    assert float(slope) == pytest.approx(-3 / 4 * float(normalised_bessel(2.0, 3.0)), rel=1e-12)
    assert abs(float(normalised_bessel(0.5, jnp.inf))) < 1e-70
    for order, z in ((-0.1, 1.0), (10.1, 1.0), (1.0, -1.0)):
        assert jnp.isnan(normalised_bessel(order, z))


def test_damped_oscillation():
    cases = [(3, 0.5, 1), (3, 1, 1 + 1e-9), (3, 1, 0.2), (1e5, 30, 1e-3), (3, 0, 4), (40, 30, 1e-3), (3, 0.5, -1)]
    for t, decay, stiffness in cases:
        with mpmath.workdps(40):
            q = mpmath.sqrt(mpmath.mpf(stiffness) - mpmath.mpf(decay) ** 2)
            envelope = mpmath.exp(-mpmath.mpf(decay) * t)
            exact = [float(mpmath.re(envelope * f)) for f in (mpmath.cos(q * t), mpmath.sin(q * t) / q)]
        found = [float(x) for x in damped_oscillation(float(t), float(decay), float(stiffness))]
        np.testing.assert_allclose(found, exact, rtol=1e-12)
    cosine, sine = damped_oscillation(jnp.asarray([0.0, 3.0, jnp.inf]), 1.0, 1.0)
    np.testing.assert_allclose(cosine, [1, np.exp(-3), 0], rtol=1e-14)
    np.testing.assert_allclose(sine, [0, 3 * np.exp(-3), 0], rtol=1e-14)
    # ∂/∂k of e^{-κt} sin(qt)/q at critical damping is -t³e^{-κt}/6.
    slope = jax.grad(lambda k: damped_oscillation(3.0, 1.0, k)[1])(1.0)
    assert float(slope) == pytest.approx(-27 / 6 * np.exp(-3), rel=1e-12)


def test_circle_angle():
    angle = np.concatenate([np.linspace(-np.pi / 2, np.pi / 2, 2001), [1e-300, -1e-17, np.pi / 8, 3 * np.pi / 8]])
    found = circle_angle(np.sin(angle), np.cos(angle))
    np.testing.assert_allclose(found, angle, rtol=6e-16)
    single = circle_angle(np.sin(angle).astype(np.float32), np.cos(angle).astype(np.float32))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, angle, rtol=4e-7, atol=1e-30)
    # The distance from a right angle, which the sine alone does not know; and derivatives through both.
    assert float(circle_angle(1.0, 1e-12)) == pytest.approx(np.pi / 2 - 1e-12, rel=3e-16)
    slopes = jax.vmap(jax.grad(lambda x: circle_angle(jnp.sin(x), jnp.cos(x))))(jnp.asarray(angle))
    np.testing.assert_allclose(slopes, 1.0, rtol=1e-15)
    assert float(jax.grad(circle_angle)(1.0, 0.0)) == 0.0
