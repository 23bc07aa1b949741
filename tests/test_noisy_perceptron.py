"""A perceptron under SGD: reference values, quadrature, the loss itself, late laws, simulations, refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

import tractax as tx
from tractax.deep_linear import DeepLinear
from tractax.systems.teacher_student._noisy_perceptron import noisy_case
from tractax.teacher_student import (
    ClassificationTask,
    Hinge,
    LinearClassifier,
    NoisyPerceptron,
    PerceptronTask,
    fitting_scales,
    late_perceptron,
)


@functools.cache
def reference():
    return NoisyPerceptron.from_model(*noisy_case(20), t1=10.0)


def mean(task, g):
    """Of a function of |x1|, by SciPy's adaptive quadrature."""
    chi = float(task.exponent)
    norm = 2 / (2 ** ((chi + 1) / 2) * scipy.special.gamma((chi + 1) / 2))
    value, _ = scipy.integrate.quad(
        lambda x: norm * x**chi * np.exp(-(x**2) / 2) * g(x), 0, 40, points=[0.01, 0.1, 1, 4], epsabs=1e-13, limit=400
    )
    return value


def test_reference_values():
    for t, signal, noise in ((3.0, 1.0713198, 0.69660046), (10.0, 1.54589302, 0.51152177)):
        state = reference().evaluate(t)
        assert float(state.signal) == pytest.approx(signal, rel=3e-8)
        assert float(state.noise) == pytest.approx(noise, rel=1e-8)


@pytest.mark.slow
def test_velocity_by_quadrature_and_residual():
    solution = reference()
    state = solution.evaluate(2.0)
    signal, noise = float(state.signal), float(state.noise)
    speed = solution.vector_field(jnp.asarray(2.0), state)
    normal = scipy.stats.norm
    counts = mean(solution.task, lambda x: normal.cdf((0.5 - signal * x) / noise))
    assert float(speed.signal) == pytest.approx(
        mean(solution.task, lambda x: x * normal.cdf((0.5 - signal * x) / noise)), rel=1e-10
    )
    drift = -2 * noise * mean(solution.task, lambda x: normal.pdf((0.5 - signal * x) / noise))
    assert float(speed.variance) == pytest.approx(drift + counts, rel=1e-10)
    assert float(tx.residual(solution, jnp.asarray([0.0, 0.1, 1.0, 9.0])).worst) < 1e-8


@pytest.mark.parametrize("exponent", [1.0, -0.5])
@pytest.mark.slow
def test_drift_is_the_gradient_of_the_loss(exponent):
    # At zero temperature, by automatic differentiation of the population loss; and the loss is that of samples.
    task = PerceptronTask(4, exponent, 0.3)
    model = LinearClassifier(jnp.asarray([0.8, 0.3, -0.5, 0.1]))
    gradient = jax.grad(task.loss)(model).weights
    rule = tx.GradientDescent(1e-12, batch_size=1)
    solution = NoisyPerceptron.from_model(model, task, rule, t1=0.1)
    speed = solution.vector_field(jnp.asarray(0.0), solution.reduce(model))
    assert float(speed.signal) == pytest.approx(float(-gradient[0]), rel=1e-12)
    assert float(speed.variance) == pytest.approx(float(-2 * model.weights[1:] @ gradient[1:]), rel=1e-9)
    inputs, labels = task.sample(jax.random.key(0), 40_000)
    margins = labels * (inputs @ model.weights)
    for values, exact in ((jnp.maximum(0.3 - margins, 0), task.loss(model)), (margins < 0, task.error(model))):
        values = values.astype(float)
        error = float(jnp.std(values)) / 200
        assert float(exact) == pytest.approx(float(jnp.mean(values)), abs=4 * error)
        assert error < 0.05 * float(exact)
    if exponent == 1.0:
        noise, signal = float(jnp.linalg.norm(model.weights[1:])), 0.8
        wrong = mean(task, lambda x: scipy.stats.norm.cdf(-signal * x / noise))
        assert float(task.error(model)) == pytest.approx(wrong, rel=1e-10)


def test_sampler():
    task = PerceptronTask(3, 2.0)
    inputs, labels = task.sample(jax.random.key(1), 40_000)
    np.testing.assert_array_equal(labels, jnp.sign(inputs[:, 0]))
    for power in (1, 2, 4):
        # Moments of the chi distribution with χ + 1 = 3 degrees of freedom.
        expected = 2 ** (power / 2) * scipy.special.gamma((3 + power) / 2) / scipy.special.gamma(1.5)
        assert float(jnp.mean(jnp.abs(inputs[:, 0]) ** power)) == pytest.approx(expected, rel=0.03)
    np.testing.assert_allclose(np.cov(inputs[:, 1:].T), np.eye(2), atol=0.03)
    assert abs(float(jnp.mean(labels))) < 0.03
    losses = task.batch_loss(LinearClassifier(jnp.ones(3)), (inputs, labels))
    assert float(losses) == pytest.approx(float(task.loss(LinearClassifier(jnp.ones(3)))), rel=0.03)


