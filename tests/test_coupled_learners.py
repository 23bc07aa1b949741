"""Coupled noisy learners: reference values, moments by simulation, the bound, rates of zero, refusals."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

import tractax as tx
from tractax.deep_linear import RegressionTask, gaussian
from tractax.rules import CoupledFlow
from tractax.teacher_student import (
    CoupledLearners,
    LinearClassifier,
    Point,
    PotentialTask,
    QuadraticTask,
    graph_laplacian,
    spread_bound,
)

COMPLETE = graph_laplacian(jnp.ones((3, 3)))
TASK = QuadraticTask(jnp.asarray([[1.0, 0.0], [0.0, 0.25]]), jnp.asarray([1.0, -2.0]))
STEPS = {"solver": diffrax.Heun(), "dt0": 0.04, "stepsize_controller": diffrax.ConstantStepSize()}


def population(learners=3, dimension=2):
    return Point(jax.random.normal(jax.random.key(5), (learners, dimension)))


def test_reference_values():
    limit = CoupledLearners.from_model(population(), TASK, CoupledFlow(COMPLETE, 1.0, 0.5)).limit()
    assert float(limit.spread) == pytest.approx(0.1394230769231, rel=1e-12)
    assert float(limit.error) == pytest.approx(0.2083333333333, rel=1e-12)


def test_moments_against_lyapunov_equation():
    # All coordinates at once, by matrix exponentials.
    model, noise, kappa, t = population(4), 0.6, 0.7, 0.8
    adjacency = jnp.asarray([[0, 1, 0, 2], [1, 0, 3, 0], [0, 3, 0, 0], [2, 0, 0, 0]])
    task = QuadraticTask(jnp.asarray([[0.9, 0.4], [0.4, 0.3]]), jnp.asarray([0.5, -1.0]))
    rule = CoupledFlow(graph_laplacian(adjacency), kappa, noise)
    solution = CoupledLearners.from_model(model, task, rule)
    matrix = -np.kron(np.eye(4), task.hessian) - kappa * np.kron(np.asarray(rule.laplacian), np.eye(2))
    target = np.tile(task.minimum, 4)
    mean = target + scipy.linalg.expm(matrix * t) @ (np.asarray(model.position).ravel() - target)
    # C(t) = X - exp(At) X exp(Aᵀt), A X + X Aᵀ + σ² = 0.
    stationary = scipy.linalg.solve_continuous_lyapunov(matrix, -(noise**2) * np.eye(8))
    decay = scipy.linalg.expm(matrix * t)
    covariance = stationary - decay @ stationary @ decay.T
    state = solution.evaluate(t)
    np.testing.assert_allclose(solution.mean_positions(state), mean.reshape(4, 2), rtol=1e-12)
    average, rest = np.kron(np.ones((1, 4)) / 4, np.eye(2)), np.kron(np.eye(4) - 1 / 4, np.eye(2))
    error = np.sum((average @ (mean - target)) ** 2) + np.trace(average @ covariance @ average.T)
    assert float(state.error) == pytest.approx(error, rel=1e-12)
    spread = np.sum((rest @ mean) ** 2) + np.trace(rest @ covariance @ rest.T)
    assert float(state.spread) == pytest.approx(spread, rel=1e-12)


@pytest.mark.slow
def test_moments_of_simulations():
    model, rule, ts = population(), CoupledFlow(COMPLETE, 1.0, 0.5), jnp.asarray([0.5, 2.0])
    solution = CoupledLearners.from_model(model, TASK, rule)

    def run(key):
        state = tx.train(model, TASK, rule, ts, observe=solution.reduce, key=key, **STEPS).observed
        return jnp.stack([state.spread, state.error])

    members = 300
    found = tx.ensemble(run, jax.random.split(jax.random.key(0), members))
    expected = jax.vmap(solution.evaluate)(ts)
    scatter = jnp.std(found, axis=0) / members**0.5
    assert jnp.all(jnp.abs(jnp.mean(found, axis=0) - jnp.stack([expected.spread, expected.error])) < 4 * scatter)
    assert jnp.all(scatter < 0.1 * jnp.mean(found, axis=0))


def test_bound_is_reached_by_the_complete_graph():
    task = QuadraticTask(0.4 * jnp.eye(3))
    model, rule = population(3, 3), CoupledFlow(COMPLETE, 0.7, 0.3)
    solution = CoupledLearners.from_model(model, task, rule)
    start = solution.evaluate(0.0).spread
    for t in (0.0, 0.5, jnp.inf):
        bound = spread_bound(rule, dimension=3, curvature=0.4, t=t, initial_spread=start)
        assert float(bound) == pytest.approx(float(solution.evaluate(t).spread), rel=1e-12)
    # Any other graph or curvature stays below.
    chain = CoupledFlow(graph_laplacian(jnp.asarray([[0, 1, 0], [1, 0, 1], [0, 1, 0]])), 0.7, 0.3)
    slack = (
        spread_bound(chain, dimension=2, curvature=0.25)
        - CoupledLearners.from_model(population(), TASK, chain).limit().spread
    )
    assert 0 < float(slack) < 1


@pytest.mark.slow
def test_bound_in_a_double_well():
    # Curvature -1 in between: coupling must win against it.
    task = PotentialTask(lambda x: jnp.sum(x**4 / 4 - x**2 / 2))
    model, rule = population(3, 1), CoupledFlow(COMPLETE, 0.6, 0.7)
    ts = jnp.linspace(0.25, 4.0, 4)

    def spread(model):
        return jnp.sum((model.position - jnp.mean(model.position, axis=0)[None, :]) ** 2)

    def run(key):
        return tx.train(model, task, rule, ts, observe=spread, key=key, **STEPS).observed

    found = tx.ensemble(run, jax.random.split(jax.random.key(0), 1000))
    bounds = jax.vmap(lambda t: spread_bound(rule, dimension=1, curvature=-1.0, t=t, initial_spread=spread(model)))(ts)
    mean, scatter = jnp.mean(found, axis=0), jnp.std(found, axis=0) / 1000**0.5
    assert jnp.all(mean + 4 * scatter < bounds) and jnp.all(mean > 0.2 * bounds)


@pytest.mark.slow
def test_rates_of_zero_and_below():
    # Two uncoupled graphs on a flat loss: some modes diffuse for ever, others do not.
    adjacency = jnp.asarray([[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    task, model = QuadraticTask(jnp.zeros((1, 1))), population(3, 1)
    noisy = CoupledLearners.from_model(model, task, CoupledFlow(graph_laplacian(adjacency), 1.0, 0.5))
    assert float(noisy.evaluate(7.0).error) == pytest.approx(float(noisy.evaluate(0.0).error) + 7 * 0.25 / 3, rel=1e-12)
    assert float(noisy.limit().error) == jnp.inf
    quiet = CoupledLearners.from_model(model, task, CoupledFlow(graph_laplacian(adjacency), 1.0))
    limit = quiet.limit()
    np.testing.assert_allclose(limit.first, quiet.evaluate(200.0).first, atol=1e-12)
    assert jnp.all(jnp.isfinite(limit.second))
    # Repulsion: a mode that is not there stays away, however long.
    apart = CoupledFlow(-COMPLETE, 1.0)
    together = Point(jnp.ones((3, 2)))
    assert float(CoupledLearners.from_model(together, TASK, apart).evaluate(1.0).spread) < 1e-25
    assert float(spread_bound(apart, dimension=2, curvature=1.0)) == 0.0
    shaken = CoupledFlow(-COMPLETE, 1.0, 0.1)
    assert float(spread_bound(shaken, dimension=2, curvature=1.0)) == jnp.inf
    assert float(spread_bound(CoupledFlow(jnp.zeros((1, 1)), 1.0, 0.1), dimension=2, curvature=1.0)) == 0.0


def test_residual_with_noise_and_gradient():
    model = population()

    def spread(kappa):
        return CoupledLearners.from_model(model, TASK, CoupledFlow(COMPLETE, kappa, 0.5)).evaluate(1.0).spread

    solution = CoupledLearners.from_model(model, TASK, CoupledFlow(COMPLETE, 1.0, 0.5))
    assert float(tx.residual(solution, jnp.asarray([0.0, 1e-9, 0.5, 20.0])).worst) < 1e-12
    slope = (spread(1.0 + 1e-5) - spread(1.0 - 1e-5)) / 2e-5
    start = jax.grad(lambda x: CoupledLearners.from_model(Point(x), TASK, CoupledFlow(COMPLETE)).evaluate(1.0).error)
    assert jnp.all(jnp.isfinite(start(jnp.zeros((3, 2)))))
    bound = jax.grad(lambda kappa: spread_bound(CoupledFlow(COMPLETE, kappa, 0.5), dimension=2, curvature=0.25))
    assert float(bound(1.0)) == pytest.approx(-2 * 2 * 0.25 * 3 / (2 * 3.25**2), rel=1e-10)
    assert float(slope) < 0


@pytest.mark.slow
def test_any_network_can_be_coupled(getkey):
    # Four deep linear networks on data: coupled strongly, they end as one.
    keys = jax.random.split(getkey(), 4)
    networks = jax.vmap(lambda key: gaussian((3, 2, 1), scale=0.5, key=key))(keys)
    inputs = jax.random.normal(getkey(), (6, 3))
    task = RegressionTask(inputs, inputs[:, 0])
    rule = CoupledFlow(graph_laplacian(jnp.ones((4, 4))), 5.0)
    run = tx.train(networks, task, rule, jnp.asarray([3.0]), observe=jax.vmap(task.loss))
    assert run.observed.shape == (1, 4)
    spread = jax.tree.map(lambda w: jnp.max(jnp.std(w, axis=0)), run.model)
    assert max(float(x) for x in jax.tree.leaves(spread)) < 1e-4


def test_refusals():
    model, rule = population(), CoupledFlow(COMPLETE, 1.0, 0.5)
    for laplacian, message in (
        (jnp.ones((2, 3)), "`laplacian` must be square"),
        (jnp.asarray([[1.0, -1.0], [0.0, 0.0]]), "`laplacian` must be symmetric"),
        (jnp.eye(2), "`laplacian` must have rows that sum to zero"),
        (jnp.full((2, 2), jnp.nan), "`laplacian` must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            CoupledFlow(laplacian)
    with pytest.raises(ValueError, match="`coupling` must be non-negative"):
        CoupledFlow(COMPLETE, -1.0)
    with pytest.raises(ValueError, match="`noise_scale` must be non-negative"):
        CoupledFlow(COMPLETE, 1.0, -1.0)
    with pytest.raises(ValueError, match="`adjacency` must be symmetric"):
        graph_laplacian(jnp.asarray([[0.0, 1.0], [0.0, 0.0]]))
    with pytest.raises(ValueError, match="`adjacency` must be square"):
        graph_laplacian(jnp.ones((1, 2)))
    with pytest.raises(ValueError, match="`adjacency` must be non-negative"):
        graph_laplacian(-jnp.ones((2, 2)))
    with pytest.raises(ValueError, match="`rule` must be a CoupledFlow"):
        CoupledLearners.from_model(model, TASK, tx.GradientFlow())
    with pytest.raises(ValueError, match="`task` must be a QuadraticTask"):
        CoupledLearners.from_model(model, PotentialTask(jnp.sum), rule)
    with pytest.raises(ValueError, match="`model` must be a Point"):
        CoupledLearners.from_model(LinearClassifier(jnp.ones(2)), TASK, rule)
    with pytest.raises(ValueError, match=r"`model` must have a position of shape \(points, 2\); got \(2,\)"):
        CoupledLearners.from_model(Point(jnp.ones(2)), TASK, rule)
    with pytest.raises(ValueError, match=r"`model` must have a position of shape \(points, 2\); got \(2,\)"):
        CoupledLearners.from_model(model, TASK, rule).reduce(Point(jnp.ones(2)))
    with pytest.raises(ValueError, match="`model` must have a leading axis of 3 learners"):
        CoupledLearners.from_model(population(4), TASK, rule)
    with pytest.raises(ValueError, match="`key` must be a JAX PRNG key"):
        tx.train(model, TASK, rule, [1.0], observe=jax.vmap(TASK.loss), **STEPS)
    with pytest.raises(ValueError, match=r"got \(3, 2\). For a population, use jax.vmap\(task.loss\)"):
        tx.train(model, TASK, CoupledFlow(COMPLETE), [1.0])
    with pytest.raises(ValueError, match="`rule` must be a CoupledFlow"):
        spread_bound(tx.GradientFlow(), dimension=1, curvature=1.0)
    with pytest.raises(ValueError, match="`dimension` must be a whole number of at least 1"):
        spread_bound(rule, dimension=0, curvature=1.0)
    with pytest.raises(ValueError, match="`t` must be a time"):
        spread_bound(rule, dimension=1, curvature=1.0, t=-1.0)
    with pytest.raises(ValueError, match="`hessian` must be positive semi-definite"):
        QuadraticTask(-jnp.eye(2))
    with pytest.raises(ValueError, match=r"`minimum` must have shape \(2,\)"):
        QuadraticTask(jnp.eye(2), jnp.ones(3))
    with pytest.raises(ValueError, match="`position` must have shape"):
        Point(jnp.ones((1, 2, 3)))


@pytest.mark.slow
def test_catalogue_entry():
    assert tx.verify("coupled_learners").passed
