"""Diagonal linear networks: reference interpolators, other solvers of the same problems, closed forms, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import minimize

import tractax as tx
from tractax.deep_linear import DiagonalLinear, DiagonalNetwork, OrthogonalDesign, RegressionTask, hyperbolic_entropy


def _task():
    return RegressionTask(jnp.asarray([[1, 0.5, -0.3], [0.2, -1, 0.8]]), jnp.asarray([1.0, 0.4]))


def _solution(scale, depth=2):
    return DiagonalNetwork.from_model(DiagonalLinear.uniform(3, scale=scale, depth=depth), _task())


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (1.0, (1.0775922825290, -0.0672936297497, 0.1464848921806)),
        (0.1, (1.0821154668446, -0.1061930148633, 0.0967298647097)),
    ],
)
def test_reference_limits(scale, expected):
    np.testing.assert_allclose(_solution(scale).limit().predictor, expected, rtol=2e-12)


def test_norm_falls_to_basis_pursuit():
    expected = {1.0: 1.29137, 0.1: 1.28504, 0.01: 1.28087, 0.001: 1.27776, 1e-4: 1.27571}
    for scale, norm in expected.items():
        assert float(jnp.sum(jnp.abs(_solution(scale).limit().predictor))) == pytest.approx(norm, abs=6e-6)
    # Convergence in the scale is slow, but arrives.
    np.testing.assert_allclose(_solution(1e-60).limit().predictor, [12 / 11, -2 / 11, 0.0], atol=1e-4)
    # Large weights do not move enough to depart from the least Euclidean norm.
    task = _task()
    flattest = jnp.linalg.pinv(task.inputs) @ task.targets
    np.testing.assert_allclose(_solution(100.0).limit().predictor, flattest, rtol=1e-7)


@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_limit_minimises_the_potential(scale):
    task = _task()
    limit = _solution(scale).limit().predictor
    potential = jax.jit(jax.value_and_grad(lambda beta: hyperbolic_entropy(beta, scale)))
    found = minimize(
        lambda beta: [np.asarray(part) for part in potential(jnp.asarray(beta))],
        np.zeros(3),
        jac=True,
        method="SLSQP",
        constraints={"type": "eq", "fun": lambda beta: np.asarray(task.inputs) @ beta - np.asarray(task.targets)},
        options={"ftol": 1e-14, "maxiter": 200},
    )
    np.testing.assert_allclose(limit, found.x, atol=1e-6)


def test_potential_at_its_ends():
    beta = jnp.asarray([0.3, -2.0, 0.0])
    assert float(hyperbolic_entropy(beta, 1e4)) == pytest.approx(float(jnp.sum(beta**2)) / 4e8, rel=1e-10)
    large = np.abs([0.3, 2.0])
    expected = np.sum(large * np.log(large / 1e-16) - large)
    assert float(hyperbolic_entropy(beta, 1e-8)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "scale"), [(2, 0.01), (3, 0.2), (4, 0.5)])
def test_trajectory_and_limit_against_scipy(depth, scale):
    task, solution = _task(), _solution(scale, depth)
    x, y = np.asarray(task.inputs), np.asarray(task.targets)

    def field(_, w):
        gradient = x.T @ (x @ (w[:3] ** depth - w[3:] ** depth) - y) / 2
        return depth * np.concatenate([-gradient * w[:3] ** (depth - 1), gradient * w[3:] ** (depth - 1)])

    ts = np.array([0.5, 4.0, 20.0, 400.0])
    found = solve_ivp(field, (0, 400), np.full(6, scale), method="DOP853", t_eval=ts, rtol=1e-12, atol=1e-15)
    states = jax.vmap(solution.evaluate)(jnp.asarray(ts))
    np.testing.assert_allclose(jnp.concatenate([states.positive, states.negative], axis=1).T, found.y, atol=3e-9)
    np.testing.assert_allclose(solution.limit().predictor, found.y[:3, -1] ** depth - found.y[3:, -1] ** depth, atol=1e-9)


@pytest.mark.slow
def test_more_examples_than_inputs_end_at_least_squares(getkey):
    inputs, targets = jax.random.normal(getkey(), (8, 3)), jax.random.normal(getkey(), (8,))
    task = RegressionTask(inputs, targets)
    solution = DiagonalNetwork.from_model(DiagonalLinear.uniform(3, scale=0.1), task)
    np.testing.assert_allclose(solution.limit().predictor, jnp.linalg.lstsq(inputs, targets)[0], rtol=1e-10)
    assert float(solution.loss(0.0)) == pytest.approx(float(jnp.mean(targets**2)) / 2, rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.05, 1.0])
def test_integrated_and_closed_form_agree(scale):
    task = RegressionTask(jnp.asarray([[1.0, 1.0], [1.0, -1.0], [0.5, 0.5], [-0.5, 0.5]]), jnp.asarray([1, 0.4, 2, 0.3]))
    model = DiagonalLinear(scale * jnp.asarray([1.0, 0.4]), scale * jnp.asarray([0.7, -1.0]))
    closed = OrthogonalDesign.from_model(model, task, tx.GradientFlow(2.0))
    integrated = DiagonalNetwork.from_model(model, task, tx.GradientFlow(2.0))
    assert float(tx.compare(closed, integrated, jnp.linspace(0.0, 20.0, 11)).worst) < 1e-9
    np.testing.assert_allclose(closed.limit().predictor, integrated.limit().predictor, rtol=1e-10)


@pytest.mark.slow
def test_gradient_of_the_limit():
    def entry(scale):
        return _solution(scale).limit().predictor[2]

    slope = (entry(0.1 + 1e-5) - entry(0.1 - 1e-5)) / 2e-5
    assert float(jax.jit(jax.grad(entry))(0.1)) == pytest.approx(float(slope), rel=1e-7)


def test_targets_at_zero_do_not_move():
    task = RegressionTask(_task().inputs, jnp.zeros(2))
    solution = DiagonalNetwork.from_model(DiagonalLinear.uniform(3, scale=0.2), task)
    for state in (solution.evaluate(5.0), solution.limit()):
        np.testing.assert_array_equal(state.predictor, 0.0)


def test_refuses_what_it_does_not_cover(getkey):
    model, task = DiagonalLinear.uniform(3, scale=0.1), _task()
    twice = RegressionTask(jnp.asarray([[1.0, 0.5, -0.3], [2.0, 1.0, -0.6]]), jnp.asarray([1.0, 2.0]))
    with pytest.raises(ValueError, match=r"independent examples.*FAILS"):
        DiagonalNetwork.from_model(model, twice)
    with pytest.raises(ValueError, match=r"no input without weights.*FAILS"):
        DiagonalNetwork.from_model(DiagonalLinear(jnp.asarray([1.0, 0.0, 1.0]), jnp.asarray([1.0, 0.0, 0.0])), task)
    with pytest.raises(ValueError, match="no weight decay"):
        DiagonalNetwork.from_model(model, task, tx.GradientFlow(weight_decay=0.1))
    with pytest.raises(ValueError, match="`model` must have 3 inputs"):
        DiagonalNetwork.from_model(DiagonalLinear.uniform(2, scale=0.1), task)
    with pytest.raises(ValueError, match=r"orthogonal columns.*FAILS"):
        OrthogonalDesign.from_model(model, task)
    with pytest.raises(ValueError, match="depth 2"):
        OrthogonalDesign.from_model(DiagonalLinear.uniform(3, scale=0.1, depth=3), task)
    with pytest.raises(ValueError, match="`depth` must be a whole number of at least 2; got 1"):
        DiagonalLinear.uniform(3, scale=0.1, depth=1)
    with pytest.raises(ValueError, match="`negative` must have shape"):
        DiagonalLinear(jnp.ones(3), jnp.ones(2))
    with pytest.raises(ValueError, match="`targets` must have shape"):
        RegressionTask(jnp.ones((2, 3)), jnp.ones(3))
    with pytest.raises(RuntimeError, match="too stiff"):
        _solution(0.01, depth=4).evaluate(1e6)
