"""Stability of SGD: reference values, enumeration of all batches, bisection, ensembles, refusals."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import tractax as tx
from tractax.deep_linear import (
    RegressionTask,
    gaussian,
    per_example_gradients,
    sgd_growth,
    sgd_l1_bound,
    sgd_moment_step,
    sgd_threshold,
    sgd_threshold_bounds,
)


class Diagonal(eqx.Module):
    """f(x) = Σ (u² − v²) x."""

    u: Array
    v: Array

    def __call__(self, x):
        return jnp.sum((self.u**2 - self.v**2) * x)


INPUTS = jnp.asarray([[1.0, 0.5], [-0.4, 1.2]])
DIAGONAL = Diagonal(jnp.asarray([0.8, 0.5]), jnp.asarray([0.3, 0.6]))


def test_reference_values():
    gradients = per_example_gradients(DIAGONAL, INPUTS)
    assert float(sgd_threshold(gradients, 1)) == pytest.approx(0.5038498757939, rel=1e-12)
    assert float(sgd_threshold(gradients)) == pytest.approx(0.9691213837484, rel=1e-12)
    bounds = sgd_threshold_bounds(gradients, 1)
    assert float(bounds.trace) == pytest.approx(0.5325664376631, rel=1e-12)
    assert float(bounds.full_batch) == pytest.approx(0.9691213837484, rel=1e-12)


def _steps(a, eta, batch_size, replace=True):
    """The matrix of every step that SGD can take from a displacement; NumPy."""
    a = np.asarray(a)
    n, p = a.shape
    draws = [range(n)] if batch_size is None else itertools.product(range(n), repeat=batch_size)
    draws = draws if replace else itertools.combinations(range(n), batch_size)
    return [np.eye(p) - eta * a[list(draw)].T @ a[list(draw)] / len(draw) for draw in draws]


def _radius(a, eta, batch_size):
    """The spectral radius of E[J ⊗ J] on the range of H."""
    values, vectors = np.linalg.eigh(np.asarray(a).T @ np.asarray(a))
    curved = vectors[:, values > 1e-10 * values[-1]]
    steps = [curved.T @ step @ curved for step in _steps(a, eta, batch_size)]
    return np.max(np.abs(np.linalg.eigvals(np.mean([np.kron(step, step) for step in steps], axis=0))))


def _gradients(case):
    a = jax.random.normal(jax.random.key(7), (4, 3))
    return {
        "more examples": a,
        "more parameters": a.T,
        "repeated examples": jnp.concatenate([a[:2], a[:2]]),
        "parallel": a[:, :1] * jnp.asarray([[1.0, 2.0, -1.0]]),
        "orthonormal": jnp.eye(3),
    }[case]


CASES = ("more examples", "more parameters", "repeated examples", "parallel", "orthonormal")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_threshold_by_bisection(case):
    a = _gradients(case)
    for batch_size in (1, 3, None):
        below, above = 0.0, 2.5 * float(sgd_threshold_bounds(a).full_batch)
        for _ in range(45):
            middle = (below + above) / 2
            below, above = (middle, above) if _radius(a, middle, batch_size) < 1 else (below, middle)
        assert float(sgd_threshold(a, batch_size)) == pytest.approx(below, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_growth_by_enumeration(case):
    a = _gradients(case)
    for batch_size, eta in itertools.product((1, 2, None), (0.01, 0.3, 1.7)):
        assert float(sgd_growth(a, eta, batch_size)) == pytest.approx(_radius(a, eta, batch_size), rel=1e-10)


def test_moment_step_by_enumeration(getkey):
    a = _gradients("more examples")
    root = jax.random.normal(getkey(), (3, 3))
    moment = np.asarray(root @ root.T)
    for batch_size, replace in ((1, True), (2, True), (None, True), (1, False), (2, False), (3, False), (4, False)):
        expected = np.mean([step @ moment @ step.T for step in _steps(a, 0.4, batch_size, replace)], axis=0)
        found = sgd_moment_step(a, moment, 0.4, batch_size, replace=replace)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)


def test_bounds_are_ordered(getkey):
    for n, p in ((3, 4), (6, 2)):
        a = jax.random.normal(getkey(), (n, p))
        thresholds = [float(sgd_threshold(a, batch_size)) for batch_size in (1, 2, 5, None)]
        assert thresholds == sorted(thresholds)
        for batch_size, threshold in zip((1, 2, 5, None), thresholds, strict=True):
            bounds = sgd_threshold_bounds(a, batch_size)
            assert threshold <= float(bounds.moments) * (1 + 1e-12) <= float(bounds.trace) * (1 + 2e-12)
            assert threshold <= float(bounds.full_batch) * (1 + 1e-12)


def test_bounds_are_attained_by_gradients_of_one_length(getkey):
    a = jax.random.normal(getkey(), (5, 3))
    a = 0.7 * a / jnp.linalg.norm(a, axis=1, keepdims=True)
    bounds = sgd_threshold_bounds(a, 1)
    for found in (sgd_threshold(a, 1), bounds.moments, bounds.trace):
        assert float(found) == pytest.approx(2 / 0.49, rel=1e-12)


def test_l1_norm_of_a_stable_diagonal_network(getkey):
    # Features of unit second moment: a Hadamard design. With v = 0 only the bound on the trace is left to lose.
    inputs = jnp.asarray([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    model = Diagonal(jax.random.normal(getkey(), (2,)), jax.random.normal(getkey(), (2,)))
    l1 = float(jnp.sum(jnp.abs(model.u**2 - model.v**2)))
    for batch_size in (1, 3):
        threshold = sgd_threshold(per_example_gradients(model, inputs), batch_size)
        assert l1 <= float(sgd_l1_bound(threshold, batch_size))
    sparse = Diagonal(jnp.asarray([0.9, 0.0]), jnp.zeros(2))
    threshold = sgd_threshold(per_example_gradients(sparse, inputs), 1)
    assert float(sgd_l1_bound(threshold, 1)) == pytest.approx(0.81, rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 2])
def test_ensemble_of_nonlinear_networks(batch_size, getkey):
    # The mean loss of trained networks is tr(H C)/2, with C from the recursion, up to the noise of the mean.
    task = RegressionTask(INPUTS, jax.vmap(DIAGONAL)(INPUTS))
    gradients = per_example_gradients(DIAGONAL, INPUTS)
    size, steps, members = 1e-6, 4, 20_000

    def losses(member):
        key, eta = member
        start, draws = jax.random.split(key)
        shift = size * jax.random.normal(start, (2, 2))
        model = Diagonal(DIAGONAL.u + shift[0], DIAGONAL.v + shift[1])
        rule = tx.GradientDescent(eta, time_per_step=1.0, batch_size=batch_size)
        return tx.train(model, task, rule, jnp.arange(1.0, steps + 1), key=draws).observed

    etas = jnp.asarray([0.9, 1.1]) * sgd_threshold(gradients, batch_size)
    found = tx.ensemble(losses, (jax.random.split(getkey(), 2 * members), jnp.repeat(etas, members))) / size**2
    for eta, runs in zip(etas, found.reshape(2, members, steps), strict=True):
        moment, expected = jnp.eye(4), []
        for _ in range(steps):
            moment = sgd_moment_step(gradients, moment, eta, batch_size)
            expected.append(jnp.trace(gradients @ moment @ gradients.T) / 4)
        error = jnp.std(runs, axis=0) / jnp.sqrt(members)
        assert jnp.all(jnp.abs(jnp.mean(runs, axis=0) - jnp.stack(expected)) < 4 * error)
        assert jnp.all(error < 0.06 * jnp.stack(expected))


@pytest.mark.slow
def test_gradients_and_transformations():
    a, direction = jax.random.normal(jax.random.key(0), (2, 3, 4))
    for function in (lambda a: sgd_threshold(a, 2), lambda a: sgd_growth(a, 0.6, 2), lambda a: sgd_growth(a, 0.1, 1)):
        slope = (function(a + 1e-5 * direction) - function(a - 1e-5 * direction)) / 2e-5
        assert float(jnp.vdot(jax.grad(function)(a), direction)) == pytest.approx(float(slope), rel=1e-7)
        both = jax.jit(jax.vmap(function))(jnp.stack([a, direction]))
        np.testing.assert_allclose(both, [function(a), function(direction)], rtol=1e-12)
    # Equal eigenvalues: their eigenvectors are undefined, the derivative is not. η* = 2/|a|² for one length of all a.
    slope = jax.grad(lambda size: sgd_threshold(size * jnp.eye(3), 1))(1.5)
    assert float(slope) == pytest.approx(-4 / 1.5**3, rel=1e-12)


def test_single_precision():
    a = _gradients("more parameters")
    single = a.astype(jnp.float32)
    assert sgd_threshold(single, 2).dtype == sgd_growth(single, 0.3, 2).dtype == jnp.float32
    assert float(sgd_threshold(single, 2)) == pytest.approx(float(sgd_threshold(a, 2)), rel=1e-5)
    assert float(sgd_growth(single, 0.3, 2)) == pytest.approx(float(sgd_growth(a, 0.3, 2)), rel=1e-5)


def test_batches_average_to_the_loss(getkey):
    task = RegressionTask(jax.random.normal(getkey(), (3, 4)), jax.random.normal(getkey(), (3, 2)))
    model = gaussian((4, 3, 2), scale=0.7, key=getkey())
    batches = jnp.asarray(list(itertools.product(range(3), repeat=2)))
    mean = jnp.mean(jax.vmap(lambda batch: task.batch_loss(model, batch))(batches))
    assert float(mean) == pytest.approx(float(task.loss(model)), rel=1e-12)
    errors = np.asarray(task.targets) - np.asarray(task.inputs) @ np.asarray(model.product).T
    assert float(task.loss(model)) == pytest.approx(np.sum(errors**2) / 6, rel=1e-12)
    drawn = task.sample(getkey(), 3000)
    np.testing.assert_allclose(np.bincount(drawn) / 3000, 1 / 3, atol=0.05)


def test_refusals(getkey):
    with pytest.raises(ValueError, match="`batch_size` must be at most the 2 examples without replacement; got 3"):
        sgd_moment_step(jnp.eye(2), jnp.eye(2), 0.1, 3, replace=False)
    with pytest.raises(ValueError, match="`gradients` must not all vanish"):
        sgd_growth(jnp.zeros((2, 3)), 0.1, 1)
    for batch_size in (0, -1, True):
        with pytest.raises(ValueError, match="`batch_size` must be a whole number"):
            sgd_threshold(jnp.eye(2), batch_size)
    with pytest.raises(ValueError, match="`learning_rate` must be positive"):
        sgd_growth(jnp.eye(2), -0.1, 1)
    with pytest.raises(ValueError, match="`model` must return one number"):
        per_example_gradients(gaussian((2, 2), scale=1.0, key=getkey()), INPUTS)
    with pytest.raises(ValueError, match=r"`targets` must have shape \(2,\)"):
        RegressionTask(INPUTS, jnp.ones(3))
    with pytest.raises(ValueError, match=r"`model` must return 1 number"):
        RegressionTask(INPUTS, jnp.ones(2)).loss(gaussian((2, 2), scale=1.0, key=getkey()))


@pytest.mark.slow
def test_catalogue_entry():
    assert tx.verify("sgd_stability").passed
