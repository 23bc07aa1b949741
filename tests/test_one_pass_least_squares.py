"""One-pass SGD: reference values, the mean over examples by quadrature, Volterra, threshold, simulations, refusals."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.integrate
import scipy.optimize

import tractax as tx
from tractax.deep_linear import DeepLinear
from tractax.systems.teacher_student._one_pass_least_squares import one_pass_case
from tractax.teacher_student import GaussianRegression, LinearModel, OnePassLeastSquares, OnePassRecursion

COVARIANCE = jnp.asarray([[1.0, 0.4, 0.0], [0.4, 0.8, -0.2], [0.0, -0.2, 0.5]])


def sgd(rate, batch_size=1, time_per_step=1.0):
    return tx.GradientDescent(rate, time_per_step=time_per_step, batch_size=batch_size)


def reference(squares, rate, time_per_step, theory):
    """Three modes with given squared errors; the teacher is zero."""
    task = GaussianRegression(jnp.zeros(3), jnp.asarray([1.0, 0.5, 0.25]), 0.3)
    model = LinearModel(jnp.sqrt(jnp.asarray(squares)))
    return theory.from_model(model, task, sgd(rate, time_per_step=time_per_step))


def correlated(theory, rate=0.3, batch_size=1, covariance=COVARIANCE, noise=0.4):
    task = GaussianRegression(jnp.asarray([0.5, -1.0, 0.2]), covariance, noise)
    return theory.from_model(LinearModel(jnp.asarray([0.1, 0.3, -0.6])), task, sgd(rate, batch_size))


def test_reference_steps():
    solution = reference([1.0, 2.0, 4.0], 0.2, 1.0, OnePassRecursion)
    for steps, risk in ((0, 1.545), (1, 1.3286125), (10, 0.4338618346894)):
        assert float(solution.evaluate(steps).risk) == pytest.approx(risk, rel=1e-12)


def test_reference_moments_of_one_step():
    task = GaussianRegression(jnp.zeros(2), jnp.asarray([1.0, 0.25]), 0.1**0.5)
    solution = OnePassRecursion.from_model(LinearModel(jnp.ones(2)), task, sgd(0.2, time_per_step=1.0))
    state = solution.evaluate(1.0)
    np.testing.assert_allclose(state.modes, [0.734, 0.9185], rtol=1e-13)
    assert float(state.risk) == pytest.approx(0.4818125 + 0.1 / 2, rel=1e-13)
    assert float(solution.stability_threshold()) == pytest.approx(0.6438927747754856, rel=1e-13)


def test_reference_limit():
    solution = reference([0.5, 0.3, 0.2], 0.8 / 3, 1 / 3, OnePassLeastSquares)
    for t, risk in ((1.0, 0.1842019914617), (5.0, 0.0678637123247)):
        assert float(solution.evaluate(t).risk) == pytest.approx(risk, rel=1e-12)
    assert float(solution.limit().risk) == pytest.approx(0.045 / (1 - 0.8 * 1.75 / 6), rel=1e-13)
    assert float(tx.residual(solution, [0.0, 0.1, 1.0, 30.0]).worst) < 1e-13


@pytest.mark.parametrize("batch_size", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_mean_over_examples_by_quadrature(batch_size):
    # A step is a polynomial in the examples, which Gauss-Hermite nodes average exactly.
    covariance = jnp.asarray([[1.0, 0.4], [0.4, 0.6]])
    task = GaussianRegression(jnp.asarray([0.5, -1.0]), covariance, 0.4)
    model, rule = LinearModel(jnp.asarray([0.7, 0.4])), sgd(0.45, batch_size)
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    dimension = 3 * batch_size
    normal = jnp.asarray(list(itertools.product(nodes, repeat=dimension))).reshape(-1, batch_size, 3)
    chance = jnp.asarray(list(itertools.product(weights / weights.sum(), repeat=dimension))).prod(axis=1)
    inputs = normal[:, :, :2] @ jnp.linalg.cholesky(covariance).T
    labels = inputs @ task.teacher + 0.4 * normal[:, :, 2]
    solution = OnePassRecursion.from_model(model, task, rule)

    @jax.vmap
    def after_a_step(inputs, labels):
        gradient = jax.grad(task.batch_loss)(model, (inputs, labels))
        return solution.reduce(LinearModel(model.weights - 0.45 * gradient.weights))

    mean = jax.tree.map(lambda x: jnp.tensordot(chance, x, 1), after_a_step(inputs, labels))
    for found in (solution.step(solution.reduce(model)), solution.evaluate(1.0)):
        np.testing.assert_allclose(found.modes, mean.modes, rtol=1e-12)
        assert float(found.risk) == pytest.approx(float(mean.risk), rel=1e-12)


def test_steps_one_by_one():
    solution = correlated(OnePassRecursion)
    state = solution.evaluate(0.0)
    for k in range(1, 30):
        state = solution.step(state)
        assert float(solution.evaluate(k).risk) == pytest.approx(float(state.risk), rel=1e-12)
    # Between steps nothing happens, as in a simulation.
    assert float(solution.evaluate(29.4).risk) == float(solution.evaluate(29.0).risk)


@pytest.mark.slow
def test_training_follows_the_recursion():
    solution = correlated(OnePassRecursion, rate=0.15)
    model, ts = LinearModel(jnp.asarray([0.1, 0.3, -0.6])), jnp.asarray([1.0, 4.0, 8.0])

    def run(key):
        return tx.train(model, solution.task, solution.rule, ts, observe=solution.reduce, key=key).observed.risk

    risks = tx.ensemble(run, jax.random.split(jax.random.key(0), 4000))
    expected, scatter = jax.vmap(solution.evaluate)(ts).risk, jnp.std(risks, axis=0) / 4000**0.5
    assert jnp.all(jnp.abs(jnp.mean(risks, axis=0) - expected) < 4 * scatter)
    assert jnp.all(scatter < 0.03 * expected)


def test_volterra_equation():
    # The risk alone obeys an integral equation; quadrature of it knows nothing of eigenvectors of the flow.
    solution = correlated(OnePassLeastSquares, rate=0.5)
    g, variances, start = 0.5, np.asarray(solution.task.variances), np.asarray(solution.initial)
    risk = jax.jit(lambda t: solution.evaluate(t).risk)
    for t in (0.5, 3.0, 20.0):
        forcing = 0.5 * np.sum(variances * start * np.exp(-2 * g * variances * t)) + 0.4**2 / 2
        memory, _ = scipy.integrate.quad(
            lambda s, t=t: g**2 * np.sum(variances**2 * np.exp(-2 * g * variances * (t - s))) * float(risk(s)),
            *(0, t),
            epsabs=1e-12,
        )
        assert float(risk(t)) == pytest.approx(forcing + memory, rel=1e-10)


@pytest.mark.parametrize("batch_size", [1, 5])
def test_threshold_of_the_recursion(batch_size):
    # Where the whole second moment of the displacement, with all correlations, stops shrinking (Isserlis).
    k, identity = np.asarray(COVARIANCE), np.eye(3)

    def growth(g):
        def step(moment):
            mean = (identity - g * k) @ moment @ (identity - g * k)
            return mean + g**2 / batch_size * (k @ moment @ k + k * np.trace(k @ moment))

        operator = np.stack([step(unit.reshape(3, 3)).ravel() for unit in np.eye(9)], axis=1)
        return np.max(np.abs(np.linalg.eigvals(operator))) - 1

    located = scipy.optimize.brentq(growth, 0.1, 2.0, xtol=1e-13)
    threshold = float(correlated(OnePassRecursion, batch_size=batch_size).stability_threshold())
    assert threshold == pytest.approx(located, rel=1e-11)
    for theory, at in ((OnePassRecursion, threshold), (OnePassLeastSquares, 2 * batch_size / 2.3)):
        below, above = (correlated(theory, rate, batch_size) for rate in (0.99 * at, 1.01 * at))
        assert float(below.evaluate(1e6).risk) == pytest.approx(float(below.limit().risk), rel=1e-9)
        assert np.isinf(float(above.limit().risk)) and np.isinf(float(above.evaluate(1e9).risk))


def test_threshold_of_equal_eigenvalues():
    for d in (1, 3):
        task = GaussianRegression(jnp.ones(d), 0.5 * jnp.ones(d))
        solution = OnePassRecursion.from_model(LinearModel(jnp.zeros(d)), task, sgd(0.1))
        assert float(solution.stability_threshold()) == pytest.approx(2 / (0.5 * (d + 2)), rel=1e-12)


@pytest.mark.parametrize("theory", [OnePassRecursion, OnePassLeastSquares])
def test_at_the_threshold_noise_adds_up(theory):
    at = correlated(theory).stability_threshold()
    risks = [float(correlated(theory, at).evaluate(t).risk) for t in (1e5, 2e5, 3e5)]
    assert risks[2] - risks[1] == pytest.approx(risks[1] - risks[0], rel=1e-6) and risks[0] > 100


@pytest.mark.parametrize("theory", [OnePassRecursion, OnePassLeastSquares])
def test_late_times_and_what_inputs_do_not_show(theory):
    direction = jnp.asarray([3.0, 4.0, 0.0]) / 5
    flat = COVARIANCE - COVARIANCE @ direction[:, None] @ direction[None, :]
    flat = flat - direction[:, None] @ (direction[None, :] @ flat)
    solution = correlated(theory, covariance=flat)
    start = solution.evaluate(0.0)
    np.testing.assert_allclose(start.modes, solution.initial, rtol=1e-14)
    assert np.count_nonzero(solution.task.variances == 0) == 1
    for t in (1e4, 1e12, jnp.inf):
        late = solution.evaluate(t)
        np.testing.assert_allclose(late.modes, solution.limit().modes, rtol=1e-9)
        assert float(late.modes[0]) == float(start.modes[0])
    untaught = correlated(theory, noise=0.0, rate=5.0)
    learned = theory.from_model(LinearModel(untaught.task.teacher), untaught.task, untaught.rule)
    assert float(learned.evaluate(1e9).risk) == float(learned.limit().risk) == 0.0
    assert np.isinf(float(untaught.evaluate(1e9).risk))


@pytest.mark.parametrize("theory", [OnePassRecursion, pytest.param(OnePassLeastSquares, marks=pytest.mark.slow)])
def test_gradients_at_repeated_eigenvalues(theory):
    def risk(parameters):
        rate, noise, variances, start = parameters
        task = GaussianRegression(jnp.zeros(3), variances, noise)
        return theory.from_model(LinearModel(start), task, sgd(rate)).evaluate(7.0).risk

    at = (jnp.asarray(0.2), jnp.asarray(0.3), jnp.asarray([1.0, 0.3, 1.0]), jnp.asarray([0.5, -0.2, 0.3]))
    flat, unravel = jax.flatten_util.ravel_pytree(at)
    steps = 1e-4 * jnp.eye(flat.size)
    values = jax.jit(jax.vmap(lambda x: risk(unravel(x))))
    slopes = (values(flat[None, :] + steps) - values(flat[None, :] - steps)) / 2e-4
    found = jax.flatten_util.ravel_pytree(jax.jit(jax.grad(risk))(at))[0]
    np.testing.assert_allclose(found, slopes, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_error_of_the_limit_falls_as_one_over_d():
    @functools.partial(jax.jit, static_argnums=0)
    def error(size):
        case = one_pass_case(size, 0.3)
        limit, exact = OnePassLeastSquares.from_model(*case), OnePassRecursion.from_model(*case)
        return jnp.abs(limit.evaluate(1.0).risk - exact.evaluate(1.0).risk)

    assert tx.scaling(error, [10, 20, 40, 80, 160], correction=-1.0).contains(-1.0)


@pytest.mark.slow
def test_single_runs_scatter_by_the_root_of_d():
    def deviations(size):
        case = one_pass_case(int(size), 0.5)
        # Around the mean, which has an error of its own, of order 1/d.
        solution = OnePassRecursion.from_model(*case)

        def deviation(key):
            run = tx.train(*case, jnp.asarray([2.0]), observe=solution.reduce, key=key)
            return run.observed.risk[0] - solution.evaluate(2.0).risk

        return tx.ensemble(deviation, jax.random.split(jax.random.key(0), 1000))

    assert tx.scaling(deviations, [80.0, 160.0, 320.0]).contains(-0.5)


@pytest.mark.slow
def test_inputs_need_not_be_normal_in_the_limit():
    class Signs(GaussianRegression):
        def correlated(self, white):
            return super().correlated(jnp.sign(white))

    def deviations(size):
        model, task, rule = one_pass_case(int(size), 0.5)
        solution = OnePassLeastSquares.from_model(model, task, rule)
        other = Signs(task.teacher, task.variances, task.noise_scale)

        def deviation(key):
            run = tx.train(model, other, rule, jnp.asarray([2.0]), observe=solution.reduce, key=key)
            return run.observed.risk[0] / solution.evaluate(2.0).risk - 1

        return tx.ensemble(deviation, jax.random.split(jax.random.key(0), 400))

    law = tx.scaling(deviations, [80.0, 160.0, 320.0])
    assert law.contains(-0.5) and float(law.errors[-1]) < 0.1


@pytest.mark.slow
def test_task_is_what_it_samples():
    solution = correlated(OnePassRecursion)
    task, model = solution.task, LinearModel(jnp.asarray([0.1, 0.3, -0.6]))
    np.testing.assert_allclose(
        task.loss(model), 0.5 * (model.weights - task.teacher) @ COVARIANCE @ (model.weights - task.teacher) + 0.08
    )
    assert float(task.loss(LinearModel(task.teacher))) == pytest.approx(0.08)
    batches = jax.vmap(lambda key: task.sample(key, 500))(jax.random.split(jax.random.key(0), 100))
    losses = jax.vmap(lambda batch: task.batch_loss(model, batch))(batches)
    assert float(jnp.mean(losses)) == pytest.approx(float(task.loss(model)), abs=4 * float(jnp.std(losses)) / 10)
    inputs = batches[0].reshape(-1, 3)
    np.testing.assert_allclose(inputs.T @ inputs / 50_000, COVARIANCE, atol=0.03)


def test_covariance_as_a_diagonal():
    diagonal = jnp.asarray([0.3, 1.2, 0.7])
    by_vector, by_matrix = (correlated(OnePassLeastSquares, covariance=c) for c in (diagonal, jnp.diag(diagonal)))
    first, second = by_vector.evaluate(3.0), by_matrix.evaluate(3.0)
    assert float(first.risk) == pytest.approx(float(second.risk), rel=1e-13)
    np.testing.assert_allclose(first.modes[jnp.argsort(diagonal)], second.modes, rtol=1e-12)


@pytest.mark.parametrize("theory", [OnePassLeastSquares, pytest.param(OnePassRecursion, marks=pytest.mark.slow)])
def test_float32_jit_and_vmap(theory):
    def risk(rate, t):
        return correlated(theory, rate).evaluate(t).risk

    rates = jnp.asarray([0.1, 0.4])
    together = jax.jit(jax.vmap(risk, in_axes=(0, None)))(rates, 6.0)
    np.testing.assert_allclose(together, [float(risk(rate, 6.0)) for rate in rates], rtol=1e-12)
    double = correlated(theory)
    single = jax.tree.map(lambda x: x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x, double)
    for t in (0.0, 6.0, 1e12):
        state = single.evaluate(jnp.float32(t))
        assert state.modes.dtype == state.risk.dtype == jnp.float32
        np.testing.assert_allclose(state.modes, double.evaluate(t).modes, rtol=1e-4)


def test_refusals():
    task, model = GaussianRegression(jnp.ones(3)), LinearModel(jnp.zeros(3))
    for theory in (OnePassRecursion, OnePassLeastSquares):
        assert theory.assumptions(model, task, sgd(0.1)) == ()
        for rule in (tx.GradientFlow(), tx.GradientDescent(0.1), None, tx.GradientDescent(0.1, optax.adam, batch_size=1)):
            with pytest.raises(ValueError, match=r"`rule` must be tx\.GradientDescent with optax\.sgd"):
                theory.from_model(model, task, rule)
        with pytest.raises(ValueError, match="`model` must be a LinearModel; got DeepLinear"):
            theory.from_model(DeepLinear((jnp.ones((1, 3)),)), task, sgd(0.1))
        with pytest.raises(ValueError, match="`model` must have 3 inputs"):
            theory.from_model(LinearModel(jnp.zeros(2)), task, sgd(0.1))
        with pytest.raises(ValueError, match="`task` must be a GaussianRegression"):
            theory.from_model(model, tx.deep_linear.LinearTask(jnp.eye(3)), sgd(0.1))
    for covariance, message in (
        (jnp.asarray([[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), "`covariance` must be positive semi-definite"),
        (jnp.asarray([1.0, -0.1, 0.0]), "`covariance` must be non-negative"),
        (jnp.zeros(3), "`covariance` must not vanish"),
        (jnp.ones(2), "`covariance` must have shape"),
        (jnp.full(3, jnp.nan), "`covariance` must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            GaussianRegression(jnp.ones(3), covariance)
    with pytest.raises(ValueError, match="`noise_scale` must be non-negative"):
        GaussianRegression(jnp.ones(3), noise_scale=-1.0)
    with pytest.raises(ValueError, match="`weights` must have shape"):
        LinearModel(jnp.ones((1, 3)))
