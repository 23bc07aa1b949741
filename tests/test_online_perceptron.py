"""The linear perceptron: reference values, other theories that contain it, steps, thresholds, ends, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tractax as tx
from tractax.analysis import Erf, Linear
from tractax.systems.teacher_student._online_perceptron import means_by_quadrature, perceptron_case
from tractax.teacher_student import (
    CommitteeTask,
    GaussianRegression,
    LinearModel,
    OnePassRecursion,
    OnlinePerceptron,
    OnlinePerceptronLimit,
    OnlineSGD,
    SoftCommittee,
    SoftCommitteeFlow,
)

BOTH = pytest.mark.parametrize("theory", [OnlinePerceptron, OnlinePerceptronLimit])


def unit(weights):
    return SoftCommittee(jnp.asarray([weights]), activation=Linear())


def small(theory, eta, noise=0.2, batch_size=1, weights=(0.3, -0.4, 1.2)):
    """Three inputs."""
    task = CommitteeTask(unit([1.0, 0.5, -0.8]), noise)
    return theory.from_model(unit(list(weights)), task, OnlineSGD(eta, 3, batch_size=batch_size))


@pytest.mark.parametrize(
    ("theory", "errors"),
    [
        (OnlinePerceptron, (0.29407522497058, 0.02288621924224)),
        (OnlinePerceptronLimit, (0.28693748795967, 0.0206205292079)),
    ],
)
def test_reference(theory, errors):
    solution = theory.from_model(*perceptron_case(10, 0.5))
    for t, error in zip((1.0, 5.0), errors, strict=True):
        assert float(solution.evaluate(t).error) == pytest.approx(error, rel=1e-12)
    assert float(solution.evaluate(0.0).cross) == pytest.approx(0.1, rel=1e-12)


@pytest.mark.slow
def test_mean_over_examples_by_quadrature():
    model, task, rule = perceptron_case(2, 1.3)
    solution = OnlinePerceptron.from_model(model, task, rule)
    for steps, mean in enumerate(means_by_quadrature(solution, model, steps=2), 1):
        for found, expected in zip(*map(jax.tree.leaves, (solution.evaluate(steps / 2), mean)), strict=True):
            assert float(found) == pytest.approx(float(expected), rel=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_case_of_one_pass_least_squares(batch_size):
    # White inputs, weights divided by the root of N.
    solution = small(OnlinePerceptron, 0.7, batch_size=batch_size)
    task = GaussianRegression(solution.task.teacher.weights[0] / 3**0.5, noise_scale=0.2)
    model = LinearModel(jnp.asarray([0.3, -0.4, 1.2]) / 3**0.5)
    rule = tx.GradientDescent(0.7 / 3, time_per_step=1 / 3, batch_size=batch_size)
    wider = OnePassRecursion.from_model(model, task, rule)
    for t in (0.0, 1 / 3, 5.0, 1e5):
        assert float(solution.evaluate(t).error) == pytest.approx(float(wider.evaluate(t).risk) - 0.02, rel=1e-10)
    assert float(solution.stability_threshold()) == pytest.approx(3 * float(wider.stability_threshold()), rel=1e-12)


@pytest.mark.slow
def test_a_case_of_soft_committees():
    model, task, _ = perceptron_case(10, 0.5)
    rule = OnlineSGD(0.8, 10, batch_size=2)
    solution = OnlinePerceptronLimit.from_model(model, task, rule)
    flow = SoftCommitteeFlow.from_model(model, task, rule, t1=4.0)
    for t in (1.0, 4.0):
        state = solution.evaluate(t)
        assert float(state.cross) == pytest.approx(float(flow.evaluate(t).cross[0, 0]), rel=1e-9)
        assert float(state.error) == pytest.approx(float(flow.generalisation_error(t)), rel=1e-9)


@pytest.mark.parametrize("eta", [0.7, 2.0, 3.0, 4.0, 7.0])
def test_steps_one_by_one(eta):
    # From η = N on steps overshoot, from η = 2N on the overlap diverges.
    solution = small(OnlinePerceptron, eta)
    state = solution.initial
    for k in range(1, 8):
        state = solution.step(state)
        found = solution.evaluate((k + 0.3) / 3)
        assert float(found.cross) == pytest.approx(float(state.cross), rel=1e-12)
        assert float(found.error) == pytest.approx(float(state.error), rel=1e-12)


@pytest.mark.parametrize(
    ("theory", "batch_size", "threshold"), [(OnlinePerceptron, 1, 1.2), (OnlinePerceptronLimit, 3, 6.0)]
)
def test_threshold(theory, batch_size, threshold):
    at = small(theory, threshold, batch_size=batch_size)
    assert float(at.stability_threshold()) == pytest.approx(threshold, rel=1e-15)
    below, above = (small(theory, x * threshold, batch_size=batch_size) for x in (0.99, 1.01))
    assert float(below.evaluate(1e5).error) == pytest.approx(float(below.limit().error), rel=1e-10)
    assert np.isinf(float(above.limit().error)) and np.isinf(float(above.evaluate(1e7).error))
    errors = [float(at.evaluate(t).error) for t in (1e3, 2e3, 3e3)]
    assert errors[2] - errors[1] == pytest.approx(errors[1] - errors[0], rel=1e-6) and errors[0] > 10


def test_residual():
    assert float(tx.residual(small(OnlinePerceptronLimit, 0.5), [0.0, 0.3, 4.0, 50.0]).worst) < 1e-14


@BOTH
def test_ends(theory):
    solution = small(theory, 0.5)
    assert float(solution.limit().cross) == pytest.approx(float(jnp.mean(jnp.asarray([1.0, 0.5, -0.8]) ** 2)))
    for t in (1e3, 1e12, jnp.inf):
        for x, y in zip(*map(jax.tree.leaves, (solution.evaluate(t), solution.limit())), strict=True):
            assert float(x) == pytest.approx(float(y), rel=1e-12)
    taught = small(theory, 5.0, noise=0.0, weights=(1.0, 0.5, -0.8))
    assert float(taught.evaluate(1e9).error) == float(taught.limit().error) == 0.0
    if theory is OnlinePerceptronLimit:
        assert float(solution.limit().error) == pytest.approx(0.5 * 0.04 / (2 * 1.5), rel=1e-12)
        # A flow never steps too far, however large the learning rate that a batch allows.
        fast = small(theory, 3.0, batch_size=4)
        assert float(fast.limit().cross) == pytest.approx(float(fast.evaluate(1e3).cross), rel=1e-12)


@pytest.mark.slow
def test_error_of_the_limit_falls_as_one_over_n():
    def error(size):
        case = perceptron_case(int(size), 0.5)
        exact, limit = OnlinePerceptron.from_model(*case), OnlinePerceptronLimit.from_model(*case)
        return abs(float(exact.evaluate(1.0).error - limit.evaluate(1.0).error))

    assert tx.scaling(error, [20, 40, 80, 160], correction=-1.0).contains(-1.0)


@BOTH
def test_jit_vmap_gradients_and_float32(theory):
    def error(eta, t):
        return small(theory, eta).evaluate(t).error

    both = jax.jit(jax.vmap(jax.value_and_grad(error), in_axes=(0, None)))
    values, slopes = both(jnp.asarray([0.5, 0.5 - 1e-5, 0.5 + 1e-5]), 2.0)
    assert float(values[0]) == pytest.approx(float(error(0.5, 2.0)), rel=1e-13)
    assert float(slopes[0]) == pytest.approx(float(values[2] - values[1]) / 2e-5, rel=1e-6)
    double = small(theory, 0.5)
    single = jax.tree.map(lambda x: x.astype(jnp.float32), double)
    state = single.evaluate(jnp.float32(2.0))
    assert state.error.dtype == state.cross.dtype == jnp.float32
    assert float(state.error) == pytest.approx(float(double.evaluate(2.0).error), rel=1e-5)


def test_refusals():
    model, task, rule = perceptron_case(4, 0.5)
    two = SoftCommittee(jnp.ones((2, 4)), activation=Linear())
    with pytest.raises(ValueError, match="a step takes the time 1/N: FAILS"):
        OnlinePerceptronLimit.from_model(model, task, OnlineSGD(0.5, 5))
    assert [bool(a.holds) for a in OnlinePerceptronLimit.assumptions(model, task, rule)] == [True]
    assert OnlinePerceptron.assumptions(model, task, rule) == ()
    for theory in (OnlinePerceptron, OnlinePerceptronLimit):
        with pytest.raises(ValueError, match="`rule` must be OnlineSGD"):
            theory.from_model(model, task, tx.GradientDescent(0.1, batch_size=1))
        with pytest.raises(ValueError, match="`rule` must leave the readout"):
            theory.from_model(model, task, OnlineSGD(0.5, 4, readout_rate=0.1))
        with pytest.raises(ValueError, match="`model` must be one unit"):
            theory.from_model(two, task, rule)
        with pytest.raises(ValueError, match=r"`task\.teacher` must be one unit"):
            theory.from_model(model, CommitteeTask(two), rule)
        with pytest.raises(ValueError, match=r"`task\.teacher` must be one unit"):
            theory.from_model(model, CommitteeTask(SoftCommittee(jnp.ones((1, 4)), activation=Erf())), rule)
        with pytest.raises(ValueError, match="`model` must have a readout of one"):
            theory.from_model(SoftCommittee(jnp.ones((1, 4)), 2 * jnp.ones(1), Linear()), task, rule)
        with pytest.raises(ValueError, match="`model` must be a SoftCommittee"):
            theory.from_model(LinearModel(jnp.ones(4)), task, rule)
        with pytest.raises(ValueError, match="`task` must be a CommitteeTask"):
            theory.from_model(model, GaussianRegression(jnp.ones(4)), rule)
