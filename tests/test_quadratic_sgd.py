"""Exact moments of SGD and its diffusion: recursions written otherwise, thresholds, stationary laws, refusals."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg
from jax.flatten_util import ravel_pytree
from toys import MODEL, TASK

import tractax as tx
from tractax.deep_linear import DeepLinear, RegressionTask, sgd_growth, sgd_threshold
from tractax.rules import QuadraticSGD, SGDFlow
from tractax.teacher_student import ClassificationTask, GaussianRegression, LinearModel
from tractax.two_layer import TwoLayerNetwork

INPUTS = np.array([[1.5, 0.4], [-0.6, 1.1], [0.9, -0.7]])
TARGETS = np.array([1.0, -0.5, 0.3])
START = np.array([-1.0, 0.8])
EULER = {"solver": diffrax.Euler(), "dt0": 0.02, "stepsize_controller": diffrax.ConstantStepSize()}


def layer(weights):
    return DeepLinear((jnp.asarray(weights)[None, :],))


def solution(rule, inputs=INPUTS, start=START):
    task = RegressionTask(jnp.asarray(inputs), jnp.asarray(TARGETS[: len(inputs)]))
    return QuadraticSGD.from_model(layer(start), task, rule)


solve = eqx.filter_jit(solution)
at = eqx.filter_jit(lambda solution, t: solution.evaluate(t))
stability_of = eqx.filter_jit(lambda solution: (solution.threshold(), solution.growth_rate))
limit_of = eqx.filter_jit(lambda solution: solution.limit())


def raw_moments(rate, batch_size, steps):
    """E w and E wwᵀ by w ← Rw + b, with the two second moments that a batch of any size interpolates between."""
    maps = np.eye(2) - rate * INPUTS[:, :, None] * INPUTS[:, None, :]
    shifts = rate * TARGETS[:, None] * INPUTS
    mean, second = START, np.outer(START, START)

    def moved(r, b):
        cross = r @ np.outer(mean, b)
        return r @ second @ r.T + cross + cross.T + np.outer(b, b)

    for _ in range(steps):
        single = np.mean([moved(r, b) for r, b in zip(maps, shifts, strict=True)], axis=0)
        whole = moved(maps.mean(axis=0), shifts.mean(axis=0))
        second = single / batch_size + (1 - 1 / batch_size) * whole
        mean = maps.mean(axis=0) @ mean + shifts.mean(axis=0)
    return mean, second


one_size = pytest.mark.parametrize("batch_size", [1, pytest.param(3, marks=pytest.mark.slow)])


@pytest.mark.slow
@one_size
def test_recursion_of_raw_moments(batch_size):
    rate = 0.4
    found = solve(tx.GradientDescent(rate, time_per_step=1.0, batch_size=batch_size))
    for steps in (0, 1, 5, 60):
        mean, second = raw_moments(rate, batch_size, steps)
        state, minimum = at(found, steps), np.asarray(found.minimum)
        np.testing.assert_allclose(state.mean + minimum, mean, rtol=1e-12, atol=1e-14)
        raw = state.second + np.outer(mean, minimum) + np.outer(minimum, mean) - np.outer(minimum, minimum)
        np.testing.assert_allclose(raw, second, rtol=1e-12, atol=1e-14)
        loss = np.mean([x @ second @ x / 2 - y * (x @ mean) + y**2 / 2 for x, y in zip(INPUTS, TARGETS, strict=True)])
        assert float(state.loss) == pytest.approx(loss, rel=1e-12)
    stepped = found.step(at(found, 4))
    np.testing.assert_allclose(stepped.second, at(found, 5).second, rtol=1e-12)
    np.testing.assert_allclose(limit_of(found).second, at(found, jnp.inf).second, rtol=1e-10)


@pytest.mark.slow
@one_size
def test_thresholds_are_those_of_interpolating_minima(batch_size):
    # Label noise moves neither the threshold nor the growth; computed there from gradients, by pairs of eigenvectors.
    threshold = sgd_threshold(INPUTS, batch_size)
    for rate in (0.4, 1.01 * threshold):
        found = solve(tx.GradientDescent(rate, time_per_step=1.0, batch_size=batch_size))
        measured, growth_rate = stability_of(found)
        assert float(measured) == pytest.approx(float(threshold), rel=1e-12)
        assert float(jnp.exp(growth_rate)) == pytest.approx(float(sgd_growth(INPUTS, rate, batch_size)), rel=1e-12)


@pytest.mark.slow
def test_full_batches_have_no_noise():
    found = solve(tx.GradientDescent(0.4))
    assert float(stability_of(found)[0]) == pytest.approx(2 / np.linalg.eigvalsh(INPUTS.T @ INPUTS / 3)[-1], rel=1e-12)
    np.testing.assert_allclose(at(found, 2.0).covariance, 0.0, atol=1e-15)
    np.testing.assert_allclose(limit_of(found).second, 0.0, atol=1e-15)
    assert found.small_rate_limit().limit().loss == pytest.approx(float(found.quadratic.lowest), rel=1e-12)


@pytest.mark.slow
def test_above_the_threshold():
    found = solve(tx.GradientDescent(1.2, time_per_step=1.0, batch_size=1))
    assert 1 < float(at(found, 40).loss) < jnp.inf
    # The mean still converges, and only the second moment explodes.
    late = at(found, 1e9)
    assert late.loss == jnp.inf
    np.testing.assert_allclose(late.mean, 0.0, atol=1e-12)
    with pytest.raises(ValueError, match="QuadraticSGD has no limit"):
        found.limit()


@pytest.mark.slow
def test_gradient_in_the_learning_rate_above_the_threshold():
    slope = jax.grad(lambda x: solution(tx.GradientDescent(x, time_per_step=1.0, batch_size=1)).evaluate(3).loss)(1.2)
    ahead, behind = (
        at(solve(tx.GradientDescent(1.2 + d, time_per_step=1.0, batch_size=1)), 3).loss for d in (1e-5, -1e-5)
    )
    assert float(slope) == pytest.approx(float(ahead - behind) / 2e-5, rel=1e-7)


@pytest.mark.slow
def test_gradients_where_curvatures_repeat_and_directions_are_flat():
    # Equal curvatures in two directions and none in the third.
    inputs = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])

    @jax.jit
    def loss(x):
        moved = jnp.asarray(inputs) + x * jnp.asarray([[0.3, -0.2, 0.5], [0.1, 0.4, -0.7]])
        return solution(tx.GradientDescent(0.5, batch_size=1), moved, np.array([0.4, -0.3, 0.2])).evaluate(1.5).loss

    expected = (loss(1e-4) - loss(-1e-4)) / 2e-4
    assert float(jax.grad(loss)(0.0)) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.slow
def test_flat_directions_stay():
    found = solve(tx.GradientDescent(0.5, batch_size=1), np.array([[1.0, 0.5, 0.2], [0.3, 1.0, -0.1]]), np.ones(3))
    normal = np.cross([1.0, 0.5, 0.2], [0.3, 1.0, -0.1])
    late = at(found, 1e12)
    np.testing.assert_allclose(late.second @ normal, 0.0, atol=1e-12)
    assert float(normal @ (late.mean + found.minimum)) == pytest.approx(float(normal @ np.ones(3)), rel=1e-12)
    # Two examples, three parameters: both are fitted.
    assert float(limit_of(found).loss) == pytest.approx(0.0, abs=1e-14)


@pytest.mark.slow
def test_diffusion():
    found = solve(SGDFlow(0.3, 3, 2, weight_decay=0.1))
    assert float(tx.residual(found, [0.0, 1e-9, 0.3, 2.0, 30.0]).worst) < 1e-12
    model = layer(START)
    start, state = found.reduce(model), at(found, 0.0)
    np.testing.assert_allclose(state.second, start.second, rtol=1e-12)
    assert float(state.loss) == pytest.approx(float(start.loss), rel=1e-12)
    np.testing.assert_allclose(limit_of(found).second, at(found, 1e6).second, rtol=1e-10)
    with pytest.raises(ValueError, match="SGDFlow takes no steps"):
        found.step(state)
    with pytest.raises(ValueError, match="Steps obey no differential equation"):
        tx.residual(solve(tx.GradientDescent(0.4)), [1.0])


@pytest.mark.slow
def test_small_rate_limit_solves_the_lyapunov_equation():
    found = solve(tx.GradientDescent(0.02, batch_size=2))
    hessian, residuals = INPUTS.T @ INPUTS / 3, INPUTS @ np.asarray(found.minimum) - TARGETS
    noise = 0.02 / 2 * np.mean(residuals[:, None, None] ** 2 * INPUTS[:, :, None] * INPUTS[:, None, :], axis=0)
    limit, t = found.small_rate_limit(), 0.7
    stationary = scipy.linalg.solve_continuous_lyapunov(hessian, noise)
    np.testing.assert_allclose(limit_of(limit).second, stationary, rtol=1e-12)
    decay = scipy.linalg.expm(-hessian * t)
    displacement = decay @ (START - np.asarray(found.minimum))
    expected = np.outer(displacement, displacement) + stationary - decay @ stationary @ decay
    np.testing.assert_allclose(at(limit, t).second, expected, rtol=1e-12)
    assert float(tx.residual(limit, [0.0, 0.5, 3.0]).worst) < 1e-13


@pytest.mark.slow
def test_a_finite_task_is_the_mean_of_its_examples():
    sample = GaussianRegression(jnp.asarray([1.0, -0.5]), None, 0.3).draw(5, key=jax.random.key(0))
    labels = jnp.asarray([1.0, -1.0, -1.0])
    for task in (sample, ClassificationTask(jnp.asarray(INPUTS), labels)):
        assert isinstance(task, tx.AbstractFiniteTask)
        losses = task.example_losses(LinearModel(jnp.asarray([0.4, 0.7])))
        assert losses.shape == (task.examples,)
        assert float(jnp.mean(losses)) == pytest.approx(float(task.loss(LinearModel(jnp.asarray([0.4, 0.7])))), rel=1e-13)
    drawn = task.sample(jax.random.key(1), 1000)
    # With replacement, so that there may be more than examples; every one is drawn.
    np.testing.assert_array_equal(jnp.unique(drawn), [0, 1, 2])


@pytest.mark.slow
def test_noise_of_the_diffusion_is_that_of_batches():
    # On a network of two tanh units: every column of the operator, against the gradients of the examples.
    model = TwoLayerNetwork(jnp.asarray([[0.9, -0.4], [-0.3, 0.8]]), jnp.asarray([0.7, -0.9]), "tanh")
    task = RegressionTask(jnp.asarray(INPUTS), jnp.asarray(TARGETS))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    operator = SGDFlow(0.2, 3, 2).diffusion(0.0, params, tx.Objective(task, static))
    columns = jax.vmap(lambda w: ravel_pytree(operator.mv(w))[0])(jnp.eye(3))

    def gradient(number):
        return ravel_pytree(jax.grad(lambda m: task.batch_loss(eqx.combine(m, static), number[None]))(params))[0]

    gradients = jax.vmap(gradient)(jnp.arange(3))
    np.testing.assert_allclose(columns.T @ columns, 0.2 / 2 * np.cov(gradients.T, bias=True), rtol=1e-12, atol=1e-15)
    # Paths have the precision of the parameters, data may have a higher one.
    low = jax.tree.map(lambda w: w.astype(jnp.float32), params)
    with jax.numpy_dtype_promotion("standard"):
        operator = SGDFlow(0.2, 3, 2).diffusion(0.0, low, tx.Objective(task, static))
        first = ravel_pytree(operator.mv(jnp.asarray([1.0, 0.0, 0.0], jnp.float32)))[0]
    assert first.dtype == jnp.float32
    np.testing.assert_allclose(first, columns[0], rtol=1e-4)


@pytest.mark.slow
def test_simulations():
    task = RegressionTask(jnp.asarray(INPUTS), jnp.asarray(TARGETS))
    for rule, options in ((tx.GradientDescent(0.3, batch_size=2), {}), (SGDFlow(0.3, 3, 2), EULER)):
        found = solve(rule)

        def run(key, rule=rule, options=options, found=found):
            return tx.train(layer(START), task, rule, [0.6, 2.4], key=key, observe=found.reduce, **options).observed

        mean, error, _ = tx.ensemble(run, jax.random.split(jax.random.key(0), 2000), reduce=tx.Mean()).loss
        expected = np.asarray([at(found, t).loss for t in (0.6, 2.4)])
        # The bias of Euler's method, of the order of its steps, and the scatter of runs.
        bias = 0.02 * expected if options else 0.0
        np.testing.assert_array_less(np.abs(mean - expected), 4 * error + bias)


@pytest.mark.slow
def test_float32():
    task = RegressionTask(jnp.asarray(INPUTS, jnp.float32), jnp.asarray(TARGETS, jnp.float32))
    model = layer(START.astype(np.float32))
    for rule in (tx.GradientDescent(0.4, batch_size=1), SGDFlow(0.4, 3)):
        state = eqx.filter_jit(QuadraticSGD.from_model)(model, task, rule).evaluate(jnp.float32(2.0))
        assert state.second.dtype == jnp.float32
        np.testing.assert_allclose(state.second, solve(rule).evaluate(2.0).second, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_any_model_and_data_of_several_outputs():
    # Two outputs, a bias in every example, and batches; against an ensemble of actual runs.
    keys = jax.random.split(jax.random.key(1), 3)
    task = RegressionTask(jax.random.normal(keys[0], (6, 2)), jax.random.normal(keys[1], (6, 2)))
    model = eqx.nn.Linear(2, 2, key=keys[2])
    rule = tx.GradientDescent(0.3, batch_size=2)
    found = QuadraticSGD.from_model(model, task, rule)
    runs = tx.ensemble(
        lambda key: tx.train(model, task, rule, [3.0], key=key, observe=found.reduce).observed,
        jax.random.split(jax.random.key(2), 20_000),
        reduce=tx.Mean(),
    )
    predicted = jax.tree.map(lambda x: x[None], at(found, 3.0))
    means = jax.tree.leaves(runs, is_leaf=lambda x: isinstance(x, tx.training.Moments))
    for mean, expected in zip(means, jax.tree.leaves(predicted), strict=True):
        assert np.max(np.abs(mean.mean - expected) / mean.standard_error) < 4.5
    sample = GaussianRegression(jnp.asarray([1.0, -0.5]), None, 0.3).draw(5, key=keys[0])
    other = QuadraticSGD.from_model(LinearModel(jnp.zeros(2)), sample, rule)
    data = RegressionTask(sample.inputs, sample.labels)
    same = QuadraticSGD.from_model(layer([0.0, 0.0]), data, rule)
    np.testing.assert_allclose(other.evaluate(3.0).second, same.evaluate(3.0).second, rtol=1e-12)


@pytest.mark.slow
def test_learning_rates_side_by_side():
    rates = jnp.asarray([0.1, 0.5, 1.3])
    together = jax.jit(jax.vmap(lambda x: solution(tx.GradientDescent(x, time_per_step=1.0, batch_size=1)).evaluate(7.0)))
    alone = [solve(tx.GradientDescent(x, time_per_step=1.0, batch_size=1)).evaluate(7.0).second for x in rates]
    np.testing.assert_allclose(together(rates).second, jnp.stack(alone), rtol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["quadratic_sgd", "sgd_diffusion"])
def test_claims(name):
    assert tx.verify(name).passed


@pytest.mark.slow
def test_refuses_other_losses():
    task = RegressionTask(jnp.asarray(INPUTS), jnp.asarray(TARGETS))
    network = TwoLayerNetwork(jnp.asarray([[0.9, -0.4]]), jnp.asarray([0.7]), "tanh")
    with pytest.raises(ValueError, match=r"QuadraticSGD does not apply. quadratic examples: FAILS"):
        QuadraticSGD.from_model(network, task, tx.GradientDescent(0.1, batch_size=1))


def test_refuses():
    task = RegressionTask(jnp.asarray(INPUTS), jnp.asarray(TARGETS))
    model, rule = layer(START), tx.GradientDescent(0.1, batch_size=1)
    for case, message in (
        ((MODEL, TASK, rule), "`task` must be a tx.AbstractFiniteTask for QuadraticSGD; got LinearTask"),
        ((model, task, None), "`rule` must be tx.GradientDescent with optax.sgd, or tx.rules.SGDFlow"),
        ((model, task, tx.GradientDescent(0.1, optax.adam)), "`rule` must be tx.GradientDescent with optax.sgd"),
        ((model, task, SGDFlow(0.1, 4)), "`rule` must have the 3 examples of `task`; got 4"),
        ((layer(np.ones(31)), task, rule), "`model` must have at most 30 parameters for QuadraticSGD"),
    ):
        with pytest.raises(ValueError, match=message):
            QuadraticSGD.from_model(*case)
    for build, message in (
        (lambda: SGDFlow(0.0, 3), "`learning_rate` must be positive"),
        (lambda: SGDFlow(0.1, 0), "`examples` must be a whole number of at least 1; got 0"),
        (lambda: SGDFlow(0.1, 3, 1.5), "`batch_size` must be a whole number of at least 1; got 1.5"),
        (lambda: SGDFlow(0.1, 3, 4), "`batch_size` must be at most 3, the `examples`; got 4"),
        (lambda: SGDFlow(0.1, 3, weight_decay=-1.0), "`weight_decay` must be non-negative"),
        (lambda: tx.train(model, task, SGDFlow(0.1, 3), [1.0]), "`key` must be a JAX PRNG key"),
        (
            lambda: tx.train(model, task, SGDFlow(0.1, 4), [1.0], key=jax.random.key(0), **EULER),
            "`task` must be a tx.AbstractFiniteTask of 4",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            build()
