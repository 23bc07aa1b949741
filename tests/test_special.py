"""Special functions against mpmath, with their derivatives and in both precisions."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from tractax.special import exprel, talbot

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


def test_exprel_takes_numbers_and_forward_mode():
    assert float(exprel(0)) == 1.0 and float(exprel(1)) == pytest.approx(np.e - 1, rel=1e-15)
    _, tangent = jax.jvp(exprel, (jnp.zeros(3),), (jnp.ones(3),))
    np.testing.assert_allclose(tangent, 0.5)


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
