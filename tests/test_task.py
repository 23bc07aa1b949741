"""Linear regression from moments and from data: losses against averages over samples, optima against least squares."""

import inspect

import equinox as eqx
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tractax.deep_linear import DeepLinear, LinearTask, gaussian, whiten


def _data(kind, examples=40):
    generator = np.random.default_rng(3)
    X = generator.normal(size=(examples, 5)) @ generator.normal(size=(5, 5)) + 0.5
    if kind == "rank_deficient":
        X[:, 4] = X[:, 0] - 2 * X[:, 2]
    elif kind == "repeated":
        X[:, 3] = X[:, 1]
    elif kind == "constant":
        X[:, 2] = 4.0
    elif kind == "zero":
        X[:, 2] = 0.0
    elif kind == "few_examples":
        X = X[:3]
    elif kind == "scales":
        X *= np.asarray([1e-4, 1e-2, 1.0, 1e2, 1e4])
    return X, X @ generator.normal(size=(5, 2)) / 10 + generator.normal(size=(X.shape[0], 2))


def _from_moments(cross, covariance=None):
    """A task, without the type checks that the tests switch on for its own arguments."""
    fits = np.ndim(cross) == 2 and np.shape(covariance) in ((), (cross.shape[1], cross.shape[1]))
    build = LinearTask if fits else lambda *a: inspect.unwrap(LinearTask.__init__)(object.__new__(LinearTask), *a)
    return build(cross, covariance)


def _from_data(X, Y, **options):
    """`from_data` without the type checks that the tests switch on."""
    return inspect.unwrap(LinearTask.from_data.__func__)(LinearTask, X, Y, **options)


KINDS = ("plain", "rank_deficient", "repeated", "constant", "zero", "few_examples", "scales")
RANKS = {"rank_deficient": 4, "repeated": 4, "zero": 4, "few_examples": 3}


def _average_loss(inputs, Y, w):
    return np.mean(np.sum((Y - inputs @ np.asarray(w).T) ** 2, axis=1)) / 2


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_whitened_data(kind, center, getkey):
    X, Y = _data(kind)
    task = LinearTask.from_data(X, Y, center=center)
    inputs = np.asarray(jax.vmap(task.whitening)(jnp.asarray(X)))
    rank = RANKS.get(kind, 5) - (1 if center and kind in ("constant", "few_examples") else 0)
    assert inputs.shape[1] == rank == task.optimum.shape[1] and task.whitened
    np.testing.assert_allclose(inputs.T @ inputs / len(X), np.eye(rank), atol=1e-8)
    if center:
        np.testing.assert_allclose(inputs.mean(axis=0), 0.0, atol=1e-9)
        X, Y = X - X.mean(axis=0), Y - Y.mean(axis=0)
    # The best map in whitened coordinates predicts what least squares predicts from the raw ones.
    fit = X @ np.linalg.lstsq(X, Y, rcond=1e-12)[0]
    np.testing.assert_allclose(inputs @ np.asarray(task.optimum).T, fit, atol=1e-7 * np.abs(fit).max())
    assert float(task.floor) == pytest.approx(np.mean(np.sum((Y - fit) ** 2, axis=1)) / 2, rel=1e-8, abs=1e-12)
    model = gaussian((rank, 3, 2), scale=0.5, key=getkey())
    assert float(task.loss(model)) == pytest.approx(_average_loss(inputs, Y, model.product), rel=1e-9)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_raw_data(kind, center, getkey):
    X, Y = _data(kind)
    task = LinearTask.from_data(X, Y, whiten_inputs=False, center=center)
    if center:
        X, Y = X - X.mean(axis=0), Y - Y.mean(axis=0)
    assert not task.whitened and task.whitening is None
    model = gaussian((5, 3, 2), scale=0.5, key=getkey())
    assert float(task.loss(model)) == pytest.approx(_average_loss(X, Y, model.product), rel=1e-8)
    best = np.linalg.lstsq(X, Y, rcond=1e-12)[0].T
    assert float(task.loss_of_map(task.optimum)) == pytest.approx(_average_loss(X, Y, best), rel=1e-7, abs=1e-9)