@pytest.mark.slow
def test_simulation():
    model, task, rule = noisy_case(60, temperature=0.7)
    solution = NoisyPerceptron.from_model(model, task, rule, t1=2.0)
    ts = jnp.asarray([0.5, 2.0])

    def run(key):
        return tx.train(model, task, rule, ts, observe=solution.reduce, key=key).observed

    found = tx.ensemble(run, jax.random.split(jax.random.key(0), 100))
    limit = jax.vmap(solution.evaluate)(ts)
    for values, expected in ((found.signal, limit.signal), (found.variance, limit.variance)):
        # A mean of 100 runs: its scatter, and a bias of 1/d.
        allowed = 4 * jnp.std(values, axis=0) / 100**0.5 + 1 / 60
        assert jnp.all(jnp.abs(jnp.mean(values, axis=0) - expected) < allowed) and jnp.all(allowed < 0.12)


@pytest.mark.slow
def test_only_the_temperature_counts():
    task = PerceptronTask(30, 1.0)
    model = LinearClassifier(jnp.zeros(30))
    rules = (tx.GradientDescent(0.01, batch_size=1), tx.GradientDescent(0.05, batch_size=5))
    states = [NoisyPerceptron.from_model(model, task, rule, t1=4.0).evaluate(4.0) for rule in rules]
    assert float(states[0].signal) == pytest.approx(float(states[1].signal), rel=1e-12)
    # From nothing at all, every example counts: t E|x1| and t T, with T = 0.3.
    early = NoisyPerceptron.from_model(model, task, rules[0], t1=4.0).evaluate(1e-4)
    assert float(early.signal) == pytest.approx(1e-4 * (np.pi / 2) ** 0.5, rel=1e-5)
    assert float(early.variance) == pytest.approx(1e-4 * 0.3, rel=1e-5)


@pytest.mark.parametrize("exponent", [-0.5, 0.0, 1.0, 3.0])
def test_late_law_without_a_margin(exponent):
    temperature, t = 1.3, 1e4
    late = late_perceptron(PerceptronTask(5, exponent, 0.0), temperature, t)
    gamma = scipy.special.gamma
    noise = temperature / 2 * 2**0.5 * gamma((exponent + 2) / 2) / gamma((exponent + 1) / 2) / (exponent + 1)
    moment = 2 ** (exponent / 2) * gamma((exponent + 3) / 2) / np.pi**0.5
    constant = moment / ((exponent + 2) * 2 ** ((exponent - 1) / 2) * gamma((exponent + 1) / 2))
    assert float(late.noise) == pytest.approx(noise, rel=1e-12)
    power = (3 + exponent) * constant * noise ** (2 + exponent) * t
    assert float(late.signal) == pytest.approx(power ** (1 / (3 + exponent)), rel=1e-12)


def test_flow_ends_in_the_late_law():
    # With a margin as large as the noise. The exponent 1/4 by a fit, the prefactor by its approach.
    solution = NoisyPerceptron.from_model(*noisy_case(20), t1=1e4)
    task = solution.task
    assert tx.scaling(lambda t: solution.evaluate(t).signal, [300.0, 1e3, 3e3, 1e4], correction=-0.5).contains(0.25)

    def gap(t):
        late, state = late_perceptron(task, 1.0, t), solution.evaluate(t)
        return float(jnp.hypot(state.signal / late.signal - 1, state.noise / late.noise - 1))

    gaps = [gap(t) for t in (1e2, 1e3, 1e4)]
    assert gaps[0] > 2.5 * gaps[1] > 6 * gaps[2] and gaps[2] < 3e-3


@pytest.mark.slow
def test_late_law_at_extremes():
    task = PerceptronTask(5, 1.0, 0.5)
    # Noise far below the margin: r² = Tκ/(2(1 + χ)).
    assert float(late_perceptron(task, 1e-6, 1.0).variance) == pytest.approx(1e-6 * 0.5 / 4, rel=1e-5)
    times = late_perceptron(task, 1.0, jnp.asarray([0.0, 1.0, 1e12])).signal
    assert times[0] == 0.0 and jnp.all(jnp.isfinite(times))

    def signal(threshold, temperature):
        return late_perceptron(PerceptronTask(5, 1.0, threshold), temperature, 1e3).signal

    slopes = jax.grad(signal, (0, 1))(0.5, 1.0)
    assert float(slopes[0]) == pytest.approx(float(signal(0.5 + 1e-5, 1.0) - signal(0.5 - 1e-5, 1.0)) / 2e-5, rel=1e-7)
    assert float(slopes[1]) == pytest.approx(float(signal(0.5, 1.0 + 1e-5) - signal(0.5, 1.0 - 1e-5)) / 2e-5, rel=1e-7)


def test_fitting_scales():
    # Doubling the train set at χ = 1: weights by √2, time by 4, critical temperature by 1/√2.
    one, two = fitting_scales(100, 0.5, 1.0), fitting_scales(200, 0.5, 1.0)
    np.testing.assert_allclose(jnp.stack(two) / jnp.stack(one), [2**0.5, 4.0, 0.5**0.5], rtol=1e-12)
    np.testing.assert_allclose(jnp.stack(one), [5.0, 5000.0, 0.1], rtol=1e-12)


