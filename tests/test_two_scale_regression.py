"""Regression at two scales: reference values, Marchenko-Pastur quadrature, ends, finite samples, descent, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

import tractax as tx
from tractax.systems.teacher_student._two_scale_regression import double_descent, mean_excess, population
from tractax.teacher_student import (
    GaussianRegression,
    LeastSquaresPath,
    LinearModel,
    RegressionSample,
    TwoScaleRegressionFlow,
)


def levels(variances, ratios, signal, noise=0.2, **options):
    return TwoScaleRegressionFlow(*(jnp.asarray(x) for x in (variances, ratios, signal)), noise, **options)


def sample(examples=30, key=0, noise=0.5):
    """Correlated inputs, and a model that does not start at zero."""
    factor = jax.random.normal(jax.random.key(1), (6, 6)) / 2
    source = GaussianRegression(jnp.linspace(-1.0, 1.0, 6), factor @ factor.T, noise)
    return LinearModel(jnp.linspace(0.6, -0.2, 6)), source.draw(examples, key=jax.random.key(key))


@pytest.mark.parametrize(
    ("t", "bias", "variance"),
    [
        (1.0, 0.794604419867, 0.048429184427),
        (10.0, 1.236335549545, 0.306669175116),
        (100.0, 2.336369891025, 1.013086314351),
        (1000.0, 1.607291628208, 2.007324622532),
    ],
)
def test_reference(t, bias, variance):
    solution = levels([1.0, 0.01], [0.9, 0.1], [0.5, 50.0])
    assert float(solution.bias(t)) == pytest.approx(bias, rel=1e-11)
    assert float(solution.variance(t)) == pytest.approx(variance, rel=1e-10)
    assert float(solution.evaluate(t).excess) == pytest.approx((bias + variance) / 2, rel=1e-11)


def test_double_descent():
    solution = double_descent()

    def risk(log_t):
        return float(solution.evaluate(np.exp(log_t)).excess)

    for bounds, t, excess in (((0.05, 1), 0.28, 0.4655), ((1e3, 5e4), 7.1e3, 0.8731)):
        found = scipy.optimize.minimize_scalar(risk, bounds=np.log(bounds), method="bounded")
        assert np.exp(found.x) == pytest.approx(t, rel=0.05) and found.fun == pytest.approx(excess, abs=5e-5)
    assert float(solution.evaluate(100.0).excess) == pytest.approx(1.6657, abs=5e-5)
    assert float(solution.limit().excess) == pytest.approx(1.0, rel=1e-12)
    # The training loss knows nothing of it.
    losses = [float(solution.evaluate(t).train) for t in np.logspace(-2, 5, 15)]
    assert np.all(np.diff(losses) < 0)


def marchenko_pastur(ratio, f):
    """The mean over the spectrum of XᵀX/n, N(0, 1) inputs, without its mass at zero."""
    angle = (np.arange(4000) + 0.5) * np.pi / 4000
    l = 1 + ratio + 2 * ratio**0.5 * np.cos(angle)
    return np.sum(2 * np.sin(angle) ** 2 / l * f(l)) / 4000


@pytest.mark.parametrize("ratio", [0.4, 1.0, 2.5])
@pytest.mark.parametrize(
    ("steps", "rate"), [(None, None), (1, 1.0), (16, 1.0), (17, 1.0), pytest.param(1000, 0.5, marks=pytest.mark.slow)]
)
def test_one_level_is_marchenko_pastur(ratio, steps, rate):
    noise, flat = 0.3, max(0.0, 1 - 1 / ratio)
    if steps is None:
        rule, t = tx.GradientFlow(2.0), 14.0
        kept = lambda l: np.exp(-7 * l)  # noqa: E731
    else:
        rule = tx.GradientDescent(rate / (1 + ratio**0.5) ** 2, time_per_step=1.0)
        t = float(steps)
        kept = lambda l: (1 - float(rule.learning_rate) * l) ** steps  # noqa: E731
    state = levels([1.0], [ratio], [1.0], noise, rule=rule).evaluate(t)
    risk = marchenko_pastur(ratio, lambda l: kept(l) ** 2 + noise * ratio * (1 - kept(l)) ** 2 / l) + flat
    assert 2 * float(state.excess) == pytest.approx(risk, rel=1e-11)
    assert float(state.cross) == pytest.approx(1 - flat - marchenko_pastur(ratio, kept), abs=1e-11)
    residual = marchenko_pastur(ratio, lambda l: (l + noise * ratio) * kept(l) ** 2) + noise * max(0.0, 1 - ratio)
    assert 2 * float(state.train) == pytest.approx(residual, abs=1e-11)


@pytest.mark.slow
def test_beginning_and_end():
    start = {"start": jnp.asarray([0.4, 0.1]), "start_overlap": jnp.asarray([-0.2, 1.5])}
    for ratios in ((0.5, 0.3), (0.5, 1.3)):
        solution = levels([1.0, 0.05], ratios, [0.5, 30.0], **start)
        first = solution.evaluate(0.0)
        missing = 0.5 + 0.4 + 0.4 + 0.05 * (30.0 + 0.1 - 3.0)
        np.testing.assert_allclose(first.excess, missing / 2, rtol=1e-14)
        np.testing.assert_allclose(first.train, (missing + 0.2) / 2, rtol=1e-14)
        np.testing.assert_allclose(first.student, 0.4 + 0.05 * 0.1, rtol=1e-13)
        np.testing.assert_allclose(first.cross, -0.2 + 0.05 * 1.5, rtol=1e-13)
        early = jax.tree.leaves(solution.evaluate(1e-9))
        np.testing.assert_allclose(early, jax.tree.leaves(first), atol=1e-8)
        for t in (1e7, 1e15, 1e100, 1e300, jnp.inf):
            late = jax.tree.leaves(solution.evaluate(t))
            np.testing.assert_allclose(late, jax.tree.leaves(solution.limit()), rtol=1e-10, atol=1e-11)
    # Σ c/(1 - Σ c) with more examples than inputs.
    assert float(levels([1.0, 0.05], [0.5, 0.3], [0.5, 30.0]).limit().excess) == pytest.approx(0.1 * 0.8 / 0.2, rel=1e-12)


def test_critical_ratio():
    solution = levels([1.0, 0.01], [0.9, 0.1], [0.5, 50.0])
    assert np.isinf(float(solution.limit().excess))
    # The density of small eigenvalues is an inverse square root.
    variances = [float(solution.variance(t)) for t in (1e10, 4e10)]
    assert variances[1] / variances[0] == pytest.approx(2.0, rel=1e-3)
    assert float(levels([1.0, 0.01], [0.9, 0.1], [0.5, 50.0], 0.0).limit().excess) == 0.0


@pytest.mark.slow
def test_more_weights_than_examples_end_at_the_shortest_interpolation():
    # Ridgeless regression: risk by the self-consistent ridge, found by SciPy.
    s, c, b = np.asarray([1.0, 0.2, 0.0]), np.asarray([0.8, 1.1, 0.5]), np.asarray([0.5, 2.0, 3.0])
    ridge = scipy.optimize.brentq(lambda k: np.sum(c * s / (s + k)) - 1, 1e-9, 10.0)
    freedom = np.sum(c * (s / (s + ridge)) ** 2)
    risk = (np.sum(b * s * (ridge / (s + ridge)) ** 2) + 0.2 * freedom) / (1 - freedom)
    solution = levels(s, c, b)
    assert 2 * float(solution.limit().excess) == pytest.approx(risk, rel=1e-11)
    assert 2 * float(solution.evaluate(1e8).excess) == pytest.approx(risk, rel=1e-10)
    assert abs(float(solution.evaluate(1e8).train)) < 1e-12


@pytest.mark.slow
def test_path_follows_descent():
    model, task = sample()
    # Near the largest stable rate, so that some modes change sign with every step.
    largest = float(jnp.linalg.eigvalsh(task.inputs.T @ task.inputs)[-1] / 30)
    rule = tx.GradientDescent(1.9 / largest, time_per_step=1.0)
    solution = LeastSquaresPath.from_model(model, task, rule)
    run = tx.train(model, task, rule, jnp.asarray([0.0, 1.0, 2.0, 7.0, 40.0]), observe=solution.reduce)
    assert float(tx.compare(solution, run).worst) < 1e-12
    np.testing.assert_allclose(solution.weights(40.3), run.model.weights, rtol=1e-11)


@pytest.mark.slow
def test_path_obeys_the_flow_of_the_loss():
    model, task = sample()
    solution = LeastSquaresPath.from_model(model, task, tx.GradientFlow(2.0))

    def velocity(t):
        return jax.jvp(solution.weights, (t,), (jnp.ones(()),))[1]

    for t in (0.0, 1.0, 30.0):
        gradient = jax.grad(task.loss)(LinearModel(solution.weights(t)))
        np.testing.assert_allclose(velocity(jnp.asarray(t)), -gradient.weights / 2, atol=1e-13)


@pytest.mark.parametrize("examples", [4, pytest.param(30, marks=pytest.mark.slow)])
def test_path_ends_at_the_nearest_least_squares_solution(examples):
    model, task = sample(examples)
    inputs, start = np.asarray(task.inputs), np.asarray(model.weights)
    nearest = start + np.linalg.pinv(inputs) @ (np.asarray(task.labels) - inputs @ start)
    for rule in (None, tx.GradientDescent(0.05)):
        solution = LeastSquaresPath.from_model(model, task, rule)
        for t in (1e9, jnp.inf):
            np.testing.assert_allclose(solution.weights(t), nearest, atol=1e-11)


@pytest.mark.slow
def test_state_is_that_of_the_model():
    model, task = sample()
    source, state = task.population, LeastSquaresPath.from_model(model, task).reduce(model)
    matrix = source.directions @ jnp.diag(source.variances) @ source.directions.T
    np.testing.assert_allclose(state.student, model.weights @ matrix @ model.weights, rtol=1e-12)
    np.testing.assert_allclose(state.cross, model.weights @ matrix @ source.teacher, rtol=1e-12)
    np.testing.assert_allclose(state.train, task.loss(model), rtol=1e-12)
    np.testing.assert_allclose(state.excess, source.excess_risk(model), rtol=1e-12)
    whole = jnp.mean(jax.vmap(lambda i: task.batch_loss(model, i[None]))(jnp.arange(30)))
    np.testing.assert_allclose(task.loss(model), whole, rtol=1e-12)
    assert task.sample(jax.random.key(0), 5).shape == (5,)


@pytest.mark.slow
def test_samples_scatter_around_the_limit():
    # From a start of its own, with correlated inputs; all four numbers of the state, over many samples.
    model, task = sample(90)
    limit = np.asarray(jax.tree.leaves(TwoScaleRegressionFlow.from_model(model, task).evaluate(4.0)))

    @jax.jit
    @jax.vmap
    def run(key):
        return LeastSquaresPath.from_model(model, task.population.draw(90, key=key), check=False).evaluate(4.0)

    states = np.asarray(jax.tree.leaves(run(jax.random.split(jax.random.key(0), 400))))
    scatter = np.std(states, axis=1) / 20
    # The mean over samples is off by 1/n.
    assert np.all(np.abs(np.mean(states, axis=1) - limit) < 4 * scatter + limit / 90)
    assert np.all(scatter < 0.03 * limit)


@pytest.mark.slow
def test_error_falls_as_one_over_n():
    limit = double_descent().evaluate(1.0).excess

    def errors(examples):
        keys = jax.random.split(jax.random.key(examples), 16000 // examples)
        return jax.jit(jax.vmap(lambda key: mean_excess(population(examples), examples, 1.0, key=key)))(keys) - limit

    assert tx.scaling(errors, [20, 40, 80]).contains(-1.0)


@pytest.mark.slow
def test_gradients_and_precision():
    def excess(x):
        solution = levels(jnp.stack([x[0], 0.1]), jnp.stack([x[1], 0.4]), jnp.stack([x[2], 5.0]), x[3])
        return solution.evaluate(x[4]).excess

    at = jnp.asarray([1.0, 0.9, 0.5, 0.2, 20.0])
    gradient = jax.jit(jax.grad(excess))(at)
    slopes = [float(excess(at + h) - excess(at - h)) / 2e-4 for h in 1e-4 * jnp.eye(5)]
    np.testing.assert_allclose(gradient, slopes, rtol=1e-5, atol=1e-8)
    times = jnp.asarray([1.0, 20.0])
    together = jax.vmap(levels([1.0, 0.1], [0.9, 0.4], [0.5, 5.0]).evaluate)(times)
    assert float(together.excess[1]) == pytest.approx(float(excess(at)), rel=1e-12)
    single = levels(*(np.asarray(x, np.float32) for x in ((1.0, 0.1), (0.9, 0.4), (0.5, 5.0))))
    state = single.evaluate(jnp.float32(20.0))
    assert state.excess.dtype == state.student.dtype == jnp.float32
    assert float(state.excess) == pytest.approx(float(excess(at)), rel=1e-6)


def test_largest_step_is_the_inverse_of_the_upper_edge():
    s, c = np.asarray([1.0, 0.3]), np.asarray([0.2, 1.5])
    edge = scipy.optimize.minimize_scalar(
        lambda x: x * (1 + np.sum(c * s / (x - s))), bounds=(1.05, 10.0), method="bounded", options={"xatol": 1e-9}
    ).fun
    levels(s, c, [1.0, 1.0], rule=tx.GradientDescent(1 / edge))
    with pytest.raises(ValueError, match="`rule` must have a learning rate of at most"):
        levels(s, c, [1.0, 1.0], rule=tx.GradientDescent(1.00001 / edge))


def test_refuses_what_it_does_not_cover():
    model, task = sample(200)
    with pytest.raises(ValueError, match="`t` must be a time, t >= 0; got -1"):
        TwoScaleRegressionFlow(jnp.ones(1), jnp.ones(1) / 2, jnp.ones(1)).bias(-1.0)
    with pytest.raises(ValueError, match=r"`noise_variance` must have shape \(\)"):
        TwoScaleRegressionFlow(jnp.ones(1), jnp.ones(1) / 2, jnp.ones(1), jnp.ones(2))
    assert all(bool(a.holds) for a in TwoScaleRegressionFlow.assumptions(model, task))
    for changed, message in (
        (RegressionSample(task.population, 2 * task.inputs, task.labels), "covariance of the population: FAILS"),
        (RegressionSample(task.population, task.inputs[:5].repeat(40, axis=0), task.labels), "independent.*: FAILS"),
        (RegressionSample(task.population, task.inputs, 3 * task.labels), "noise of the population: FAILS"),
    ):
        with pytest.raises(ValueError, match=message):
            TwoScaleRegressionFlow.from_model(model, changed)
        LeastSquaresPath.from_model(model, changed)
    for theory in (TwoScaleRegressionFlow, LeastSquaresPath):
        with pytest.raises(ValueError, match="`rule` must have no weight decay"):
            theory.from_model(model, task, tx.GradientFlow(weight_decay=0.1))
        for rule in (tx.GradientFlow(rates=jnp.ones(1)), tx.GradientDescent(0.1, optax.adam)):
            with pytest.raises(ValueError, match=r"`rule` must be tx\.GradientFlow"):
                theory.from_model(model, task, rule)
        with pytest.raises(ValueError, match="`model` must have 6 inputs"):
            theory.from_model(LinearModel(jnp.ones(5)), task)
        with pytest.raises(ValueError, match="`task` must be a RegressionSample"):
            theory.from_model(model, task.population)
    with pytest.raises(ValueError, match="stable steps, η l < 2: FAILS"):
        LeastSquaresPath.from_model(model, task, tx.GradientDescent(1.0))
    with pytest.raises(ValueError, match="`variances` must not all vanish"):
        levels([0.0], [1.0], [1.0])
    with pytest.raises(ValueError, match="`task` must be given"):
        double_descent().reduce(model)
    with pytest.raises(ValueError, match="`ratios` must be positive"):
        levels([1.0], [0.0], [1.0])
    with pytest.raises(ValueError, match="`variances` must be non-negative"):
        levels([-1.0], [1.0], [1.0])
    with pytest.raises(ValueError, match="`signal` must have shape"):
        levels([1.0], [1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="`start_overlap` must not exceed"):
        levels([1.0], [1.0], [1.0], start=jnp.asarray([1.0]), start_overlap=jnp.asarray([1.5]))
    with pytest.raises(ValueError, match="`examples` must be a whole number"):
        task.population.draw(0, key=jax.random.key(0))
    with pytest.raises(ValueError, match="`labels` must have shape"):
        RegressionSample(task.population, task.inputs, task.labels[:3])
    with pytest.raises(ValueError, match="`population` must be a GaussianRegression"):
        RegressionSample(model, task.inputs, task.labels)


def test_needs_double_precision():
    with jax.enable_x64(False), pytest.raises(ValueError, match="`jax_enable_x64` must be on"):
        levels([1.0], [0.5], [1.0])