def test_moments_gradient_and_other_linear_models(getkey):
    a = jax.random.normal(getkey(), (4, 4))
    task = LinearTask(jax.random.normal(getkey(), (3, 4)), a @ a.T, target_power=2e4)
    w = jax.random.normal(getkey(), (3, 4))
    np.testing.assert_allclose(task.gradient_of_map(w), jax.grad(task.loss_of_map)(w), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(task.gradient_of_map(task.optimum), 0.0, atol=1e-10)
    np.testing.assert_allclose(task.gradient_of_map(jnp.zeros((3, 4))), -task.cross_covariance, atol=1e-10)
    # ½ E‖y‖² for the network that says nothing.
    assert float(task.loss(DeepLinear([jnp.zeros((3, 4))]))) == pytest.approx(1e4)
    linear = eqx.nn.Linear(4, 3, use_bias=False, key=getkey())
    assert float(task.loss(linear)) == pytest.approx(float(task.loss(DeepLinear([linear.weight]))), rel=1e-12)


def test_a_vector_of_targets_is_one_column_and_integers_are_numbers():
    X, Y = _data("plain")
    column = LinearTask.from_data(X, Y[:, :1])
    np.testing.assert_array_equal(LinearTask.from_data(X, Y[:, 0]).optimum, column.optimum)
    labels = (Y[:, 0] > 0).astype(int)
    np.testing.assert_allclose(
        LinearTask.from_data(X, labels).optimum, LinearTask.from_data(X, labels.astype(float)).optimum
    )
    # Lists of lists, too.
    np.testing.assert_array_equal(_from_data(X.tolist(), Y[:, :1].tolist()).optimum, column.optimum)


def test_float32_data():
    X, Y = _data("repeated")
    task = LinearTask.from_data(X.astype(np.float32), Y.astype(np.float32))
    assert task.optimum.dtype == task.floor.dtype == jnp.float32
    assert task.optimum.shape == (2, 4)
    np.testing.assert_allclose(task.floor, LinearTask.from_data(X, Y).floor, rtol=1e-4)


@hypothesis.given(
    values=st.lists(st.floats(-3, 3), min_size=12, max_size=12),
    repeats=st.lists(st.integers(0, 2), min_size=3, max_size=3),
)
@hypothesis.settings(deadline=None, max_examples=25)
def test_whitening_of_any_repeated_columns(values, repeats):
    X = np.asarray(values).reshape(4, 3)[:, repeats]
    scales = np.linalg.svd(X, compute_uv=False)
    # Neither vanishing nor nearly degenerate, where the rank is a matter of taste.
    hypothesis.assume(scales[0] > 1e-3 and all(s < 1e-15 * scales[0] or s > 1e-6 * scales[0] for s in scales))
    whitening = whiten(X)
    white = np.asarray(jax.vmap(whitening)(jnp.asarray(X)))
    assert white.shape[1] == np.linalg.matrix_rank(X)
    np.testing.assert_allclose(white.T @ white / 4, np.eye(white.shape[1]), atol=1e-7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones((2, 3)), np.eye(2)), r"`input_covariance` must have shape \(3, 3\)"),
        ((np.ones(3),), r"`cross_covariance` must have shape \(any, any\) without empty axes; got \(3,\)"),
        ((np.full((1, 2), np.nan),), "`cross_covariance` must be finite"),
        ((np.ones((1, 2)), np.asarray([[1.0, 2.0], [2.0, 1.0]])), "`input_covariance` must be positive semi-definite"),
        ((np.ones((1, 2)), np.asarray([[1.0, 2.0], [0.0, 1.0]])), "`input_covariance` must be symmetric"),
        ((np.ones((1, 2)), np.diag([1.0, 0.0])), "`cross_covariance` must vanish in every direction"),
    ],
)
def test_refuses_bad_moments(arguments, message):
    with pytest.raises(ValueError, match=message):
        _from_moments(*arguments)


def test_refuses_targets_weaker_than_what_is_explained():
    with pytest.raises(ValueError, match="`target_power` must be at least what the inputs explain"):
        LinearTask(np.eye(2), target_power=1.9)
    assert float(LinearTask(np.eye(2), target_power=2.0).floor) == 0.0


@pytest.mark.parametrize(
    ("X", "Y", "options", "message"),
    [
        (np.ones((3, 2)), np.ones((4, 1)), {}, r"`Y` must have shape \(3, any\) without empty axes; got \(4, 1\)"),
        (np.ones(3), np.ones(3), {}, r"`X` must have shape \(any, any\) without empty axes; got \(3,\)"),
        (np.ones((0, 2)), np.ones((0, 1)), {}, r"`X` must have shape .* got \(0, 2\)"),
        (np.asarray([[1.0], [np.nan]]), np.ones(2), {}, "`X` must be finite"),
        (np.asarray([[1.0], [2.0]]), np.asarray([1.0, np.inf]), {}, "`Y` must be finite"),
        (np.asarray([[1.0], [2.0]]), np.asarray(["a", "b"]), {}, "`Y` must be an array of numbers"),
        (np.asarray([["a"], ["b"]]), np.ones(2), {}, "`X` must be an array of numbers"),
        (np.zeros((3, 2)), np.ones(3), {}, "`X` must not be zero everywhere"),
        (np.full((3, 2), 7.3), np.ones(3), {"center": True}, "`X` must vary; all its examples are equal"),
        (np.ones((3, 2)), 1e200 * np.ones(3), {}, "`Y` must be smaller; its squares overflow"),
        (1e200 * np.ones((3, 2)), np.ones(3), {"whiten_inputs": False}, "`X` must be smaller; its squares overflow"),
    ],
)
def test_refuses_bad_data(X, Y, options, message):
    with pytest.raises(ValueError, match=message):
        _from_data(X, Y, **options)
