"""The convex programme of rectifier networks: reference values, SciPy, certificates, training, patterns, refusals."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from tractax import GradientDescent, train
from tractax.deep_linear import RegressionTask
from tractax.two_layer import (
    ConvexReLU,
    TwoLayerNetwork,
    WeightDecayTask,
    activation_patterns,
    balanced_units,
    sampled_patterns,
)

X = jnp.asarray([[1.0, 0.0], [0.0, 1.0], [-1.0, 1.0]])
Y = jnp.asarray([1.0, -1.0, 0.5])


def random_task(examples=6, seed=0, decay=0.1):
    rng = np.random.default_rng(seed)
    return WeightDecayTask(jnp.asarray(rng.normal(size=(examples, 2))), jnp.asarray(rng.normal(size=examples)), decay)


def unit_outputs(task):
    """σ(Xu) on a fine circle of u, and where gains have kinks: perpendicular to an input."""
    inputs = np.asarray(task.inputs)
    kinks = np.arctan2(inputs[:, 1], inputs[:, 0])[:, None] + np.pi / 2 * np.asarray([[1, -1]])
    angles = np.sort(np.concatenate([np.linspace(0, 2 * np.pi, 100_001), kinks.ravel() % (2 * np.pi)]))
    return np.maximum(inputs @ np.stack([np.cos(angles), np.sin(angles)]), 0).T


def largest_gain(task, z):
    """The largest |z·σ(Xu)| over units of length one."""
    return np.max(np.abs(unit_outputs(task) @ np.asarray(z)))


def test_reference_value():
    task = WeightDecayTask(X, Y, 0.1)
    optimum = ConvexReLU(task).solve(rtol=1e-10)
    assert optimum.complete
    assert float(optimum.primal) == pytest.approx(0.32, abs=1e-10)
    assert float(optimum.dual) == pytest.approx(0.32, abs=1e-10)
    assert float(task.loss(optimum.network)) == pytest.approx(0.32, abs=1e-10)
    assert largest_gain(task, optimum.dual_point) <= 0.1 * (1 + 1e-12)


@pytest.mark.slow
def test_network_attains_the_dual():
    task = random_task()
    optimum = ConvexReLU(task).solve(rtol=1e-9)
    assert float(optimum.dual) == pytest.approx(2.2729189630, abs=1e-8)
    assert float(task.loss(optimum.network)) == pytest.approx(2.2729189630, abs=1e-8)
    assert 0 <= float(optimum.gap) <= 1e-9 * float(jnp.sum(task.targets**2)) / 2
    # The units are balanced.
    network = optimum.network
    np.testing.assert_allclose(jnp.linalg.norm(network.first, axis=1), jnp.abs(network.second[0]), rtol=1e-12)


@pytest.mark.parametrize(("examples", "seed"), [(6, 1), (4, 2), pytest.param(8, 3, marks=pytest.mark.slow)])
def test_against_scipy(examples, seed):
    """The dual over all directions of the plane, which knows no patterns, by cutting planes and SciPy's SLSQP."""
    task = random_task(examples, seed)
    y, decay = np.asarray(task.targets), 0.1
    units = unit_outputs(task)
    cuts = units[::5000]
    for _ in range(40):
        room = {"type": "ineq", "fun": lambda z, a=cuts: np.concatenate([decay - a @ z, decay + a @ z])}
        room["jac"] = lambda z, a=cuts: np.concatenate([-a, a])
        start, options = np.zeros_like(y), {"ftol": 1e-14, "maxiter": 300}
        found = minimize(lambda z: z @ z / 2 - y @ z, start, jac=lambda z: z - y, constraints=room, options=options)
        gains = np.abs(units @ found.x)
        if gains.max() <= decay * (1 + 1e-9):
            break
        peaks = (gains >= np.roll(gains, 1)) & (gains >= np.roll(gains, -1)) & (gains > decay)
        cuts = np.concatenate([cuts, units[peaks]])
    assert float(ConvexReLU(task).solve().primal) == pytest.approx(-found.fun, rel=1e-7)


