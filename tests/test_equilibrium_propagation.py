"""Equilibrium propagation: reference values, finite nudges, the circle in holomorphic networks, homeostasis, refusals."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import MODEL, TASK

import tractax as tx
from tractax.rules import (
    EquilibriumNetwork,
    EquilibriumPropagation,
    EquilibriumTask,
    HomeostasisFlow,
    HomeostasisTask,
    LinearEquilibrium,
    jacobian_asymmetry,
)

SMALL = EquilibriumNetwork([[0.0, 0.5], [0.2, 0.0]], [1.0, 0.0])
SMALL_TASK = EquilibriumTask([[0.0, 0.0]], [[0.3]], [[0.0, 1.0]])
ONE = EquilibriumTask([[0.0]], [[-0.7]], [[1.0]])


@pytest.fixture(scope="module")
def linear():
    return LinearEquilibrium.from_model(SMALL, SMALL_TASK)


def test_reference_values(linear):
    np.testing.assert_allclose(linear.states[0], [1.1111111111, 0.2222222222], atol=1e-10)
    np.testing.assert_allclose(linear.responses[0], [0.0432098765432, 0.0864197530864], atol=1e-13)
    np.testing.assert_allclose(linear.adjoints[0], [0.0172839506173, 0.0864197530864], atol=1e-13)
    # M = (I - W)^{-1} PᵀP has the one eigenvalue 1/(1 - 0.5 · 0.2) that is not zero.
    assert float(linear.radius) == pytest.approx(0.9, rel=1e-14)


def test_true_gradient_by_central_differences(linear):
    step = 1e-5

    def shifted(i, j, sign):
        weights = np.asarray(SMALL.weights).copy()
        weights[i, j] += sign * step
        u = np.linalg.solve(np.eye(2) - weights, [1.0, 0.0])
        return (u[1] - 0.3) ** 2 / 2

    slopes = [[(shifted(i, j, 1) - shifted(i, j, -1)) / (2 * step) for j in range(2)] for i in range(2)]
    np.testing.assert_allclose(-np.outer(linear.adjoints[0], linear.states[0]), slopes, atol=1e-9)
    np.testing.assert_allclose(jax.jit(jax.grad(lambda m: SMALL_TASK.loss(m)))(SMALL).weights, slopes, atol=1e-9)


@pytest.mark.parametrize("points", [1, 2, 3, pytest.param(8, marks=pytest.mark.slow)])
def test_finite_nudges(linear, points):
    # From the equilibria themselves: (I - W + βPᵀP) u = b + βPᵀy.
    nudges = 0.6 * np.exp(2j * np.pi * np.arange(points) / points)
    p, w = np.asarray([[0.0, 1.0]]), np.asarray(SMALL.weights)
    states = [np.linalg.solve(np.eye(2) - w + b * p.T @ p, np.asarray([1.0, 0.0]) + b * p[0] * 0.3) for b in nudges]
    expected = np.mean([(u - np.asarray(linear.states[0])) / b for u, b in zip(states, nudges, strict=True)], axis=0)
    _, found = eqx.filter_jit(EquilibriumPropagation(0.6, points).responses)(SMALL, SMALL_TASK)
    np.testing.assert_allclose(found[0], expected.real, atol=1e-14)
    np.testing.assert_allclose(linear.estimate(0.6, points)[0], expected.real, atol=1e-14)


def test_bias_of_the_circle_vanishes_and_that_of_asymmetry_stays(linear):
    biases = [float(jnp.linalg.norm(linear.estimate(0.45, n) - linear.responses)) for n in (8, 12, 16)]
    np.testing.assert_allclose(np.diff(np.log(biases)), 4 * np.log(0.5), rtol=0.02)
    assert float(jnp.linalg.norm(linear.estimate(0.45, 60) - linear.adjoints)) > 0.02


def test_a_circle_around_a_pole_is_noticed():
    @jax.jit
    def found(nudge):
        return EquilibriumPropagation(nudge, 3).responses(SMALL, SMALL_TASK)[1]

    assert jnp.isnan(found(0.91)).all() and jnp.isfinite(found(0.89)).all()


def _square(b, w):
    return EquilibriumNetwork([[w]], [b], lambda u: u**2)


@pytest.mark.slow
def test_geometric_rate_up_to_a_branch_point():
    # 0 = -u + wu² + b - β(u - y) is solved by a square root, with branch points where its discriminant vanishes.
    w, b, y = 0.3, 0.4, -0.7
    radius = np.min(np.abs(np.roots([1.0, 2 - 4 * w * y, 1 - 4 * w * b])))
    model, r = _square(b, w), 0.5 * radius
    free = (1 - np.sqrt(1 - 4 * w * b)) / (2 * w)
    slope = (y - free) / (1 - 2 * w * free)

    def error(points):
        found = eqx.filter_jit(EquilibriumPropagation(r, points).responses)(model, ONE)[1]
        return abs(float(found[0, 0]) - slope)

    counts = np.asarray([8, 16])
    errors = [error(int(n)) for n in counts]
    # Coefficients of a square root fall as n^{-3/2} times a geometric series.
    rate = np.log(errors[1] / errors[0]) - 1.5 * np.log(9 / 17)
    assert rate / 8 == pytest.approx(np.log(0.5), rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("points", [1, 2, 3, 4])
def test_order_in_the_nudge(points):
    system = tx.systems.get("holomorphic_nudging")
    error = eqx.filter_jit(lambda r: system.error(r, points))
    fit = tx.scaling(lambda r: error(jnp.asarray(r)), [0.1, 0.05, 0.025, 0.0125], correction=float(points))
    assert float(fit.exponent) == pytest.approx(points, abs=0.1)


@pytest.mark.slow
def test_symmetric_weights_give_the_true_gradient():
    raw = 0.3 * jax.random.normal(jax.random.key(1), (4, 4))
    model = EquilibriumNetwork(raw + raw.T, 0.1 * jnp.ones(4))
    task = EquilibriumTask(jax.random.normal(jax.random.key(2), (3, 4)), jnp.ones((3, 2)), jnp.eye(2, 4))
    rule = EquilibriumPropagation(0.02, 8)
    found, true = rule.gradient(model, task), jax.grad(task.loss)(model)
    np.testing.assert_allclose(found.weights, true.weights, rtol=1e-9)
    assert float(rule.alignment(model, task)) == pytest.approx(1, abs=1e-12)
    assert float(rule.alignment(EquilibriumNetwork(raw + 2 * raw.T), task)) < 0.999


@pytest.mark.slow
def test_training_and_steps():
    run = tx.train(SMALL, SMALL_TASK, EquilibriumPropagation(1.2, 3), [0.5], throw=False)
    assert run.result == tx.RESULTS.diverged
    rule = EquilibriumPropagation(0.1, 2, homeostasis=0.02, time_constant=2.0)
    ts = jnp.asarray([0.0, 5.0, 20.0])
    observe = (SMALL_TASK.loss, lambda m: jacobian_asymmetry(m, SMALL_TASK.inputs, jax.vmap(m)(SMALL_TASK.inputs)))
    losses, asymmetries = tx.train(SMALL, SMALL_TASK, rule, ts, observe=observe).observed
    assert losses[-1] < 0.01 * losses[0] and asymmetries[-1] < asymmetries[0]
    fixed = {"solver": diffrax.Euler(), "dt0": 0.5, "stepsize_controller": diffrax.ConstantStepSize()}
    stepped = tx.train(SMALL, SMALL_TASK, rule, jnp.asarray([0.5]), observe=lambda m: m.weights, **fixed).observed[0]
    params, static = eqx.partition(SMALL, eqx.is_inexact_array)
    velocity = rule.vector_field(0.0, params, tx.Objective(SMALL_TASK, static))
    np.testing.assert_allclose(stepped, SMALL.weights + 0.5 * velocity.weights, rtol=1e-12)


@pytest.mark.slow
def test_differentiation_vmap_and_float32():
    def size(nudge):
        return jnp.sum(EquilibriumPropagation(nudge, 4).gradient(SMALL, SMALL_TASK).weights)

    nudges = jnp.asarray([0.2, 0.5])
    slopes = jax.jit(jax.vmap(jax.grad(size)))(nudges)
    ahead, behind = (jax.vmap(size)(nudges + step) for step in (1e-5, -1e-5))
    np.testing.assert_allclose(slopes, (ahead - behind) / 2e-5, rtol=1e-6)
    model, task = jax.tree.map(lambda x: x.astype(jnp.float32), (SMALL, SMALL_TASK))
    gradient = EquilibriumPropagation(0.5, 4).gradient(model, task)
    assert gradient.weights.dtype == jnp.float32
    np.testing.assert_allclose(gradient.weights, EquilibriumPropagation(0.5, 4).gradient(SMALL, SMALL_TASK).weights, 1e-5)
    assert jnp.isnan(EquilibriumNetwork([[1.0]], [1.0], lambda u: u + u**2 / 4 + 1)(jnp.zeros(1))).all()


def test_homeostasis():
    weights = np.asarray([[0.1, 0.7, -0.2], [0.3, 0.2, 0.5], [-0.6, 0.1, 0.0]])
    model, inputs = EquilibriumNetwork(weights), jnp.ones((2, 3))
    asymmetry = float(jacobian_asymmetry(model, inputs, jnp.zeros((2, 3))))
    jacobian = weights - np.eye(3)
    traces = 2 * (np.trace(jacobian.T @ jacobian) - np.trace(jacobian @ jacobian))
    assert asymmetry == pytest.approx(traces, rel=1e-14)
    noise = np.random.default_rng(0).standard_normal((100_000, 3))
    squares = np.sum((noise @ (jacobian - jacobian.T).T) ** 2, axis=1)
    assert abs(np.mean(squares) - asymmetry) < 4 * np.std(squares) / np.sqrt(squares.size)
    solution = HomeostasisFlow.from_model(model, HomeostasisTask(inputs, 0.5), tx.GradientFlow(time_constant=2.0))
    state = solution.evaluate(0.3)
    np.testing.assert_allclose(state.symmetric, (weights + weights.T) / 2, rtol=1e-15)
    np.testing.assert_allclose(state.antisymmetric, np.exp(-8 * 0.5 * 0.3 / 2) * (weights - weights.T) / 2, rtol=1e-14)
    np.testing.assert_allclose(solution.limit().symmetric, (weights + weights.T) / 2, rtol=1e-15)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: EquilibriumPropagation(0.0), "`nudge` must be positive; got 0.0"),
        (lambda: EquilibriumPropagation(0.1, 0), "`points` must be a whole number of at least 1; got 0"),
        (lambda: EquilibriumPropagation(0.1, True), "`points` must be a whole number of at least 1; got True"),
        (lambda: EquilibriumPropagation(0.1, homeostasis=-1.0), "`homeostasis` must be non-negative"),
        (lambda: EquilibriumPropagation(0.1, time_constant=0.0), "`time_constant` must be positive"),
        (lambda: EquilibriumNetwork([[1.0, 2.0]]), r"`weights` must have shape \(any, 1\)"),
        (lambda: EquilibriumNetwork([[0.0]], [1.0, 2.0]), r"`bias` must have shape \(1,\)"),
        (lambda: EquilibriumNetwork([[0.0]], activation="tanh"), "`activation` must be a function or None; got 'tanh'"),
        (lambda: EquilibriumTask([[0.0]], [[1.0, 2.0]], [[1.0]]), r"`targets` must have shape \(1, 1\)"),
        (lambda: SMALL_TASK.loss(MODEL), "`model` must be an AbstractEquilibriumModel; got DeepLinear"),
        (lambda: EquilibriumPropagation(0.1).gradient(SMALL, TASK), "`task` must be an EquilibriumTask; got LinearTask"),
        (lambda: ONE.loss(SMALL), "`task` must have a readout of the model's 2 units"),
        (lambda: LinearEquilibrium.from_model(_square(0.4, 0.3), ONE), "linear force: FAILS"),
        (
            lambda: HomeostasisFlow.from_model(_square(0.4, 0.3), HomeostasisTask([[0.0]])),
            "linear network: FAILS",
        ),
        (lambda: HomeostasisFlow.from_model(SMALL, SMALL_TASK), "`task` must be a HomeostasisTask"),
    ],
)
def test_refuses(build, message):
    with pytest.raises(ValueError, match=message):
        build()
