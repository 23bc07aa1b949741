"""Consensus-based optimisation: reference values, quadrature, implicit Euler, variance of particles, refusals."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import tractax as tx
from tractax.deep_linear import RegressionTask, gaussian
from tractax.rules import ConsensusFlow, ConsensusHopping
from tractax.teacher_student import (
    ConsensusDescent,
    LinearClassifier,
    Point,
    PotentialTask,
    QuadraticTask,
    consensus_point,
    consensus_rate,
    laplace_minimum,
)

HESSIAN, MINIMUM = jnp.asarray([[2.0, 0.5], [0.5, 1.0]]), jnp.asarray([1.0, -1.0])
TASK = QuadraticTask(HESSIAN, MINIMUM)
START = Point(jnp.asarray([0.3, 0.4]))
STEPS = {"solver": diffrax.Euler(), "dt0": 0.02, "stepsize_controller": diffrax.ConstantStepSize()}


def by_quadrature(mean, covariance, alpha, nodes=60):
    """The consensus point and the logarithm, by Gauss-Hermite nodes and the task's own loss."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    grid = np.stack(np.meshgrid(points, points, indexing="ij"), axis=-1).reshape(-1, 2)
    x = jnp.asarray(np.asarray(mean) + grid @ np.linalg.cholesky(np.asarray(covariance)).T)
    losses = jax.vmap(TASK.loss)(jax.vmap(Point)(x))
    weight = np.outer(weights, weights).ravel() / (2 * np.pi) * np.exp(-alpha * np.asarray(losses))
    return weight @ np.asarray(x) / weight.sum(), -np.log(weight.sum()) / alpha


def test_reference_value():
    expected = [0.6657303370787, -0.2724719101124]
    np.testing.assert_allclose(consensus_point(TASK, START.position, jnp.eye(2), 1.2), expected, rtol=1e-12)
    solution = ConsensusDescent.from_model(START, TASK, ConsensusHopping(0.5, 4.8, 10))
    np.testing.assert_allclose(solution.evaluate(1.2).position, expected, rtol=1e-12)


def test_gaussian_clouds_against_quadrature():
    mean, covariance = jnp.asarray([0.2, 0.5]), jnp.asarray([[0.5, 0.2], [0.2, 0.3]])
    for alpha in (0.1, 1.5):
        point, value = by_quadrature(mean, covariance, alpha)
        np.testing.assert_allclose(consensus_point(TASK, mean, covariance, alpha), point, rtol=1e-12)
        assert float(laplace_minimum(TASK, mean, covariance, alpha)) == pytest.approx(value, rel=1e-12)


def test_limits_of_temperature_and_cloud():
    mean, covariance = jnp.asarray([0.2, 0.5]), jnp.asarray([[0.5, 0.2], [0.2, 0.3]])
    np.testing.assert_allclose(consensus_point(TASK, mean, covariance, 0.0), mean, rtol=1e-15)
    mean_loss = TASK.loss(Point(mean)) + jnp.trace(HESSIAN @ covariance) / 2
    assert float(laplace_minimum(TASK, mean, covariance, 0.0)) == pytest.approx(float(mean_loss), rel=1e-14)
    assert float(laplace_minimum(TASK, mean, covariance, 1e-9)) == pytest.approx(float(mean_loss), rel=1e-7)
    np.testing.assert_allclose(consensus_point(TASK, mean, covariance, 1e12), MINIMUM, rtol=1e-10)
    # Laplace's principle: ln α/α, from above.
    values = [float(laplace_minimum(TASK, mean, covariance, alpha)) for alpha in (1.0, 10.0, 1e3, 1e6)]
    assert values == sorted(values, reverse=True)
    offset = mean - MINIMUM
    leading = 2 * np.log(1e6) + np.linalg.slogdet(covariance @ HESSIAN)[1] + offset @ jnp.linalg.solve(covariance, offset)
    assert values[-1] == pytest.approx(float(leading) / 2e6, rel=1e-5)
    # A cloud on a line: the minimum on the line.
    line = jnp.asarray([[1.0, 1.0], [1.0, 1.0]])
    best = scipy.optimize.minimize_scalar(lambda s: float(TASK.loss(Point(mean + s))))
    np.testing.assert_allclose(consensus_point(TASK, mean, line, 1e10), mean + best.x, atol=1e-7)
    assert float(laplace_minimum(TASK, mean, line, 1e10)) == pytest.approx(best.fun, rel=1e-7)
    flat = QuadraticTask(jnp.zeros((2, 2)))
    assert float(laplace_minimum(flat, mean, covariance, 2.0)) == 0.0
    np.testing.assert_allclose(consensus_point(flat, mean, covariance, 2.0), mean, rtol=1e-15)