def test_every_iterate_is_certified():
    """Long before convergence the two numbers enclose the optimum, and the dual point is feasible."""
    task = random_task()
    for steps in (50, 100):
        early = ConvexReLU(task).solve(rtol=1e-15, max_steps=steps, throw=False)
        assert float(early.dual) <= 2.2729189630 <= float(early.primal)
        assert largest_gain(task, early.dual_point) <= 0.1 * (1 + 1e-12)
        assert float(task.loss(early.network)) == pytest.approx(float(early.primal), rel=1e-12)


def test_training_never_goes_below():
    task = random_task()
    ts = jnp.asarray([0.0, 10.0, 200.0])
    lowest = float(ConvexReLU(task).solve(rtol=1e-9).dual)
    ends = []
    for seed in range(3):
        model = balanced_units(2, 20, scale=1.0, key=jax.random.key(seed))
        losses = train(model, task, GradientDescent(0.02), ts, observe=task.loss).observed
        assert float(jnp.min(losses)) >= lowest - 1e-9
        ends.append(float(losses[-1]))
    # And some seed comes near.
    assert min(ends) < 1.02 * lowest


@pytest.mark.slow
def test_sampled_patterns_bound_from_above():
    task, key = random_task(), jax.random.key(0)
    few, more = (sampled_patterns(task.inputs, count, key=key) for count in (3, 200))
    rows = {tuple(row) for row in np.asarray(more)}
    assert {tuple(row) for row in np.asarray(few)} <= rows
    # Two hundred draws in the plane see every pattern of six inputs.
    np.testing.assert_array_equal(more, activation_patterns(task.inputs))
    partial = ConvexReLU(task, few).solve()
    assert not partial.complete
    assert float(partial.primal) > 2.28
    assert abs(float(partial.gap)) <= 1e-8 * float(jnp.sum(task.targets**2)) / 2
    assert float(task.loss(partial.network)) == pytest.approx(float(partial.primal), rel=1e-12)


@pytest.mark.parametrize(("examples", "rank"), [(1, 3), (6, 2), (5, 3), (9, 4), (4, 4)])
def test_patterns_in_general_position(examples, rank):
    inputs = np.random.default_rng(examples).normal(size=(examples, rank))
    patterns = np.asarray(activation_patterns(inputs))
    assert len(patterns) == 2 * sum(math.comb(examples - 1, k) for k in range(min(rank, examples)))
    assert len(np.unique(patterns, axis=0)) == len(patterns)
    draws = np.random.default_rng(0).normal(size=(2000, rank)) @ inputs.T > 0
    assert {tuple(row) for row in draws} <= {tuple(row) for row in patterns}


def test_patterns_of_special_inputs():
    # The arrangement of all sums of three coordinates has 32 cells, not the 44 of general position.
    cube = [[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1]]
    assert len(activation_patterns(np.asarray(cube))) == 32
    # Repeated, opposite and zero inputs.
    special = np.asarray([[1.0, 0], [1, 0], [-2, 0], [0, 1], [1, 1], [0, 0]])
    patterns = np.asarray(activation_patterns(special))
    assert len(patterns) == 6
    assert not patterns[:, 5].any()
    assert np.all(patterns[:, 0] == patterns[:, 1])
    assert np.all(patterns[:, 0] != patterns[:, 2])
    assert len(activation_patterns(np.asarray([[2.0, 1, 1], [4, 2, 2]]))) == 2
    assert activation_patterns(np.zeros((3, 2))).tolist() == [[False] * 3]


@pytest.mark.slow
def test_limits():
    # Beyond the largest gain of z = y no unit pays for itself.
    task = random_task()
    most = largest_gain(task, task.targets)
    for decay, silent in ((1.01 * most, True), (0.95 * most, False)):
        task = WeightDecayTask(task.inputs, task.targets, decay)
        optimum = ConvexReLU(task).solve()
        nothing = float(jnp.sum(task.targets**2)) / 2
        assert (float(optimum.primal) == pytest.approx(nothing, rel=1e-12)) == silent
        assert (float(jnp.max(jnp.abs(optimum.network.second))) == 0) == silent
    # Nothing to learn.
    nothing = ConvexReLU(WeightDecayTask(task.inputs, 0 * task.targets, 0.1)).solve()
    assert float(nothing.primal) == float(nothing.dual) == 0
    # One example: f = s|x| costs β s, and y|x| − β is what remains after soft thresholding.
    single = ConvexReLU(WeightDecayTask(jnp.asarray([[3.0, 4.0]]), jnp.asarray([2.0]), 0.5)).solve()
    assert float(single.primal) == pytest.approx(0.5 / 5 * 2 - (0.5 / 5) ** 2 / 2, rel=1e-7)


