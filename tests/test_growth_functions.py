"""Logistic growth, escape from a saddle, and growth against its own exponential: mpmath, the equations, derivatives."""

import functools
import inspect

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.integrate

from tractax.special import logistic, quintic_escape, softplus_lambert


@functools.cache
def compiled(f):
    """A function of scalars, its gradient and its second derivatives."""
    n = len(inspect.signature(f).parameters)
    gradient = jax.grad(f, argnums=tuple(range(n)))
    return jax.jit(f), jax.jit(gradient), jax.jit(jax.jacfwd(gradient, argnums=tuple(range(n))))


def assert_derivatives(f, arguments, rel):
    """Automatic derivatives in all arguments, first and second, against differences of fourth order."""
    value, gradient, second = compiled(f)
    arguments = np.asarray(arguments)
    first, hessian = np.asarray(gradient(*arguments)), np.asarray(second(*arguments))
    for i, x in enumerate(arguments):
        step = 1e-3 * (abs(x) + 0.01)
        shifted = [np.where(np.arange(arguments.size) == i, x + j * step, arguments) for j in (-2, -1, 1, 2)]
        weights = np.asarray([1.0, -8.0, 8.0, -1.0]) / (12 * step)
        assert first[i] == pytest.approx(weights @ [float(value(*a)) for a in shifted], rel=rel, abs=1e-9)
        np.testing.assert_allclose(hessian[i], weights @ [np.asarray(gradient(*a)) for a in shifted], rel, 1e-9)


@pytest.mark.parametrize(
    ("t", "p0", "p_inf", "r"),
    [(0.0, 0.1, 2.0, 3.0), (4.0, 1e-2, 2.0, 3.0), (1.0, 5.0, 2.0, 3.0), (2.0, 2.0, 2.0, 1.0), (1.5, 0.3, 0.4, -2.0)],
)
def test_logistic(t, p0, p_inf, r):
    with mpmath.workdps(30):
        expected = mpmath.mpf(p_inf) / (1 + (mpmath.mpf(p_inf) / p0 - 1) * mpmath.exp(-mpmath.mpf(r) * t))
    assert float(compiled(logistic)[0](t, p0, p_inf, r)) == pytest.approx(float(expected), rel=1e-15)
    assert_derivatives(logistic, (t, p0, p_inf, r), 1e-7)


def test_logistic_at_its_ends():
    value, slopes, _ = compiled(logistic)
    assert float(value(jnp.inf, 1e-300, 2.0, 1.0)) == 2.0
    assert float(value(jnp.inf, 0.0, 2.0, 1.0)) == 0.0 == float(value(1e9, 0.0, 2.0, 1.0))
    assert float(value(1e308, 5.0, 2.0, 1e3)) == 2.0 and float(value(jnp.inf, 0.3, 2.0, 0.0)) == pytest.approx(0.3)
    # (1e-300/1) e^690.8 at the time when it is one half.
    t = 300 * np.log(10)
    assert float(value(t, 1e-300, 1.0, 1.0)) == pytest.approx(0.5, rel=1e-12)
    assert [float(x) for x in slopes(jnp.inf, 0.5, 2.0, 1.0)] == [0.0, 0.0, 1.0, 0.0]
    np.testing.assert_allclose(slopes(3.0, 0.0, 2.0, 1.0), [0.0, np.exp(3.0), 0.0, 0.0], rtol=1e-14)
    np.testing.assert_allclose(slopes(t, 1e-300, 1.0, 1.0), [0.25, 0.25e300, 0.25, t / 4], rtol=1e-10)
    single = logistic(jnp.float32(2.0), 0.1, 3.0, 1.0)
    assert single.dtype == jnp.float32 and float(single) == pytest.approx(float(logistic(2.0, 0.1, 3.0, 1.0)), rel=1e-6)


def _escape_time(y0, y):
    """The integral of dy / (y² (1 - y³)), in 40 digits."""
    with mpmath.workdps(40):

        def primitive(y):
            y = mpmath.mpf(y)
            ends = -1 / y - mpmath.log(1 - y) / 3 + mpmath.log(1 + y + y * y) / 6
            return ends - mpmath.atan((2 * y + 1) / mpmath.sqrt(3)) / mpmath.sqrt(3)

        return float(primitive(y) - primitive(y0))


@pytest.mark.parametrize("y0", [1e-250, 1e-9, 1e-3, 0.2, 0.7, 1 - 1e-6])
def test_quintic_escape_reaches_what_its_time_says(y0):
    k, g = 3.0, 8.0
    for y in (1.5 * y0, 0.1, 0.5, 0.9, 1 - 1e-9):
        if not y0 < y < 1:
            continue
        t = 2.0 / k * _escape_time(y0, y)
        found = 2 * float(compiled(quintic_escape)[0](t, y0 / 2, k, g))
        # Just before the escape the time decides: its last digit moves x by k x² (1 - g x³) ε t.
        allowed = 1e-14 + 2e-15 / y0 * y * (1 - y**3)
        if allowed < 0.1:
            assert found == pytest.approx(y, rel=allowed)


def test_quintic_escape_reference_values():
    ts = jnp.asarray([10.0, 30.0, 40.0, 60.0])
    expected = [0.133293608474948, 0.393353128845518, 1.164950975663123, 1.202570976721613]
    # γ = λ (1 + (1 + tr/λ)/N) at λ = 1/2, tr = 1, N = 20.
    np.testing.assert_allclose(compiled(quintic_escape)[0](ts, 0.1, 0.25, 0.5 * (1 + 3 / 20)), expected, rtol=1e-14)
    expected = [0.573948493125601, 1.259843469260931]
    later = compiled(quintic_escape)[0](jnp.asarray([100.0, 200.0]), 0.2, 2 / 60, 0.5)
    np.testing.assert_allclose(later, expected, rtol=1e-14)


