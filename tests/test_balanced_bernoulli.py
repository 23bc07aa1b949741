"""A balanced unit that learns a direction: reference value, SciPy, the ends, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from tractax.special import balanced_bernoulli

solve = jax.jit(balanced_bernoulli)
BETA = np.asarray([0.6, -0.3, 0.9])


def by_scipy(t, w0, beta):
    def velocity(t, v):
        w, a = v[:-1], v[-1]
        error = beta - a * w
        return np.append(a * error, w @ error)

    start = np.append(w0, np.linalg.norm(w0))
    return scipy.integrate.solve_ivp(velocity, (0, t), start, method="DOP853", rtol=1e-12, atol=1e-15).y[:, -1]


def test_reference_value():
    w, a = solve(2.0, np.asarray([0.1, 0.0]), np.asarray([0.6, 0.8]))
    np.testing.assert_allclose(w, [0.3581159107599773, 0.3629963057431589], rtol=1e-14)
    assert float(a) == pytest.approx(0.5099150159807309, rel=1e-14)


@pytest.mark.parametrize(
    ("w0", "beta"),
    [
        ([0.1, 0.2, -0.3], BETA),
        ([2.0, 1.0, 0.0], BETA),
        (0.1 * BETA, BETA),
        ([0.1, 0.2, -0.3], 0 * BETA),
        (-0.3 * BETA + [0, 0.02, 0], BETA),
        ([1e-7, 2e-7, -1e-7], BETA),
    ],
    ids=["generic", "large", "aligned", "no_target", "nearly_opposite", "tiny"],
)
def test_against_scipy(w0, beta):
    w0 = np.asarray(w0)
    for t in (0.5, 20.0):
        w, a = solve(t, w0, beta)
        np.testing.assert_allclose(np.append(w, a), by_scipy(t, w0, beta), rtol=1e-8, atol=1e-12)
    derivative = jax.jvp(lambda t: jnp.append(*balanced_bernoulli(t, w0, beta)), (0.7,), (1.0,))[1]
    w, a = solve(0.7, w0, beta)
    np.testing.assert_allclose(derivative, np.append(a * (beta - a * w), w @ (beta - a * w)), rtol=1e-11, atol=1e-15)


def test_aligned_is_logistic():
    s, start = np.linalg.norm(BETA), 0.05**2
    t = np.asarray([0.0, 1.0, 3.0, 10.0, np.inf])
    w, a = jax.vmap(lambda t: solve(t, 0.05 * BETA / s, BETA))(t)
    np.testing.assert_allclose(a**2, s / (1 + (s / start - 1) * np.exp(-2 * s * t)), rtol=1e-13)
    np.testing.assert_allclose(w, a[:, None] * (BETA / s)[None, :], rtol=1e-13)


def test_ends():
    s = np.linalg.norm(BETA)
    for t in (1e3, 1e6, 1e150, jnp.inf):
        w, a = solve(t, np.asarray([0.1, 0.2, -0.3]), BETA)
        np.testing.assert_allclose(np.append(w, a), np.append(BETA / s, 1.0) * s**0.5, rtol=1e-13)
        # Nothing to learn: decay like 1/√t.
        w, a = solve(t, np.asarray([0.1, 0.2, -0.3]), 0 * BETA)
        assert float(a) <= 1 / t**0.5 or t == jnp.inf
        assert all(jnp.all(x == 0) for x in solve(t, 0 * BETA, BETA))
        # Exactly opposite: a decays and never learns.
        w, a = solve(t, np.asarray([-0.3, 0.0]), np.asarray([2.0, 0.0]))
        assert float(a) == 0 == float(jnp.max(jnp.abs(w)))
    w, a = solve(1.5, np.asarray([-0.3, 0.0]), np.asarray([2.0, 0.0]))
    np.testing.assert_allclose(np.append(w, a), by_scipy(1.5, [-0.3, 0.0], [2.0, 0.0]), rtol=1e-10)


def test_the_escape_of_an_opposite_unit():
    # It turns at the time ln(1/δ²)/s if δ is what it has across; SciPy would lose δ².
    beta, delta = np.asarray([1.0, 0.0]), 1e-12
    times = np.linspace(0, 160, 8001)
    across = np.asarray([delta, delta**2])
    curve = jax.vmap(lambda t, d: solve(t, jnp.stack([-0.1, d]), beta)[0][0], (0, None))
    along = jax.vmap(curve, (None, 0))(times, across)
    turned = times[np.argmax(np.asarray(along) > 0.5, axis=1)]
    assert turned[1] - turned[0] == pytest.approx(-2 * np.log(delta), abs=0.05)


def test_derivatives_and_float32():
    def summed(w0, beta):
        w, a = balanced_bernoulli(2.0, w0, beta)
        return jnp.sum(w * jnp.asarray([1.0, -2.0, 0.5])) + 3 * a

    for w0, beta in (([0.1, 0.2, -0.3], BETA), ([-0.2, 0.1, 0.1], 0.01 * BETA), ([0.1, 0.2, -0.3], 0 * BETA)):
        gradients = jax.grad(summed, argnums=(0, 1))(jnp.asarray(w0), jnp.asarray(beta))
        for i, gradient in enumerate(gradients):
            for k in range(3):
                step = 1e-5 * np.eye(3)[k]
                arguments = [np.asarray(w0), np.asarray(beta)]
                up, down = ([x + sign * step * (j == i) for j, x in enumerate(arguments)] for sign in (1, -1))
                slope = float(summed(*up) - summed(*down)) / 2e-5
                # The derivative in β at zero is that of the start, whose direction is not defined.
                if i == 0 or np.any(beta):
                    assert float(gradient[k]) == pytest.approx(slope, rel=1e-7, abs=1e-9)
        assert all(jnp.all(jnp.isfinite(g)) for g in gradients)
    single = balanced_bernoulli(3.0, jnp.asarray([0.1, 0.0], jnp.float32), jnp.asarray([0.6, 0.8], jnp.float32))
    double = balanced_bernoulli(3.0, np.asarray([0.1, 0.0]), np.asarray([0.6, 0.8]))
    for x, y in zip(single, double, strict=True):
        assert x.dtype == jnp.float32
        np.testing.assert_allclose(x, y, rtol=2e-6)