@pytest.mark.slow
def test_path_is_implicit_euler_and_its_own_flow():
    rule = ConsensusHopping(0.5, 8.0, 10)
    tau = float(rule.time_per_step)
    solution = ConsensusDescent.from_model(START, TASK, rule)
    x = np.asarray(START.position)
    for k in range(1, 5):
        # x' = x - τ ∇L(x'), as the solver of equations sees it.
        x = scipy.optimize.fsolve(lambda y, x=x: y - x + tau * np.asarray(HESSIAN) @ (y - np.asarray(MINIMUM)), x)
        np.testing.assert_allclose(solution.evaluate(k * tau).position, x, rtol=1e-10)
    assert float(tx.residual(solution, jnp.asarray([0.0, 0.3, 7.0])).worst) < 1e-14
    np.testing.assert_allclose(solution.limit().position, MINIMUM, rtol=1e-15)
    np.testing.assert_allclose(solution.evaluate(1e12).position, MINIMUM, rtol=1e-15)
    # Short steps: gradient flow, with an error of first order in τ.
    flow = tx.train(START, TASK, tx.GradientFlow(), [1.0], observe=lambda model: model.position).observed[0]

    def error(tau):
        path = ConsensusDescent.from_model(START, TASK, ConsensusHopping(tau**0.5, 1.0, 1))
        return float(jnp.linalg.norm(path.evaluate(1.0).position - flow))

    assert tx.scaling(error, [0.04, 0.02, 0.01, 0.005], correction=1.0).contains(1.0)


def test_flat_directions_and_float32():
    # A flat direction that no axis shows: its curvature is rounding, and stays put for ever all the same.
    across = jnp.asarray([0.3, -0.7, 0.55])
    flat = QuadraticTask(jnp.eye(3) - jnp.outer(across, across) / jnp.sum(across**2))
    end = ConsensusDescent.from_model(Point(jnp.ones(3)), flat, ConsensusHopping(1.0, 1.0, 1)).limit().position
    np.testing.assert_allclose(end, across * (jnp.sum(across) / jnp.sum(across**2)), atol=1e-12)
    valley = QuadraticTask(jnp.asarray([[1.0, 1.0], [1.0, 1.0]], jnp.float32))
    model = Point(jnp.asarray([3.0, 1.0], jnp.float32))
    limit = ConsensusDescent.from_model(model, valley, ConsensusHopping(1.0, 1.0, 1)).limit().position
    assert limit.dtype == jnp.float32
    np.testing.assert_allclose(limit, [1.0, -1.0], atol=1e-6)


@pytest.mark.slow
def test_hopping_fluctuates_around_the_path():
    def distance(samples):
        rule = ConsensusHopping(1.0, 1.2, int(samples))
        solution = ConsensusDescent.from_model(START, TASK, rule)
        last = 2 * rule.time_per_step

        def run(key):
            return tx.train(START, TASK, rule, last[None], observe=solution.reduce, key=key).observed.position[0]

        return jnp.linalg.norm(tx.ensemble(run, keys) - solution.evaluate(last).position[None, :], axis=1)

    keys = jax.random.split(jax.random.key(0), 200)
    assert tx.scaling(distance, [300, 900, 2700]).contains(-0.5)