@pytest.mark.slow
def test_weights_that_fit_a_train_set():
    # A finite train set at χ = 1, until every margin is reached: weights grow as P^(1/2), times faster than P.
    ts = jnp.logspace(0, 3, 120)

    def fitted(examples):
        def run(key):
            sample, steps = jax.random.split(key)
            task = ClassificationTask(*PerceptronTask(60, 1.0).sample(sample, examples), Hinge(0.1))
            rule = tx.GradientDescent(2 / 60, batch_size=1)

            def observe(model):
                return model.weights[0], jnp.min(task.margins(model))

            run = tx.train(LinearClassifier(jnp.zeros(60)), task, rule, ts, observe=observe, key=steps)
            signals, least = run.observed
            first = jnp.argmax(least >= 0.1)
            return jnp.where(least[first] >= 0.1, jnp.stack([signals[first], run.ts[first]]), jnp.nan)

        return jnp.exp(jnp.mean(jnp.log(tx.ensemble(run, jax.random.split(jax.random.key(0), 16))), axis=0))

    weight, time = jnp.log(fitted(600) / fitted(200)) / jnp.log(3.0)
    assert 0.35 < float(weight) < 0.6 and 1.2 < float(time) < 2.1


@pytest.mark.slow
def test_gradient_with_respect_to_the_temperature():
    model, task, _ = noisy_case(10)

    def noise(rate):
        return NoisyPerceptron.from_model(model, task, tx.GradientDescent(rate, batch_size=1), t1=2.0).evaluate(2.0).noise

    slope = (noise(0.1 + 1e-5) - noise(0.1 - 1e-5)) / 2e-5
    assert float(jax.grad(noise)(0.1)) == pytest.approx(float(slope), rel=1e-6)


@pytest.mark.slow
def test_float32():
    task = PerceptronTask(10, jnp.float32(1.0), jnp.float32(0.5))
    model = LinearClassifier(jnp.zeros(10, jnp.float32).at[1].set(1.0))
    solution = NoisyPerceptron.from_model(model, task, tx.GradientDescent(jnp.float32(0.1), batch_size=1), t1=3.0)
    state = solution.evaluate(3.0)
    assert state.signal.dtype == jnp.float32
    assert float(state.signal) == pytest.approx(1.0713198, rel=1e-5)
    late = late_perceptron(task, 1.0, 1e3)
    assert late.signal.dtype == jnp.float32
    assert float(late.noise) == pytest.approx(float(late_perceptron(PerceptronTask(10, 1.0), 1.0, 1e3).noise), rel=1e-4)


def test_refusals():
    model, task, rule = noisy_case(10)
    with pytest.raises(ValueError, match="`rule` must be tx"):
        NoisyPerceptron.from_model(model, task, tx.GradientFlow(), t1=1.0)
    for other in (tx.GradientDescent(0.1), tx.GradientDescent(0.1, optax.adam, batch_size=1)):
        with pytest.raises(ValueError, match="`rule` must be plain SGD with a batch_size"):
            NoisyPerceptron.from_model(model, task, other, t1=1.0)
    with pytest.raises(ValueError, match="`rule` must have the learning rate as its time_per_step"):
        NoisyPerceptron.from_model(model, task, tx.GradientDescent(0.1, batch_size=1, time_per_step=1.0), t1=1.0)
    with pytest.raises(ValueError, match="`model` must have 10 inputs"):
        NoisyPerceptron.from_model(LinearClassifier(jnp.ones(9)), task, rule, t1=1.0)
    with pytest.raises(ValueError, match="`model` must be a LinearClassifier"):
        task.loss(DeepLinear((jnp.ones((1, 10)),)))
    with pytest.raises(ValueError, match="`task` must be a PerceptronTask"):
        NoisyPerceptron.from_model(model, None, rule, t1=1.0)
    with pytest.raises(ValueError, match="`task` must be a PerceptronTask"):
        late_perceptron(None, 1.0, 1.0)
    for size in (1, 2.0, True):
        with pytest.raises(ValueError, match="`size` must be a whole number of at least 2"):
            PerceptronTask.__init__.__wrapped__(object.__new__(PerceptronTask), size)
    with pytest.raises(ValueError, match="`exponent` must be greater than -1; got -1"):
        PerceptronTask(10, -1.0)
    with pytest.raises(ValueError, match="`threshold` must be non-negative"):
        PerceptronTask(10, 1.0, -0.5)
    with pytest.raises(ValueError, match="`temperature` must be positive"):
        late_perceptron(task, 0.0, 1.0)
    with pytest.raises(ValueError, match="`t` must be non-negative"):
        late_perceptron(task, 1.0, -1.0)
    with pytest.raises(ValueError, match="`examples` must be positive"):
        fitting_scales(0, 1.0, 1.0)
    with pytest.raises(ValueError, match="`exponent` must be greater than -1"):
        fitting_scales(10, 1.0, -2.0)


@pytest.mark.slow
def test_catalogue_entry():
    assert tx.verify("noisy_perceptron").passed
