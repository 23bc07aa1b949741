"""The path through sparse predictors: reference values, networks with tiny weights, basis pursuit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog, nnls

from tractax.deep_linear import DiagonalLinear, DiagonalNetwork, RegressionTask, sparse_path
from tractax.deep_linear._diagonal_path import _signed_least_squares


def test_reference_path():
    path = sparse_path(RegressionTask(jnp.asarray([[1, 0.5, -0.3], [0.2, -1, 0.8]]), jnp.asarray([1.0, 0.4])))
    np.testing.assert_allclose(path.times, [50 / 27, 134 / 11], rtol=1e-12)
    expected = [[0, 0, 0], [1.08 / 1.04, 0, 0], [12 / 11, -2 / 11, 0]]
    np.testing.assert_allclose(path.predictors, expected, atol=1e-12)
    np.testing.assert_array_equal(path.predictor(0.0), path.predictors[0])
    np.testing.assert_array_equal(path.predictor(12.0), path.predictors[1])
    np.testing.assert_array_equal(path.predictor(1e9), path.predictors[2])
    np.testing.assert_allclose(path.jump_times(1e-4), path.times * np.log(1e4) / 2, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_networks_with_tiny_weights_follow_it(seed):
    x_key, y_key = jax.random.split(jax.random.key(seed))
    task = RegressionTask(jax.random.normal(x_key, (4, 9)), jax.random.normal(y_key, (4,)))
    path = sparse_path(task)
    assert path.times.shape[0] >= 3
    # The mirror flow knows any scale: here e^-300.
    logarithm = 300.0
    solution = DiagonalNetwork.from_model(DiagonalLinear.uniform(9, scale=jnp.exp(-logarithm)), task)
    stages = jnp.concatenate([jnp.zeros(1), path.times])
    wide = jnp.diff(stages) > 0.05 * stages[1:]
    middles = (stages[:-1] + stages[1:])[wide] / 2
    assert middles.shape[0] >= 2
    states = jax.vmap(solution.evaluate)(middles * logarithm / 2)
    np.testing.assert_allclose(states.predictor, jax.vmap(path.predictor)(middles), atol=2e-3)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_it_ends_at_basis_pursuit(seed):
    x_key, y_key = jax.random.split(jax.random.key(seed))
    x, y = jax.random.normal(x_key, (5, 12)), jax.random.normal(y_key, (5,))
    both = np.concatenate([x, -x], axis=1)
    found = linprog(np.ones(24), A_eq=both, b_eq=np.asarray(y)).x
    np.testing.assert_allclose(sparse_path(RegressionTask(x, y)).predictors[-1], found[:12] - found[12:], atol=1e-8)


def test_signed_least_squares_against_scipy():
    generator = np.random.default_rng(0)
    for _ in range(50):
        x, y = generator.normal(size=(7, 5)), generator.normal(size=7)
        signs = generator.choice([-1.0, 0.0, 1.0], 5)
        expected = signs * nnls(x * signs[None, :], y)[0]
        np.testing.assert_allclose(_signed_least_squares(x, y, signs), expected, atol=1e-10)


def test_targets_at_zero_have_no_path():
    path = sparse_path(RegressionTask(jnp.ones((1, 2)), jnp.zeros(1)))
    assert path.times.shape == (0,)
    np.testing.assert_array_equal(path.predictor(3.0), 0.0)


def test_refusals():
    task = RegressionTask(jnp.asarray([[1, 0.5, -0.3], [0.2, -1, 0.8]]), jnp.asarray([1.0, 0.4]))
    with pytest.raises(ValueError, match="`max_jumps` must be enough"):
        sparse_path(task, max_jumps=1)
    with pytest.raises(ValueError, match="`scale` must be positive"):
        sparse_path(task).jump_times(0.0)
