"""Logistic regression: reference values, the direction of largest margin, huge steps and the perceptron, refusals."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.integrate
import scipy.optimize

import tractax as tx
from tractax.deep_linear import DeepLinear
from tractax.teacher_student import (
    ClassificationTask,
    Exponential,
    Hinge,
    LinearClassifier,
    Logistic,
    LogisticRegressionFlow,
    large_step_bound,
    max_margin,
    perceptron_bound,
)

LOSSES = (Logistic(), Exponential(), Hinge(0.5))


def one_example(margin, square, loss=None):
    """A single example with this initial margin and squared length."""
    task = ClassificationTask(jnp.asarray([[square**0.5, 0.0]]), jnp.asarray([1.0]), loss)
    return LinearClassifier(jnp.asarray([margin / square**0.5, 0.3])), task


def separable(key, examples, dimension):
    keys = jax.random.split(key)
    inputs = jax.random.normal(keys[0], (examples, dimension))
    return ClassificationTask(inputs, jnp.sign(inputs @ jax.random.normal(keys[1], (dimension,))))


def test_reference_values():
    solution = LogisticRegressionFlow.from_model(*one_example(-0.4, 1.7))
    expected = {1.0: 0.4312065795500, 100.0: 5.106935195182, 1e4: 9.740411403625}
    for t, margin in expected.items():
        # The last of them is given to 13 digits, of which 12 are right.
        assert float(solution.evaluate(t).margins[0]) == pytest.approx(margin, rel=5e-13)
        with mpmath.workdps(30):
            c = mpmath.mpf(-0.4) + mpmath.exp(-0.4) + mpmath.mpf(1.7) * t
            exact = float(mpmath.log(mpmath.lambertw(mpmath.exp(c)).real))
        assert float(solution.evaluate(t).margins[0]) == pytest.approx(exact, rel=2e-15)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_margins_against_scipy(loss):
    slope = jax.jit(jax.grad(loss))
    for start in (-3.0, 2.0):
        end = scipy.integrate.solve_ivp(
            lambda t, m: [-float(slope(m[0]))], (0, 3), [start], method="LSODA", rtol=1e-11, atol=1e-12
        )
        found = loss.descend(jnp.asarray(start), jnp.asarray(3.0))
        # LSODA meets the kink of the hinge loss as well as its steps allow.
        assert float(found) == pytest.approx(end.y[0, -1], rel=1e-9, abs=1e-5 if isinstance(loss, Hinge) else 0)


@pytest.mark.slow
def test_margins_at_extremes():
    for loss in LOSSES[:2]:
        descend = jax.jit(loss.descend)
        slopes = jax.jit(jax.vmap(jax.grad(loss.descend)))
        for dtype, big in ((jnp.float64, 1e300), (jnp.float32, 1e30)):
            start = jnp.asarray([-1e4, -700.0, -50.0, 0.0, 39.0, 41.0, 800.0, 1e4], dtype)
            for t in (0.0, 1e-8, 1.0, big):
                moved = descend(start, jnp.full_like(start, t))
                assert moved.dtype == dtype and jnp.all(jnp.isfinite(moved)) and jnp.all(moved >= start)
                if t == 0.0:
                    np.testing.assert_allclose(moved, start, rtol=4 * float(jnp.finfo(dtype).eps))
            assert jnp.all(jnp.isfinite(slopes(start, jnp.ones_like(start))))
    # A margin far on the right moves by the loss's slope, times t.
    for start in (39.0, 41.0):
        moved = Logistic().descend(jnp.asarray(start), jnp.asarray(1e18))
        with mpmath.workdps(40):
            exact = mpmath.log(mpmath.lambertw(mpmath.exp(start) * mpmath.exp(mpmath.exp(start) + 10**18)).real)
        assert float(moved) == pytest.approx(float(exact), rel=1e-15)


def test_direction_of_largest_margin():
    inputs = jnp.asarray([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 4.0]])
    labels = jnp.asarray([1.0, -1.0, 1.0])
    task = ClassificationTask(inputs, labels)
    solution = LogisticRegressionFlow.from_model(LinearClassifier(jnp.asarray([0.3, 1.0, -0.5])), task)
    goal, margin = max_margin(task)
    np.testing.assert_allclose(solution.final_direction(), goal, atol=1e-12)
    assert float(margin) == pytest.approx((1 + 1 / 4 + 1 / 16) ** -0.5, rel=1e-12)

    def angle(log_time):
        weights = solution.evaluate(jnp.exp(log_time)).weights
        return float(jnp.linalg.norm(weights / jnp.linalg.norm(weights) - goal))

    assert tx.scaling(angle, [100.0, 200.0, 400.0, 600.0], correction=-1.0).contains(-1.0)
    assert float(solution.loss(1e6)) < 1e-5 < float(solution.loss(1.0))


SLOW_SHAPES = [pytest.param(*shape, marks=pytest.mark.slow) for shape in ((1, 3), (5, 40))]


@pytest.mark.slow
@pytest.mark.parametrize(("examples", "dimension"), [(12, 2), *SLOW_SHAPES])
def test_largest_margin_against_scipy(examples, dimension, getkey):
    task = separable(getkey(), examples, dimension)
    z = np.asarray(task.signed_inputs)
    # The nearest point of the hull of z, as a problem of non-negative least squares.
    shares, _ = scipy.optimize.nnls(np.vstack([z.T, np.ones(examples)]), np.r_[np.zeros(dimension), 1.0])
    nearest = z.T @ shares / shares.sum()
    direction, margin = max_margin(task)
    assert float(margin) == pytest.approx(np.linalg.norm(nearest), rel=1e-10)
    np.testing.assert_allclose(direction, nearest / np.linalg.norm(nearest), atol=1e-8)
    single = ClassificationTask(jnp.asarray(z, jnp.float32), jnp.ones(examples))
    assert max_margin(single).margin.dtype == jnp.float32
    assert float(max_margin(single).margin) == pytest.approx(float(margin), rel=1e-3)


@pytest.mark.slow
def test_largest_margin_of_what_is_not_separable_and_of_copies():
    xor = jnp.asarray([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    task = ClassificationTask(xor, jnp.asarray([1.0, -1.0, -1.0, 1.0]))
    assert float(max_margin(task).margin) == 0 and float(perceptron_bound(task)) == jnp.inf
    copies = ClassificationTask(jnp.ones((6, 2)), jnp.ones(6))
    assert float(max_margin(copies).margin) == pytest.approx(2**0.5, rel=1e-12)
    assert float(perceptron_bound(copies)) == pytest.approx(6, rel=1e-12)


def test_gradient_of_the_margin(getkey):
    labels = jnp.asarray([1.0, 1.0, -1.0, 1.0])
    inputs = labels[:, None] * jnp.abs(jax.random.normal(getkey(), (4, 2)))
    direction = jax.random.normal(getkey(), (4, 2))
    margin = jax.jit(lambda inputs: max_margin(ClassificationTask(inputs, labels)).margin)
    slope = (margin(inputs + 1e-6 * direction) - margin(inputs - 1e-6 * direction)) / 2e-6
    assert float(jnp.vdot(jax.grad(margin)(inputs), direction)) == pytest.approx(float(slope), rel=1e-6)


def test_huge_steps_are_the_perceptron():
    # Rational data whose margins along the path stay away from zero.
    inputs, labels = jnp.asarray([[0.6, 0.2], [-0.4, 0.4], [-0.2, -0.6]]), jnp.asarray([1.0, 1.0, -1.0])
    task, perceptron = (ClassificationTask(inputs, labels, loss) for loss in (None, Hinge()))
    z, u, by_hand = np.asarray(task.signed_inputs), np.zeros(2), []
    for _ in range(30):
        margins = z @ u
        u = u + np.where(margins == 0, 0.5, margins < 0) @ z / 3
        by_hand.append(u)
    model, ts = LinearClassifier(jnp.zeros(2)), jnp.arange(1.0, 31.0)
    limit = tx.train(model, perceptron, tx.GradientDescent(1.0), ts, observe=lambda model: model.weights).observed
    np.testing.assert_allclose(limit, by_hand, rtol=1e-13)
    distances = []
    for rate in (10.0, 100.0, 1000.0):
        rule = tx.GradientDescent(rate, time_per_step=1.0)
        found = tx.train(model, task, rule, ts, observe=lambda model: model.weights).observed / rate
        distances.append(float(jnp.max(jnp.abs(found - limit))))
    assert 0.5 < distances[0] < 1 and 1e-3 < distances[1] < 0.02 and distances[2] < 1e-14


def test_bound_of_a_step(getkey):
    task = separable(getkey(), 8, 3)
    z, n = np.asarray(task.signed_inputs), 8
    radius = np.linalg.norm(z, axis=1).max()
    for rate in (1.0, 30.0):
        u = jax.random.normal(getkey(), (3,))
        margins = z @ np.asarray(u)
        distance = np.linalg.norm((scipy.special.expit(-rate * margins) - (margins < 0)) @ z / n)
        bound = float(large_step_bound(task, u, rate))
        assert distance <= bound * (1 + 1e-12) <= radius * np.exp(-rate * np.abs(margins).min()) * (1 + 1e-12)
    assert float(large_step_bound(task, jnp.zeros(3), 1.0)) == 0.0


@pytest.mark.slow
def test_the_perceptron_stops_within_its_bound():
    ts = jnp.arange(1.0, 2001.0)
    for gap, at_least in ((0.2, 1), (0.01, 400)):
        # Two examples at odds about all but a narrow gap.
        task = ClassificationTask(jnp.asarray([[gap, 1.0], [gap, -0.9]]), jnp.ones(2), Hinge())
        model = LinearClassifier(jnp.zeros(2))
        margins = tx.train(model, task, tx.GradientDescent(1.0), ts, observe=task.margins).observed
        steps = 1 + int(jnp.sum(jnp.any(margins <= 0, axis=1)))
        assert at_least < steps < 2000 and steps <= float(perceptron_bound(task))
        np.testing.assert_array_equal(margins[steps - 1 :], jnp.broadcast_to(margins[-1], margins[steps - 1 :].shape))


@pytest.mark.slow
def test_training_beyond_the_theory_and_batches(getkey):
    # A deep linear network on the same task; batches average to the loss.
    task = separable(getkey(), 6, 3)
    network = DeepLinear((jax.random.normal(getkey(), (2, 3)), jax.random.normal(getkey(), (1, 2))))
    classifier = LinearClassifier(network.product[0])
    assert float(task.loss(network)) == pytest.approx(float(task.loss(classifier)), rel=1e-12)
    singles = jax.vmap(lambda i: task.batch_loss(network, i[None]))(jnp.arange(6))
    assert float(jnp.mean(singles)) == pytest.approx(float(task.loss(network)), rel=1e-12)
    run = tx.train(classifier, task, tx.GradientDescent(0.5, batch_size=2), jnp.asarray([100.0]), key=getkey())
    assert float(run.observed[0]) < float(task.loss(classifier))


def test_refusals():
    model, task = one_example(0.1, 1.0)
    inputs = jnp.asarray([[1.0, 0.0], [0.5, 1.0]])
    slanted = ClassificationTask(inputs, jnp.ones(2))
    with pytest.raises(ValueError, match=r"does not apply.*orthogonal examples.*violation 0.45"):
        LogisticRegressionFlow.from_model(model, slanted)
    LogisticRegressionFlow.from_model(model, slanted, check=False)
    with pytest.raises(ValueError, match="no weight decay"):
        LogisticRegressionFlow.from_model(model, task, tx.GradientFlow(weight_decay=0.1))
    with pytest.raises(ValueError, match="`rule` must be tx"):
        LogisticRegressionFlow.from_model(model, task, tx.GradientDescent(0.1))
    with pytest.raises(ValueError, match=r"`rule.rates` must have shape \(1,\)"):
        LogisticRegressionFlow.from_model(model, task, tx.GradientFlow(rates=jnp.ones(2)))
    with pytest.raises(ValueError, match="`model` must be a LinearClassifier; got DeepLinear"):
        LogisticRegressionFlow.from_model(DeepLinear((jnp.ones((1, 2)),)), task)
    with pytest.raises(ValueError, match="`model` must have 2 inputs"):
        LogisticRegressionFlow.from_model(LinearClassifier(jnp.ones(3)), task)
    with pytest.raises(ValueError, match="`model` must have 2 inputs"):
        LogisticRegressionFlow.from_model(model, task).reduce(LinearClassifier(jnp.ones(3)))
    with pytest.raises(ValueError, match="`task` must be a ClassificationTask"):
        LogisticRegressionFlow.from_model(model, model)
    with pytest.raises(ValueError, match="grow for ever; see `final_direction`"):
        LogisticRegressionFlow.from_model(model, task).limit()
    with pytest.raises(ValueError, match=r"`labels` must be \+1 or -1"):
        ClassificationTask(inputs, jnp.asarray([1.0, 0.0]))
    with pytest.raises(ValueError, match=r"`labels` must have shape \(2,\)"):
        ClassificationTask(inputs, jnp.ones(3))
    with pytest.raises(ValueError, match="`inputs` must be finite"):
        ClassificationTask(inputs.at[0, 0].set(jnp.nan), jnp.ones(2))
    with pytest.raises(ValueError, match="`margin_loss` must be a loss of margins"):
        ClassificationTask(inputs, jnp.ones(2), jnp.tanh)
    with pytest.raises(ValueError, match="`threshold` must be non-negative"):
        Hinge(-1.0)
    with pytest.raises(ValueError, match="`weights` must have shape"):
        LinearClassifier(jnp.ones((2, 2)))
    with pytest.raises(ValueError, match="`task` must have at least 2 examples"):
        perceptron_bound(task)
    with pytest.raises(ValueError, match="`learning_rate` must be positive"):
        large_step_bound(task, jnp.ones(2), 0.0)
    with pytest.raises(ValueError, match="`model` must return one number"):
        slanted.loss(DeepLinear((jnp.ones((2, 2)),)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["logistic_regression", "large_step_logistic"])
def test_catalogue_entries(name):
    assert tx.verify(name).passed