def test_units_of_the_data():
    """Inputs times a and targets times b, with the decay times ab: the loss times b²."""
    task = random_task()
    scaled = WeightDecayTask(1e4 * task.inputs, 1e-3 * task.targets, 10 * task.decay)
    optimum = ConvexReLU(scaled).solve(rtol=1e-9)
    assert float(optimum.primal) == pytest.approx(1e-6 * 2.2729189630, rel=1e-8)


@pytest.mark.slow
def test_float32():
    task = WeightDecayTask(X.astype(jnp.float32), Y.astype(jnp.float32), 0.1)
    optimum = ConvexReLU(task).solve()
    assert optimum.primal.dtype == optimum.network.first.dtype == jnp.float32
    assert float(optimum.primal) == pytest.approx(0.32, rel=1e-3)


@pytest.mark.slow
def test_sampled_patterns_of_two_hundred_examples():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(200, 10))
    targets = np.maximum(inputs @ rng.normal(size=(10, 3)), 0).sum(axis=1) + 0.1 * rng.normal(size=200)
    task = WeightDecayTask(jnp.asarray(inputs), jnp.asarray(targets), 1.0)
    patterns = sampled_patterns(task.inputs, 500, key=jax.random.key(0))
    optimum = ConvexReLU(task, patterns).solve(rtol=1e-3, max_steps=5000)
    assert 0 <= float(optimum.gap) <= 1e-3 * np.sum(targets**2) / 2
    assert float(task.loss(optimum.network)) == pytest.approx(float(optimum.primal), rel=1e-10)


def test_unsolved():
    programme = ConvexReLU(random_task())
    with pytest.raises(Exception, match="not solved to `rtol` in `max_steps`"):
        programme.solve(rtol=1e-15, max_steps=50)


def test_refusals():
    task = WeightDecayTask(X, Y, 0.1)
    programme = ConvexReLU(task)
    wide = np.random.default_rng(0).normal(size=(40, 10))
    for call, message in (
        (lambda: WeightDecayTask(X, Y, 0.0), "`decay` must be positive"),
        (lambda: WeightDecayTask(X, Y, -1.0), "`decay` must be positive"),
        (lambda: WeightDecayTask(X, Y, jnp.ones(2)), "`decay` must be one number"),
        (lambda: WeightDecayTask(X, Y[:2], 0.1), "`targets` must have shape"),
        (lambda: WeightDecayTask(X, Y[:, None], 0.1), "`targets` must have shape"),
        (lambda: WeightDecayTask(X * jnp.nan, Y, 0.1), "`inputs` must be finite"),
        (lambda: task.loss(TwoLayerNetwork(jnp.ones((2, 3)), jnp.ones(2))), "`model` must have 2 inputs and one output"),
        (lambda: task.loss(TwoLayerNetwork(jnp.ones((2, 2)), jnp.ones(2), "tanh")), "`model` must have relu units"),
        (lambda: ConvexReLU(RegressionTask(X, Y)), "`task` must be a WeightDecayTask"),
        (lambda: ConvexReLU(task, jnp.ones((2, 2), bool)), "`patterns` must be booleans of shape"),
        (lambda: ConvexReLU(task, jnp.ones((2, 3))), "`patterns` must be booleans of shape"),
        (lambda: activation_patterns(wide), "`inputs` must have few patterns"),
        (lambda: activation_patterns(jnp.ones(3)), "`inputs` must have shape"),
        (lambda: sampled_patterns(X, 0, key=jax.random.key(0)), "`samples` must be a whole number"),
        (lambda: sampled_patterns(X, 3, key=None), "`key` must be a JAX PRNG key"),
        (lambda: programme.solve(rtol=0.0), "`rtol` must be positive"),
        (lambda: programme.solve(max_steps=0), "`max_steps` must be"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