def test_noise_is_the_distance_from_the_consensus(getkey):
    population = Point(jax.random.normal(getkey(), (4, 2)))
    objective = tx.Objective(PotentialTask(lambda x: jnp.sum(x**2)), eqx.filter(population, eqx.is_array, inverse=True))
    rule = ConsensusFlow(1.0, 0.7, 0.3)
    noise = rule.terms(population, 0.0, 1.0, key=getkey()).terms[1].vf(0.0, population, objective)
    x = np.asarray(population.position)
    weights = np.exp(-0.7 * np.sum(x**2, axis=1))
    distances = 0.3 * np.linalg.norm(x - weights @ x / weights.sum(), axis=1)
    found = noise.mv(jax.tree.map(jnp.ones_like, population)).position
    np.testing.assert_allclose(found, np.stack([distances, distances], axis=1), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.5, 1.1])
def test_variance_of_particles(noise):
    # Any loss: at α = 0 it does not count.
    particles, dimension, members = 10, 2, 300
    start = Point(jax.random.normal(jax.random.key(0), (particles, dimension)))
    rule, task = ConsensusFlow(1.0, 0.0, noise), PotentialTask(lambda x: jnp.sum(jnp.cos(x)))

    def variance(model):
        return jnp.mean(jnp.sum((model.position - jnp.mean(model.position, axis=0)[None, :]) ** 2, axis=1))

    def run(key):
        return tx.train(start, task, rule, jnp.asarray([0.6]), observe=variance, key=key, **STEPS).observed[0]

    found = tx.ensemble(run, jax.random.split(jax.random.key(1), members))
    rate = consensus_rate(rule, particles=particles, dimension=dimension)
    # Thirty Euler steps of length h: each leaves 1 - h rate + h² of the mean.
    expected = variance(start) * (1 - 0.02 * rate + 0.02**2) ** 30
    scatter = float(jnp.std(found)) / members**0.5
    assert float(jnp.mean(found)) == pytest.approx(float(expected), abs=4 * scatter)
    assert scatter < 0.08 * float(expected)
    assert float(rate) == pytest.approx(2 - 2 * noise**2 * 0.9, rel=1e-12)


def test_consensus_without_noise(getkey):
    # α = 0: every particle relaxes to the mean, which stays.
    start = Point(jax.random.normal(getkey(), (4, 2)))
    run = tx.train(start, TASK, ConsensusFlow(2.0, 0.0), [0.7], observe=lambda model: model.position)
    mean = jnp.mean(start.position, axis=0)[None, :]
    np.testing.assert_allclose(run.observed[0], mean + np.exp(-1.4) * (start.position - mean), atol=1e-8)


@pytest.mark.slow
def test_consensus_of_any_network(getkey):
    networks = jax.vmap(lambda key: gaussian((3, 2, 1), scale=0.7, key=key))(jax.random.split(getkey(), 50))
    inputs = jax.random.normal(getkey(), (8, 3))
    task = RegressionTask(inputs, inputs[:, 0])
    rule = ConsensusFlow(1.0, 50.0, 0.3)
    losses = tx.train(networks, task, rule, [0.02, 3.0], observe=jax.vmap(task.loss), key=getkey(), **STEPS).observed
    assert float(jnp.mean(losses[1])) < 1.1 * float(jnp.min(losses[0])) < 0.5 * float(jnp.mean(losses[0]))


