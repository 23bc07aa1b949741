"""Checks of TwoLayerModes: reference values, saddles, degenerate spectra, refusals."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import tractax as tx
from tractax.deep_linear import DeepLinear, LinearTask, TwoLayerModes, aligned, gaussian, two_layer_mode


@pytest.mark.parametrize(
    ("start", "t", "expected"),
    [
        ((0.2, 1.0, 1.5), 0.5, (0.7211894841232, 1.2165994706599)),
        ((0.2, 1.0, 1.5), 2.0, (1.0424077115985, 1.4305991182718)),
    ],
)
def test_reference_values(start, t, expected):
    np.testing.assert_allclose(jnp.stack(two_layer_mode(*start, t)), expected, rtol=1e-12)


def test_reference_product():
    for t, u in ((1.0, 0.4305879205034), (2.0, 1.8748411137437)):
        a, b = two_layer_mode(0.1, 0.1, 2.0, t)
        assert float(a * b) == pytest.approx(u, rel=1e-12)


def _scipy(a0, b0, s, t):
    def field(_, y):
        a, b = y
        return [b * (s - a * b), a * (s - a * b)]

    return solve_ivp(field, (0, t), [a0, b0], method="DOP853", rtol=1e-12, atol=1e-14).y[:, -1]


@hypothesis.given(
    a0=st.floats(-2, 2), b0=st.floats(-2, 2), s=st.sampled_from([0.0, 1e-6, 0.3, 1.0, 3.0, -1.0]), t=st.floats(0, 3)
)
@hypothesis.settings(deadline=None, max_examples=60)
def test_any_signs_against_scipy(a0, b0, s, t):
    hypothesis.assume(abs(a0 + b0) > 1e-3 and abs(a0 - b0) > 1e-3)
    np.testing.assert_allclose(jnp.stack(two_layer_mode(a0, b0, s, t)), _scipy(a0, b0, s, t), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("s", [1e-6, 1.0, 1e6])
def test_saddle_is_never_left(s):
    # a = -b lies on the stable manifold of the saddle; rounding alone would leave it.
    for t in (10 / s, 40 / s, 1e4 / s):
        a, b = two_layer_mode(0.3, -0.3, s, t)
        assert float(jnp.abs(a + b)) < 1e-15 and float(jnp.abs(a)) <= 0.3
    assert float(jnp.abs(two_layer_mode(0.3, -0.3, s, jnp.inf)[0])) == 0.0
    assert two_layer_mode(0.0, 0.0, s, 1e9) == (0.0, 0.0)


def test_mode_with_nothing_to_learn_decays_for_ever():
    a, b = two_layer_mode(0.1, -0.1, 0.0, 1e4)
    assert float(a) == pytest.approx(0.1 / (1 + 2e4 * 0.01) ** 0.5, rel=1e-14) and float(b) == -float(a)
    assert abs(float(two_layer_mode(0.1, 0.1, 0.0, jnp.inf)[0])) < 1e-100
    assert two_layer_mode(0.0, 0.0, 0.0, jnp.inf) == (0.0, 0.0)
    task = LinearTask(jnp.diag(jnp.asarray([2.0, 0.0])))
    limit = TwoLayerModes.from_model(aligned(task, (2,), strength=0.1), task).limit()
    np.testing.assert_allclose(limit.strength, jnp.asarray([2.0, 0.0]), rtol=1e-14, atol=1e-100)


def test_gradient_at_vanishing_eigenvalue():
    # At s = λ = 0 the eigenvectors are undefined, but the solution is smooth.
    def strength(s):
        a, b = two_layer_mode(0.2, 0.2, s, 1.0)
        return a * b

    slope = (strength(1e-5) - strength(-1e-5)) / 2e-5
    assert float(jax.grad(strength)(0.0)) == pytest.approx(float(slope), rel=1e-8)


def test_spectrum_from_tiny_to_huge():
    s = jnp.asarray([1e6, 1.0, 1e-6])
    task = LinearTask(jnp.diag(s))
    solution = TwoLayerModes.from_model(aligned(task, (3,), strength=1e-7), task)
    logistic = 1 / (1 + (s / 1e-7 - 1) * jnp.exp(-2 * s * 2.0))
    np.testing.assert_allclose(solution.evaluate(2.0).strength, s * logistic, rtol=1e-9)
    np.testing.assert_allclose(solution.limit().strength, s, rtol=1e-12)


def test_half_times_are_where_half_is_reached():
    task = LinearTask(jnp.diag(jnp.asarray([3.0, 2.0, 1.0])))
    solution = TwoLayerModes.from_model(aligned(task, (3,), strength=1e-3), task, tx.GradientFlow(2.0))
    strengths = jax.vmap(lambda t: solution.evaluate(t).strength)(solution.half_times())
    np.testing.assert_allclose(jnp.diagonal(strengths), solution.singular_values / 2, rtol=1e-12)


def test_loss_is_the_task_loss(getkey):
    task = LinearTask(jax.random.normal(getkey(), (3, 4)), target_power=40.0)
    model = aligned(task, (2,), strength=0.3)
    solution = TwoLayerModes.from_model(model, task)
    assert float(solution.loss(0.0)) == pytest.approx(float(task.loss(model)), rel=1e-12)


def test_refuses_what_it_does_not_cover(getkey):
    task = LinearTask(jnp.diag(jnp.asarray([2.0, 1.0])))
    model = aligned(task, (2,), strength=0.1)
    with pytest.raises(ValueError, match=r"aligned weights.*FAILS \(violation 0\.\d+"):
        TwoLayerModes.from_model(gaussian((2, 3, 2), scale=0.1, key=getkey()), task)
    with pytest.raises(ValueError, match="2 layers"):
        TwoLayerModes.from_model(aligned(task, (2, 2), strength=0.1), task)
    with pytest.raises(ValueError, match="no weight decay"):
        TwoLayerModes.from_model(model, task, tx.GradientFlow(weight_decay=0.1))
    with pytest.raises(ValueError, match="GradientFlow"):
        TwoLayerModes.from_model(model, task, tx.GradientDescent(0.1))
    with pytest.raises(ValueError, match="`t0` must be a time"):
        TwoLayerModes.from_model(model, task).evaluate(-1.0)
    skewed = LinearTask(jnp.diag(jnp.asarray([2.0, 1.0])), jnp.asarray([[1.0, 0.4], [0.4, 1.0]]))
    with pytest.raises(ValueError, match="share input modes"):
        TwoLayerModes.from_model(model, skewed)
    unchecked = TwoLayerModes.from_model(gaussian((2, 3, 2), scale=0.1, key=getkey()), task, check=False)
    assert jnp.all(jnp.isfinite(unchecked.evaluate(1.0).strength))


def test_refuses_under_jit(getkey):
    task = LinearTask(jnp.diag(jnp.asarray([2.0, 1.0])))

    @jax.jit
    def half(weights):
        return TwoLayerModes.from_model(DeepLinear(weights), task).half_times()

    assert jnp.all(jnp.isfinite(half(aligned(task, (2,), strength=0.1).weights)))
    with pytest.raises(Exception, match="aligned weights"):
        jax.block_until_ready(half(gaussian((2, 2, 2), scale=0.1, key=getkey()).weights))
