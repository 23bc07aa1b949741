"""Rectifiers on mirrored data: reference value, the whole network, what breaks the symmetry, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tractax as tx
from tractax.deep_linear import BalancedEndToEnd, DeepLinear, RegressionTask, TwoLayerModes, balanced
from tractax.two_layer import (
    LeakyReLU,
    RankOneReLU,
    SymmetricReLU,
    TwoLayerNetwork,
    antipodal_network,
    mirrored_task,
)

CROSS = np.asarray([[1.0, 1.0], [1.0, -1.0]])
TARGET = np.asarray([0.6, 0.8])
TASK = mirrored_task(CROSS, CROSS @ TARGET)


def rank_one(q, r=(1.0, 0.0), slope=0.0):
    q = np.asarray(q)
    return TwoLayerNetwork(q[:, None] * np.asarray(r)[None, :], q, LeakyReLU(slope))


def test_reference_value():
    model = rank_one(np.asarray([0.1, -0.1]) / 2**0.5)
    expected = [[0.35952472980170486, 0.432713029384844]]
    np.testing.assert_allclose(RankOneReLU.from_model(model, TASK).product(6.0), expected, rtol=1e-13)
    riccati = SymmetricReLU.from_model(model, TASK)
    np.testing.assert_allclose(riccati.product(6.0), expected, rtol=1e-12)
    assert float(riccati.loss(jnp.inf)) < 1e-28
    np.testing.assert_allclose(riccati.limit().product, [TARGET], rtol=1e-12)
    np.testing.assert_allclose(RankOneReLU.from_model(model, TASK).product(jnp.inf), [TARGET], rtol=1e-12)


def random_case():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
    first, second = balanced((3, 4, 2), scale=0.4, key=jax.random.key(0)).weights
    return mirrored_task(x, y), first, second


@pytest.mark.slow
def test_the_gradient_is_that_of_a_linear_network():
    task, first, second = random_case()
    slope = 0.2
    model = antipodal_network(first, second, slope=slope)
    np.testing.assert_allclose(model(task.inputs[0]), (1 + slope) * second @ first @ task.inputs[0], rtol=1e-12)
    gradient = jax.grad(task.loss)(model)
    kappa = (1 + slope) / 2
    scaled = DeepLinear((kappa**0.5 * model.first, kappa**0.5 * model.second))
    linear = jax.grad(task.loss)(scaled)
    np.testing.assert_allclose(gradient.first, kappa**0.5 * linear.weights[0], atol=1e-14)
    np.testing.assert_allclose(gradient.second, kappa**0.5 * linear.weights[1], atol=1e-14)


@pytest.mark.slow
def test_inputs_that_are_not_white():
    # Any linear theory: the flow of the map for balanced layers, whose horizon is in the time of the rectifiers.
    task, first, second = random_case()
    model, rule = antipodal_network(first, second, slope=0.3), tx.GradientFlow(2.0)
    solution = SymmetricReLU.from_model(model, task, rule, linear=BalancedEndToEnd, t1=10.0)
    assert float(solution.t1) == pytest.approx(10.0)
    ts = jnp.linspace(0.0, 10.0, 11)
    run = tx.train(model, task, rule, ts, observe={"state": solution.reduce, "loss": task.loss})
    np.testing.assert_allclose(jax.vmap(solution.loss)(ts), run.observed["loss"], rtol=1e-7)
    states = jax.vmap(solution.evaluate)(ts)
    np.testing.assert_allclose(states.product, run.observed["state"].product, atol=1e-7)
    with pytest.raises(ValueError, match="horizon"):
        solution.evaluate(10.1)
    with pytest.raises(ValueError, match="whitened inputs"):
        SymmetricReLU.from_model(model, task, rule)


@pytest.mark.slow
def test_odd_at_the_start_is_not_enough():
    # Both cancel at first, but their directions drift apart.
    model = TwoLayerNetwork([[1.0, 0.3], [-2.0, -0.6]], [1.0, -0.5])
    np.testing.assert_allclose(jax.vmap(model)(TASK.inputs), -jax.vmap(model)(-TASK.inputs), atol=1e-15)
    with pytest.raises(ValueError, match="opposite units"):
        SymmetricReLU.from_model(model, TASK)
    later = tx.train(model, TASK, tx.GradientFlow(), [0.3]).model
    assert float(jnp.max(jnp.abs(jax.vmap(later)(TASK.inputs) + jax.vmap(later)(-TASK.inputs)))) > 1e-2
    # Parallel units may share the role of the opposite one.
    shared = rank_one([0.5, -0.3, -0.4], (0.6, 0.8))
    later = tx.train(shared, TASK, tx.GradientFlow(), [0.3]).model
    assert float(jnp.max(jnp.abs(jax.vmap(later)(TASK.inputs) + jax.vmap(later)(-TASK.inputs)))) < 1e-8
    predicted = RankOneReLU.from_model(shared, TASK).product(0.3) @ TASK.inputs[0]
    np.testing.assert_allclose(later(TASK.inputs[0]), predicted, rtol=1e-7)


@pytest.mark.slow
def test_data_and_kinks():
    model = rank_one([0.1, -0.1])
    # Repeated examples count: twice (x, y) needs twice (-x, -y).
    twice = RegressionTask(np.concatenate([CROSS, CROSS[:1], -CROSS]), np.asarray([1.4, -0.2, 1.4, -1.4, 0.2]))
    with pytest.raises(ValueError, match=r"mirrored data.*FAILS \(violation 0\.4"):
        SymmetricReLU.from_model(model, twice)
    with pytest.raises(ValueError, match="mirrored data"):
        RankOneReLU.from_model(model, RegressionTask(CROSS, CROSS @ TARGET))
    even = RegressionTask(np.concatenate([CROSS, -CROSS]), np.asarray([1.0, 0.5, 1.0, 0.5]))
    with pytest.raises(ValueError, match=r"mirrored data.*FAILS \(violation 1,"):
        SymmetricReLU.from_model(model, even)
    # On a kink the rectifier has slope 0, not ½ on average: such a unit never turns.
    axes = mirrored_task(2**0.5 * np.eye(2), 2**0.5 * TARGET)
    with pytest.raises(ValueError, match="no input on the kink of a unit"):
        SymmetricReLU.from_model(model, axes)
    stuck = tx.train(model, axes, tx.GradientFlow(), [5.0]).model
    np.testing.assert_array_equal(stuck.first[:, 1], 0.0)
    tilted = rank_one([0.1, -0.1], (1.0, 1e-9))
    tilted = TwoLayerNetwork(tilted.first / (1 + 1e-18) ** 0.5, tilted.second)
    assert float(SymmetricReLU.from_model(tilted, axes).loss(50.0)) < 1e-6


def test_refusals():
    model = rank_one([0.1, -0.1])
    for network, task, message in (
        (rank_one([0.1, 0.1]), TASK, "opposite units"),
        (rank_one([0.1, -0.1], (2.0, 0.0)), TASK, "balanced weights"),
        (TwoLayerNetwork([[0.1, 0.0], [0.0, -0.1]], [0.1, -0.1]), TASK, "weights of rank one"),
        (model, mirrored_task(CROSS * np.asarray([1.0, 2.0]), TARGET), "isotropic inputs"),
        (antipodal_network([[0.1, 0.0]], [[0.1], [0.1]]), TASK, "`model` must have one output"),
        (antipodal_network([[0.1]], [0.1]), TASK, "`model` must have 2 inputs"),
        (rank_one([0.1, -0.1], slope=-1.0), TASK, "a slope above -1"),
        (TwoLayerNetwork([[0.1, 0.0]], [0.1], "tanh"), TASK, "leaky rectifier units"),
        (model, tx.deep_linear.LinearTask(np.eye(2)), "`task` must be a RegressionTask"),
    ):
        with pytest.raises(ValueError, match=message):
            RankOneReLU.from_model(network, task)
    with pytest.raises(ValueError, match="no weight decay"):
        SymmetricReLU.from_model(model, TASK, tx.GradientFlow(weight_decay=0.1))
    with pytest.raises(ValueError, match="λ-balanced weights"):
        SymmetricReLU.from_model(antipodal_network([[0.3, 0.1], [0.1, 0.2]], [0.3, 0.1]), TASK)
    with pytest.raises(ValueError, match="aligned weights"):
        SymmetricReLU.from_model(model, TASK, linear=TwoLayerModes)
    with pytest.raises(ValueError, match="`inputs` must have shape"):
        mirrored_task(np.ones(3), np.ones(3))
    assert not all(bool(a.holds) for a in SymmetricReLU.assumptions(rank_one([0.1, 0.1]), TASK))
    # Outside, on request.
    SymmetricReLU.from_model(rank_one([0.1, 0.1]), TASK, check=False).evaluate(1.0)