@pytest.mark.slow
def test_global_minimum_of_a_rugged_loss():
    # Gradient flow ends in the valley next to the start; particles agree on the deepest one.
    task = PotentialTask(lambda x: jnp.sum(x**2 / 20 + 1 - jnp.cos(3 * x)))
    stuck = tx.train(Point(jnp.asarray([4.2, -4.2])), task, tx.GradientFlow(), [50.0]).model.position
    assert jnp.all(jnp.abs(stuck) > 3)
    start = Point(jnp.asarray([4.2, -4.2])[None, :] + 2 * jax.random.normal(jax.random.key(0), (200, 2)))

    def found(inverse_temperature, key):
        rule = ConsensusFlow(1.0, inverse_temperature, 0.7)
        last = tx.train(start, task, rule, [8.0], observe=jax.vmap(task.loss), key=key, **STEPS).model.position
        return jnp.linalg.norm(jnp.mean(last, axis=0)) < 0.3

    keys = jax.random.split(jax.random.key(1), 20)
    cold, hot = (tx.ensemble(lambda key, a=a: found(a, key), keys) for a in (100.0, 0.1))
    assert float(jnp.mean(cold)) > 0.9 and float(jnp.mean(hot)) < 0.3


def test_refusals():
    hopping = ConsensusHopping(1.0, 1.0, 4)
    with pytest.raises(ValueError, match="`drift` must be positive"):
        ConsensusFlow(0.0)
    with pytest.raises(ValueError, match="`inverse_temperature` must be non-negative"):
        ConsensusFlow(1.0, -1.0)
    with pytest.raises(ValueError, match="`noise_scale` must be non-negative"):
        ConsensusFlow(1.0, 1.0, -1.0)
    with pytest.raises(ValueError, match="`width` must be positive"):
        ConsensusHopping(0.0, 1.0, 4)
    with pytest.raises(ValueError, match="`inverse_temperature` must be positive"):
        ConsensusHopping(1.0, 0.0, 4)
    with pytest.raises(ValueError, match="`samples` must be a whole number of at least 1; got 0"):
        ConsensusHopping(1.0, 1.0, 0)
    with pytest.raises(ValueError, match="`rule` must be ConsensusHopping"):
        ConsensusDescent.from_model(START, TASK, tx.GradientDescent(0.1))
    with pytest.raises(ValueError, match="`model` must be a Point"):
        ConsensusDescent.from_model(LinearClassifier(jnp.ones(2)), TASK, hopping)
    with pytest.raises(ValueError, match=r"`model` must have a position of shape \(2,\); got \(3,\)"):
        ConsensusDescent.from_model(Point(jnp.ones(3)), TASK, hopping)
    with pytest.raises(ValueError, match=r"`model` must have a position of shape \(2,\); got \(3,\)"):
        ConsensusDescent.from_model(START, TASK, hopping).reduce(Point(jnp.ones(3)))
    with pytest.raises(ValueError, match="`task` must be a QuadraticTask"):
        consensus_point(PotentialTask(jnp.sum), jnp.ones(2), jnp.eye(2), 1.0)
    with pytest.raises(ValueError, match=r"`inverse_temperature` must have shape \(\)"):
        consensus_point(TASK, jnp.ones(2), jnp.eye(2), jnp.ones(2))
    with pytest.raises(ValueError, match=r"`mean` must have shape \(2,\)"):
        consensus_point(TASK, jnp.ones(3), jnp.eye(2), 1.0)
    with pytest.raises(ValueError, match="`covariance` must be positive semi-definite"):
        laplace_minimum(TASK, jnp.ones(2), -jnp.eye(2), 1.0)
    with pytest.raises(ValueError, match="`rule` must have an inverse temperature of 0"):
        consensus_rate(ConsensusFlow(1.0, 1.0), particles=2, dimension=1)
    with pytest.raises(ValueError, match="`rule` must be a ConsensusFlow"):
        consensus_rate(hopping, particles=2, dimension=1)
    with pytest.raises(ValueError, match="`particles` must be a whole number of at least 1"):
        consensus_rate(ConsensusFlow(1.0, 0.0), particles=0, dimension=1)
    with pytest.raises(ValueError, match="`model` must have one leading axis of particles"):
        ConsensusFlow().init({"a": jnp.ones(2), "b": jnp.ones((3, 2))})
    with pytest.raises(ValueError, match="`key` must be a JAX PRNG key"):
        tx.train(START, TASK, hopping, [1.0])


@pytest.mark.slow
def test_catalogue_entry():
    assert tx.verify("consensus").passed
