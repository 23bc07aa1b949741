"""Descent on a product: reference values, the network itself, catapults, the invariant surface, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import tractax as tx
from tractax.deep_linear import RegressionTask
from tractax.two_layer import ProductDescent, ProductState, TwoLayerNetwork, product_step


def regression(inputs, targets):
    return RegressionTask(np.asarray(inputs), np.asarray(targets))


def start_at(z, trace, target, steps):
    """Descent of learning rate 1 from balanced weights of two units with this state."""
    product = z + target
    u, v = (np.sqrt(trace + 2 * product) + sign * np.sqrt(trace - 2 * product) for sign in (1, -1))
    model = TwoLayerNetwork([[u / 2], [0.0]], [v / 2, 0.0], "linear")
    return ProductDescent.from_model(model, regression([[1.0]], [target]), tx.GradientDescent(1.0), steps=steps)


def final(solution):
    return jax.tree.map(lambda x: float(x[-1]), solution.path)


def random_case(dtype=jnp.float64):
    """Three inputs, five units, four examples along one direction."""
    rng = np.random.default_rng(0)
    weights, readout, along, targets = (rng.normal(size=shape) for shape in ((5, 3), 5, 4, 4))
    model = TwoLayerNetwork(jnp.asarray(0.5 * weights, dtype), jnp.asarray(0.5 * readout, dtype), "linear")
    inputs = along[:, None] * np.asarray([0.2, -0.5, 0.7])[None, :]
    return model, RegressionTask(jnp.asarray(inputs, dtype), jnp.asarray(targets, dtype))


def test_reference_values():
    end = final(start_at(0.1, 2.4, 0.4, 10))
    np.testing.assert_allclose([end.residual, end.curvature], [0.06558647146075433, 1.6846142455169], rtol=1e-12)
    for target, trace, expected in (
        (0.1, 2.2, 1.7709428923),
        (0.3, 2.2, 1.7799482584),
        (0.6, 2.2, 1.8163720528),
        (0.9, 2.2, 1.9208474011),
    ):
        assert final(start_at(1e-3, trace, target, 3000)).curvature == pytest.approx(expected, abs=1e-9)
    assert final(start_at(1e-3, 3.4, 0.9, 3000)).curvature == pytest.approx(1.8, abs=5e-6)


def test_reference_catapult():
    # f = u·v/√n with f = 0.5 and (|u|² + |v|²)/n = 3 at n = 16: one input of 1/√n, no target.
    n, eta = 16, 0.8
    f, kappa = [0.5, -0.695, 0.948451905, -1.2489165587062079], [3.0, 2.98, 2.94097158, 2.8668827120931946]
    plus, minus = (np.sqrt(n * kappa[0] / 2 + sign * f[0] * np.sqrt(n)) for sign in (1, -1))
    model = TwoLayerNetwork([[plus / 2**0.5], [minus / 2**0.5]], [plus / 2**0.5, -minus / 2**0.5], "linear")
    task = regression([[1 / np.sqrt(n)]], [0.0])
    path = ProductDescent.from_model(model, task, tx.GradientDescent(eta), steps=3).path
    np.testing.assert_allclose(path.residual * np.sqrt(n) / eta, f, rtol=1e-13)
    np.testing.assert_allclose(path.curvature / eta, kappa, rtol=1e-13)


def test_every_number_and_the_loss_against_training():
    model, task = random_case()
    rule = tx.GradientDescent(0.8, time_per_step=0.5)
    solution = ProductDescent.from_model(model, task, rule, steps=40)
    ts = 0.5 * jnp.arange(41.0)
    run = tx.train(model, task, rule, ts, observe={"state": solution.reduce, "loss": task.loss})
    assert float(tx.compare(solution, run_of(run, "state")).worst) < 1e-11
    np.testing.assert_allclose(solution.loss(solution.path), run.observed["loss"], rtol=1e-11)
    assert float(solution.loss(solution.path)[-1]) == pytest.approx(float(solution.floor), rel=1e-6)


def run_of(run, name):
    return tx.Trajectory(run.ts, run.observed[name], run.model, run.stats, run.result)


@pytest.mark.slow
def test_curvature_is_the_tangent_kernel_and_at_a_minimum_the_sharpness():
    model, task = random_case()
    solution = ProductDescent.from_model(model, task, tx.GradientDescent(0.8), steps=2000)
    end = tx.train(model, task, tx.GradientDescent(0.8), [0.8 * 2000]).model

    def loss(flat):
        return task.loss(TwoLayerNetwork(flat[:15].reshape(5, 3), flat[15:], "linear"))

    flat = jnp.concatenate([end.first.ravel(), end.second.ravel()])
    sharpness = jnp.linalg.eigvalsh(jax.hessian(loss)(flat))[-1]
    assert 0.8 * float(sharpness) == pytest.approx(final(solution).curvature, rel=1e-9)
    assert abs(final(solution).residual) < 1e-12


def test_catapults_end_below_two():
    for target in (0.0, 0.2):
        for trace in (2.1, 3.0, 3.99):
            path = start_at(1e-3, trace, target, 2000).path
            assert float(jnp.max(jnp.abs(path.residual))) > 0.05
            assert abs(float(path.residual[-1])) < 1e-9
            assert 2 * target - 1e-9 <= float(path.curvature[-1]) < 2
        assert jnp.isinf(start_at(1e-3, 4.01, target, 2000).path.curvature[-1])


def test_the_margin_keeps_its_sign_and_bounds_the_run():
    rng = np.random.default_rng(1)
    targets, z = rng.uniform(-2, 2, 200), rng.uniform(-2, 2, 200)
    for margin in (1e-4, -1e-4):
        trace = 4 - margin + z * targets
        possible = trace >= 2 * np.abs(z + targets)
        state = ProductState(*(jnp.asarray(x[possible]) for x in (z, trace, 0 * z)))
        target = jnp.asarray(targets[possible])
        for _ in range(200):
            after = product_step(state, target)
            lost = jnp.abs(after.residual) > 1e3
            state = jax.tree.map(lambda x, y, lost=lost: jnp.where(lost, y, x), after, state)
            assert jnp.all((4 - state.curvature + state.residual * target > 0) == (margin > 0))
            assert margin < 0 or jnp.all(jnp.abs(state.residual) < 2)
        assert jnp.all(lost == (margin < 0))


def test_rates():
    model, task = random_case()
    rule = tx.GradientDescent(0.8)
    solution = ProductDescent.from_model(model, task, rule, steps=5)
    rate = solution.divergence_rate
    edge = ProductDescent.from_model(model, task, tx.GradientDescent(rate), steps=1)
    assert float(edge.margin(jax.tree.map(lambda x: x[0], edge.path))) == pytest.approx(0, abs=1e-12)
    assert abs(float(edge.target)) <= 2
    settling = ProductDescent.from_model(model, task, tx.GradientDescent(solution.settling_rate), steps=1)
    assert abs(float(settling.target)) == pytest.approx(1)
    still = TwoLayerNetwork(np.zeros((2, 3)), np.zeros(2), "linear")
    nothing = ProductDescent.from_model(still, regression(np.ones((1, 3)), [0.0]), rule, steps=1)
    assert jnp.isinf(nothing.divergence_rate) and jnp.isinf(nothing.settling_rate)


@pytest.mark.slow
def test_transformations_and_float32():
    model, task = random_case()

    def last(eta, model=model, task=task):
        return ProductDescent.from_model(model, task, tx.GradientDescent(eta), steps=20).evaluate(20 * eta).curvature

    rates = jnp.asarray([0.4, 0.8])
    np.testing.assert_allclose(jax.jit(jax.vmap(last))(rates), [last(rate) for rate in rates], rtol=1e-12)
    slope = (last(jnp.asarray(0.4 + 1e-6)) - last(jnp.asarray(0.4 - 1e-6))) / 2e-6
    assert float(jax.grad(last)(jnp.asarray(0.4))) == pytest.approx(float(slope), rel=1e-6)
    single = last(0.4, *random_case(jnp.float32))
    assert single.dtype == jnp.float32 and float(single) == pytest.approx(float(last(0.4)), rel=1e-5)


def test_refusals():
    model, task = random_case()
    rule = tx.GradientDescent(0.1)
    solution = ProductDescent.from_model(model, task, rule, steps=3)
    several = RegressionTask(np.eye(3), np.ones(3))
    ProductDescent.from_model(model, several, rule, steps=1, check=False)
    for call, message in (
        (lambda: ProductDescent.from_model(np.ones(2), task, rule), "`model` must be a TwoLayerNetwork"),
        (lambda: ProductDescent.from_model(TwoLayerNetwork(np.ones((2, 3)), np.ones(2)), task, rule), "linear units"),
        (lambda: ProductDescent.from_model(model, task), "`rule` must be tx.GradientDescent"),
        (lambda: ProductDescent.from_model(model, task, tx.GradientDescent(0.1, optax.adam)), "optax.sgd"),
        (lambda: ProductDescent.from_model(model, several, rule), "inputs along one direction"),
        (lambda: ProductDescent.from_model(model, regression(np.zeros((1, 3)), [1.0]), rule), "not all zero"),
        (lambda: ProductDescent.from_model(model, task, rule, steps=0), "`steps` must be a whole number"),
        (lambda: solution.evaluate(0.4), "must not exceed t1, the horizon"),
        (lambda: solution.evaluate(jnp.inf), "must not exceed t1, the horizon"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