def test_quintic_escape_solves_its_equation():
    k, g, x0 = 0.7, 2.5, 0.05
    times = np.linspace(0, 60, 13)
    solved = scipy.integrate.solve_ivp(
        lambda t, x: k * x**2 * (1 - g * x**3), (0, 60), [x0], t_eval=times, method="DOP853", rtol=1e-13, atol=1e-15
    )
    np.testing.assert_allclose(compiled(quintic_escape)[0](jnp.asarray(times), x0, k, g), solved.y[0], rtol=1e-11)
    ts = jnp.asarray([0.0, 1.0, 20.0, 28.0, 40.0, 60.0])
    x = compiled(quintic_escape)[0](ts, x0, k, g)
    slopes = [compiled(quintic_escape)[1](t, x0, k, g)[0] for t in ts]
    np.testing.assert_allclose(slopes, k * x**2 * (1 - g * x**3), rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("arguments", [(5.0, 0.1, 1.0, 2.0), (9.0, 0.1, 1.0, 2.0), (3.0, 0.7, 2.0, 2.0)])
def test_quintic_escape_derivatives(arguments):
    assert_derivatives(quintic_escape, arguments, 1e-6)


def test_quintic_escape_at_its_ends():
    value, slopes, _ = compiled(quintic_escape)
    assert float(value(jnp.inf, 1e-200, 1.0, 8.0)) == pytest.approx(0.5, rel=1e-13)
    for t in (0.0, 1e9, jnp.inf):
        assert float(value(t, 0.0, 1.0, 8.0)) == 0.0
        assert float(value(t, 0.2, 0.0, 8.0)) == 0.2
        assert float(value(t, 8.0 ** (-1 / 3), 1.0, 8.0)) == pytest.approx(0.5, rel=1e-15)
    assert all(jnp.isnan(value(1.0, x0, 1.0, 8.0)) for x0 in (-0.1, 0.51, jnp.nan))
    # A plateau of 1e250: half way the value has doubled.
    assert float(value(5e249, 1e-250, 1.0, 8.0)) == pytest.approx(2e-250, rel=1e-13)
    assert float(slopes(5e249, 1e-250, 1.0, 8.0)[1]) == pytest.approx(4.0, rel=1e-12)
    np.testing.assert_allclose(slopes(jnp.inf, 0.1, 1.0, 8.0), [0.0, 0.0, 0.0, -0.5 / 24], atol=1e-16)
    # At the fixed point a displacement relaxes as e^(-3 k t g^(1/3)).
    assert float(slopes(0.3, 0.5, 1.0, 8.0)[1]) == pytest.approx(np.exp(-3 * 0.3 / 2), rel=1e-12)
    ts = jnp.asarray([0.0, 1.0, 1e3, jnp.inf])
    x = value(ts.astype(jnp.float32), 0.01, 1.0, 1.0)
    assert x.dtype == jnp.float32
    np.testing.assert_allclose(x, value(ts, 0.01, 1.0, 1.0), rtol=2e-6)


@pytest.mark.parametrize(
    ("q", "R"),
    [(0.0, 3.0), (2.0, 1.0), (1.0, 1e9), (1e-3, 1e300), (1e8, 5.0), (0.5, -40.0), (1e-5, 1e-10), (0.0, 0.1)],
)
def test_softplus_lambert(q, R):
    value, gradient, _ = compiled(softplus_lambert)
    h = float(value(q, R))
    with mpmath.workdps(400):
        exact = mpmath.findroot(lambda h: q * h + mpmath.exp(h) - mpmath.mpf(R), mpmath.mpf(h), verify=False)
    assert h == pytest.approx(float(exact), rel=4e-16, abs=1e-300)
    dq, dR = gradient(q, R)
    slope = 1 / (q + float(mpmath.exp(exact)))
    assert float(dR) == pytest.approx(slope, rel=1e-12) and float(dq) == pytest.approx(-h * slope, rel=1e-12)


def test_softplus_lambert_reference_values_and_ends():
    # The frozen gap of three classes, ρ = 0.2: 2 h + eʰ = 1 + 0.8 t.
    gaps = compiled(softplus_lambert)[0](2.0, 1 + 0.8 * jnp.asarray([1.0, 10.0, 100.0]))
    np.testing.assert_allclose(gaps, [0.2548597055291123, 1.7167621314439927, 4.28268451338856], rtol=1e-14)
    assert_derivatives(softplus_lambert, (0.8, 7.0), 1e-7)
    value = compiled(softplus_lambert)[0]
    assert float(value(1.0, jnp.inf)) == jnp.inf
    assert all(jnp.isnan(value(q, R)) for q, R in ((0.0, 0.0), (0.0, -1.0), (-1.0, 2.0), (1.0, jnp.nan)))
    single = jnp.asarray([-1e4, 0.0, 1.0, 1e5], jnp.float32)
    together = jax.jit(jax.vmap(softplus_lambert, in_axes=(None, 0)))(1.0, single)
    assert together.dtype == jnp.float32
    np.testing.assert_allclose(together, [-1e4, -0.56714329, 0.0, 11.51281], rtol=2e-6, atol=1e-7)
