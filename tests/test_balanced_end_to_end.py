"""The end-to-end flow: reference values, the whole network's velocity, rank, limits, refusals."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

import tractax as tx
from tractax.deep_linear import (
    BalancedEndToEnd,
    DeepLinear,
    LinearTask,
    MapTask,
    TwoLayerModes,
    aligned,
    balanced,
    balanced_factors,
    end_to_end,
    gaussian,
    haar,
)

TARGET = jnp.asarray([[1.0, -0.5], [0.3, 0.8]])


def test_reference_value():
    model = balanced_factors(jnp.asarray([[0.5, 0.2], [-0.1, 0.4]]), (3, 2), key=jax.random.key(0))
    solution = BalancedEndToEnd.from_model(model, LinearTask(TARGET), t1=2.0)
    expected = [[0.9503885585403, -0.3970885108407], [0.2271005137141, 0.7069080463142]]
    np.testing.assert_allclose(solution.product(1.0), expected, atol=2e-10)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(3, 3), (4, 3, 2), (2, 5, 3, 4), (5, 3, 4, 3, 1), (3, 4, 2, 4, 4, 3)])
def test_velocity_is_that_of_the_whole_network(sizes, getkey):
    # Automatic differentiation of the layers and of their product knows nothing of fractional powers.
    model = balanced(sizes, scale=1.0, key=getkey())
    target = jax.random.normal(getkey(), (sizes[-1], sizes[0]))

    def loss_of_map(w):
        return jnp.sum(jnp.cosh(w - target))

    task = MapTask(loss_of_map)
    velocity = jax.tree.map(jnp.negative, jax.grad(task.loss)(model))
    _, expected = jax.jvp(lambda m: m.product, (model,), (velocity,))
    found = -end_to_end(model.product, task.gradient_of_map(model.product), model.depth, min(sizes))
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("depth", [1, 2, 3, 7])
def test_one_output(depth, getkey):
    w, g = jax.random.normal(getkey(), (2, 6))
    norm = jnp.linalg.norm(w)
    expected = norm ** (2 - 2 / depth) * (g + (depth - 1) * w * (w @ g) / norm**2)
    np.testing.assert_allclose(end_to_end(w[None, :], g[None, :], depth, 1)[0], expected, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [2, 3, 5])
@pytest.mark.parametrize("case", ["repeated", "low_rank", "wide"])
def test_derivative(case, depth, getkey):
    # On curves of constant rank; where singular values repeat, those of a decomposition have no derivative.
    start = {
        "repeated": 0.7 * jnp.eye(4),
        "low_rank": jax.random.normal(getkey(), (4, 2)) @ jax.random.normal(getkey(), (2, 3)),
        "wide": jax.random.normal(getkey(), (2, 5)),
    }[case]
    rank = 2 if case == "low_rank" else min(start.shape)
    left, right = (np.asarray(jax.random.normal(getkey(), (n, n))) for n in start.shape)
    gradient, change = jax.random.normal(getkey(), (2, *start.shape))

    def value(h):
        return end_to_end(jnp.asarray(expm(h * left) @ start @ expm(h * right)), gradient + h * change, depth, rank)

    h = 1e-3
    expected = (value(-2 * h) - 8 * value(-h) + 8 * value(h) - value(2 * h)) / (12 * h)
    _, found = jax.jvp(
        lambda w, g: end_to_end(w, g, depth, rank),
        (start, gradient),
        (jnp.asarray(left @ start + start @ right), change),
    )
    np.testing.assert_allclose(found, expected, atol=1e-8 * float(jnp.max(jnp.abs(expected))))


@pytest.mark.slow
def test_two_aligned_layers_are_the_closed_form():
    task = LinearTask(jnp.asarray([[2.0, 0.3], [0.1, 1.0], [0.4, 0.2]]))
    model = aligned(task, (4,), strength=jnp.asarray([0.1, 0.05]), key=jax.random.key(3))
    rule = tx.GradientFlow(2.0)
    closed, integrated = (
        TwoLayerModes.from_model(model, task, rule),
        BalancedEndToEnd.from_model(model, task, rule, t1=20.0),
    )
    ts = jnp.linspace(0.0, 20.0, 9)
    np.testing.assert_allclose(jax.vmap(integrated.product)(ts), jax.vmap(closed.product)(ts), atol=1e-9)


@pytest.mark.slow
def test_one_layer_is_linear_regression(getkey):
    covariance = jnp.asarray([[1.0, 0.4], [0.4, 0.5]])
    task = LinearTask(TARGET @ covariance, covariance)
    model = gaussian((2, 2), scale=1.0, key=getkey())
    solution = BalancedEndToEnd.from_model(model, task, t1=5.0)
    expected = TARGET + (model.product - TARGET) @ expm(-3.0 * np.asarray(covariance))
    np.testing.assert_allclose(solution.product(3.0), expected, atol=1e-9)


@pytest.mark.slow
def test_low_rank_start_in_wide_layers(getkey):
    # One mode of three, in layers with room for five: the others stay at zero however long the flow lasts.
    bases = [haar(getkey(), n, 1, jnp.float64) for n in (3, 5, 5, 3)]
    model = DeepLinear(tuple(0.6 * after @ before.T for before, after in itertools.pairwise(bases)))
    target = jax.random.normal(getkey(), (3, 3))
    solution = BalancedEndToEnd.from_model(model, LinearTask(target), t1=60.0)
    assert solution.rank == 1
    values = jnp.linalg.svd(solution.product(60.0), compute_uv=False)
    assert float(values[0]) > 0.5 and float(values[1]) < 1e-11
    u, s, vt = jnp.linalg.svd(target)
    np.testing.assert_allclose(solution.limit().product, s[0] * jnp.outer(u[:, 0], vt[0]), atol=1e-12)
    np.testing.assert_allclose(solution.product(60.0), solution.limit().product, atol=1e-8)
    trajectory = tx.train(model, LinearTask(target), tx.GradientFlow(), jnp.asarray([1.0, 4.0]), observe=solution.reduce)
    assert float(tx.compare(solution, trajectory).worst) < 1e-7


def test_zero_start_stays():
    solution = BalancedEndToEnd.from_model(DeepLinear((jnp.zeros((2, 2)),) * 3), LinearTask(TARGET), t1=1e6)
    assert solution.rank == 0 and jnp.all(solution.product(1e6) == 0.0)


@pytest.mark.slow
def test_limit_is_refused_where_it_is_not_certain():
    start = balanced_factors(0.1 * jnp.eye(2), (2,))
    # The flow cannot change the sign of the determinant, so it ends at a saddle.
    mirrored = LinearTask(jnp.asarray([[1.0, 0.0], [0.0, -0.8]]))
    stuck = BalancedEndToEnd.from_model(start, mirrored, t1=20.0)
    np.testing.assert_allclose(stuck.product(20.0), jnp.diag(jnp.asarray([1.0, 0.0])), atol=1e-5)
    with pytest.raises(ValueError, match="below that of every saddle"):
        stuck.limit()
    with pytest.raises(ValueError, match="below that of every saddle"):
        BalancedEndToEnd.from_model(start, LinearTask(TARGET), t1=0.1).limit()
    tied = BalancedEndToEnd.from_model(balanced_factors(jnp.ones((2, 2)), (1,)), LinearTask(jnp.eye(2)), t1=20.0)
    with pytest.raises(ValueError, match="below that of every saddle"):
        tied.limit()
    decaying = BalancedEndToEnd.from_model(start, LinearTask(TARGET), tx.GradientFlow(weight_decay=0.1), t1=20.0)
    with pytest.raises(ValueError, match="no weight decay"):
        decaying.limit()
    singular = LinearTask(jnp.asarray([[1.0, 0.0]]), jnp.diag(jnp.asarray([1.0, 0.0])))
    with pytest.raises(ValueError, match="regular input covariance"):
        BalancedEndToEnd.from_model(balanced_factors(jnp.ones((1, 2)), (1,)), singular, t1=20.0).limit()
    with pytest.raises(ValueError, match="LinearTask only"):
        BalancedEndToEnd.from_model(start, MapTask(jnp.sum), t1=0.1).limit()


def test_refuses_what_it_does_not_cover(getkey):
    task = LinearTask(TARGET)
    model = balanced((2, 3, 2), scale=0.5, key=getkey())
    with pytest.raises(ValueError, match=r"balanced layers.*FAILS \(violation"):
        BalancedEndToEnd.from_model(gaussian((2, 3, 2), scale=0.5, key=getkey()), task, t1=1.0)
    with pytest.raises(ValueError, match="equal rates"):
        BalancedEndToEnd.from_model(model, task, tx.GradientFlow(rates=jnp.asarray([1.0, 0.5])), t1=1.0)
    with pytest.raises(ValueError, match=r"tx\.GradientFlow"):
        BalancedEndToEnd.from_model(model, task, tx.GradientDescent(0.1), t1=1.0)
    with pytest.raises(ValueError, match="`t1` must be positive"):
        BalancedEndToEnd.from_model(model, task, t1=-1.0)
    with pytest.raises(ValueError, match="`rank` must be between 0 and 2"):
        BalancedEndToEnd.from_model(model, task, t1=1.0, rank=3)
    with pytest.raises(ValueError, match="a map of rank 1"):
        BalancedEndToEnd.from_model(model, task, t1=1.0, rank=1)
    with pytest.raises(ValueError, match="above rounding"):
        BalancedEndToEnd.from_model(balanced_factors(jnp.diag(jnp.asarray([1.0, 1e-15])), (2, 2)), task, t1=1.0)
    with pytest.raises(ValueError, match="3 inputs"):
        BalancedEndToEnd.from_model(model, LinearTask(jnp.ones((2, 3))), t1=1.0)
    with pytest.raises(ValueError, match="DeepLinear"):
        MapTask(jnp.sum).loss(lambda x: x)
