"""Opposing signals: reference values, closed forms, the Hessian of the whole network, the edge of stability."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.integrate import solve_ivp

import tractax as tx
from tractax.deep_linear import (
    DeepLinear,
    LinearTask,
    OpposingNetwork,
    OpposingSignals,
    limiting_outer_square,
    opposing_signals_task,
    two_layer_mode,
)

BETA = jnp.asarray([1.2, 1.6, 0.0])
TASK = opposing_signals_task(BETA, 20.0, 2)
REFERENCE = OpposingNetwork(BETA / 20, jnp.asarray([0.0, 0.4]), 0.6)


def _sharpness(model, task=TASK):
    flat, unravel = ravel_pytree(model)
    return jnp.linalg.eigvalsh(jax.hessian(lambda weights: task.loss(unravel(weights)))(flat))[-1]


def test_reference_values():
    square = limiting_outer_square(0.3, 2.0)
    assert float(square) == pytest.approx(2.1556171120132, rel=1e-13)
    assert float(20 * square) == pytest.approx(43.1123422402632, rel=1e-13)
    solution = OpposingSignals.from_model(REFERENCE, TASK)
    assert float(solution.initial.conserved) == pytest.approx(0.19, rel=1e-13)
    assert float(solution.final_sharpness()) == pytest.approx(41.945, abs=5e-4)
    at = jax.vmap(lambda t: solution.sharpness(solution.evaluate(t)))(jnp.linspace(0.2, 0.24, 41))
    assert float(jnp.min(at)) == pytest.approx(7.077, abs=5e-4)


@pytest.mark.slow
def test_limit_of_the_outer_weight():
    # The root of c²(c² − C) = s², for any sign of C; no cancellation, no 0/0.
    for conserved, size in itertools.product((-1e9, -3.0, 0.0, 0.4), (0.3, 1.0, 50.0)):
        square = float(limiting_outer_square(conserved, size))
        assert square * (square - conserved) == pytest.approx(size**2, rel=1e-12)
    assert float(limiting_outer_square(-1e9, 1.0)) == pytest.approx(1e-9, rel=1e-12)
    assert float(limiting_outer_square(0.0, 0.0)) == 0.0
    assert jnp.isfinite(jax.grad(limiting_outer_square, argnums=1)(0.0, 0.0))


def test_task_is_the_population_loss(getkey):
    model = OpposingNetwork(jax.random.normal(getkey(), (3,)), jax.random.normal(getkey(), (2,)), 0.7)
    expected = jnp.sum((BETA - 0.7 * model.signal) ** 2) / 2 + 10 * 0.49 * jnp.sum(model.opposing**2)
    assert float(TASK.loss(model)) == pytest.approx(float(expected), rel=1e-13)
    # The same network as a two-layer one with one hidden unit.
    layers = DeepLinear((jnp.concatenate([model.signal, model.opposing])[None, :], model.outer[None, None]))
    assert float(TASK.loss(layers)) == pytest.approx(float(expected), rel=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("strength", [0.3, 20.0])
def test_sharpness_against_the_whole_hessian(strength, getkey):
    task = opposing_signals_task(BETA, strength, 4)
    for _ in range(4):
        model = OpposingNetwork(jax.random.normal(getkey(), (3,)), jax.random.normal(getkey(), (4,)), 0.8)
        solution = OpposingSignals.from_model(model, task)
        found = solution.sharpness(solution.reduce(model))
        assert float(found) == pytest.approx(float(_sharpness(model, task)), rel=1e-12)
    end = tx.train(model, task, tx.GradientFlow(), jnp.asarray([400.0])).model
    sign = jnp.sign(end.outer)
    np.testing.assert_allclose(
        end.outer, sign * jnp.sqrt(limiting_outer_square(solution.initial.conserved, 2.0)), rtol=1e-7
    )
    assert float(solution.final_sharpness()) == pytest.approx(float(_sharpness(end, task)), rel=1e-6)


def test_signal_alone_is_a_two_layer_mode():
    model = OpposingNetwork(0.1 * BETA / 2, jnp.zeros(2), 0.6)
    solution = OpposingSignals.from_model(model, TASK)
    for t in (0.3, 1.0, 3.0, 50.0):
        state = solution.evaluate(t)
        np.testing.assert_allclose((state.signal, state.outer), two_layer_mode(0.1, 0.6, 2.0, t), rtol=1e-9)
        assert float(state.orthogonal) == float(state.opposing) == 0.0


def test_reduced_flow_against_scipy():
    model = OpposingNetwork(jnp.asarray([-0.3, 0.1, 0.5]), jnp.asarray([0.3, 0.4]), -0.2)

    def field(_, weights):
        b, o, c = weights[:3], weights[3:5], weights[5]
        error = np.asarray(BETA) - c * b
        return np.concatenate([c * error, -20 * c**2 * o, [b @ error - 20 * c * o @ o]])

    start = np.concatenate([model.signal, model.opposing, [model.outer]])
    solution = OpposingSignals.from_model(model, TASK)
    for t in (0.05, 0.5, 4.0):
        end = solve_ivp(field, (0, t), start, method="DOP853", rtol=1e-12, atol=1e-14).y[:, -1]
        expected = solution.reduce(OpposingNetwork(end[:3], end[3:5], end[5]))
        state = solution.evaluate(t)
        for name in ("signal", "orthogonal", "opposing", "outer"):
            assert float(getattr(state, name)) == pytest.approx(float(getattr(expected, name)), rel=1e-8, abs=1e-9)
        assert float(state.conserved) == pytest.approx(float(solution.initial.conserved), rel=1e-9)


def test_late_times_and_the_saddle():
    solution = OpposingSignals.from_model(REFERENCE, TASK)
    for t in (1e2, 1e6, 1e12, jnp.inf):
        np.testing.assert_allclose(solution.evaluate(t).outer, solution.limit().outer, rtol=1e-10)
    still = OpposingSignals.from_model(OpposingNetwork(jnp.asarray([0.0, 0.0, 1.0]), jnp.ones(2), 0.0), TASK)
    assert float(still.evaluate(1e6).outer) == 0.0
    assert float(still.evaluate(1e6).orthogonal) == 1.0
    with pytest.raises(ValueError, match="of one sign"):
        still.limit()


def test_opposing_weights_of_gradient_descent():
    # One step multiplies them by 1 − ηαc², exactly: they grow once αc² exceeds 2/η.
    for outer, grows in ((0.9, False), (1.1, True)):
        model = OpposingNetwork(BETA, jnp.asarray([0.1, 0.2]), outer)
        after = tx.train(model, TASK, tx.GradientDescent(0.1), jnp.asarray([0.1])).model
        np.testing.assert_allclose(after.opposing, (1 - 0.1 * 20 * outer**2) * model.opposing, rtol=1e-12)
        assert bool(jnp.linalg.norm(after.opposing) > jnp.linalg.norm(model.opposing)) == grows


@pytest.mark.slow
def test_edge_of_stability():
    system = tx.systems.get("edge_of_stability")
    ends = {}
    for fraction in (1.1, 0.8, 0.5):
        eta, run = system.descend(fraction)
        ends[fraction] = float(eta * run.observed[-1] / 2)
        if fraction < 1:
            assert float(jnp.max(run.observed)) > 2 / float(eta)
    assert ends == pytest.approx({1.1: 0.900, 0.8: 0.945, 0.5: 0.976}, abs=6e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["opposing_signals", "edge_of_stability"])
def test_catalogue_entry(name):
    assert tx.verify(name).passed


def test_refusals():
    from_model = OpposingSignals.from_model
    covariance = jnp.diag(jnp.asarray([1.0, 1.0, 1.0, 5.0, 7.0]))
    with pytest.raises(ValueError, match=r"inputs of variance 1 and α.*FAILS"):
        from_model(REFERENCE, LinearTask(TASK.cross_covariance, covariance))
    with pytest.raises(ValueError, match=r"opposing inputs without linear signal.*FAILS"):
        from_model(REFERENCE, LinearTask(jnp.ones((1, 5))))
    with pytest.raises(ValueError, match="no weight decay"):
        from_model(REFERENCE, TASK, tx.GradientFlow(weight_decay=0.1))
    with pytest.raises(ValueError, match="must have one output and 5 inputs"):
        from_model(REFERENCE, LinearTask(jnp.ones((1, 4))))
    with pytest.raises(ValueError, match="`strength` must be positive"):
        opposing_signals_task(BETA, -1.0, 2)
    with pytest.raises(ValueError, match="`n_opposing` must be at least 1"):
        opposing_signals_task(BETA, 1.0, 0)
