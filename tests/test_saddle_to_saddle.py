"""SaddleToSaddle against SciPy simulations, the Hessian at the saddles, and exact invariant manifolds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import tractax as tx
from tractax.deep_linear import (
    DeepLinear,
    LinearTask,
    SaddleToSaddle,
    TwoLayerModes,
    aligned,
    dependence_violation,
    gaussian,
    haar,
    hidden_units,
    low_rank,
    unit_dependences,
)


def _reference(scale):
    first = scale * jnp.asarray([[1, 0.5], [0, 1], [0.5, -0.5]])
    second = scale * jnp.asarray([[0.3, 1, 0], [-0.2, 0.4, 1]])
    return DeepLinear((first, second)), LinearTask(jnp.diag(jnp.asarray([2.0, 1.0])))


def _half_rises(model, task, t1):
    """When the diagonal entries of the product reach half of the target's, by SciPy."""
    w1, w2 = (np.asarray(w) for w in model.weights)
    target = np.asarray(task.cross_covariance)
    split = w1.size

    def field(_, y):
        a, b = y[:split].reshape(w1.shape), y[split:].reshape(w2.shape)
        error = target - b @ a
        return np.concatenate([(b.T @ error).ravel(), (error @ a.T).ravel()])

    def event(i):
        return lambda _, y: y[split:].reshape(w2.shape)[i] @ y[:split].reshape(w1.shape)[:, i] - target[i, i] / 2

    start = np.concatenate([w1.ravel(), w2.ravel()])
    events = [event(i) for i in range(len(target))]
    atol = 1e-13 * np.max(np.abs(start))
    found = solve_ivp(field, (0, t1), start, method="DOP853", rtol=1e-12, atol=atol, events=events)
    return np.array([times[0] for times in found.t_events])


def test_reference_values():
    model, task = _reference(1e-4)
    times = SaddleToSaddle.from_model(model, task).half_rise_times
    np.testing.assert_allclose(times, [4.855428176070, 9.964859703537], rtol=1e-12)
    simulated = _half_rises(model, task, 11.0)
    np.testing.assert_allclose(simulated, [4.855442767, 9.964859699], atol=2e-9)


def test_every_mode_has_its_own_order():
    # The next mode limits the first two, and nothing but the square of the scale the last.
    task = LinearTask(jnp.diag(jnp.asarray([2.0, 1.5, 0.2])))
    draw = gaussian((3, 5, 3), scale=1.0, key=jax.random.key(1))

    def errors(scale):
        model = DeepLinear(tuple(scale * w for w in draw.weights))
        prediction = SaddleToSaddle.from_model(model, task)
        times = prediction.half_rise_times
        return np.abs(_half_rises(model, task, float(times[-1]) + 5.0) - times), prediction.orders

    (coarse, orders), (fine, _) = errors(1e-4), errors(1e-5)
    np.testing.assert_allclose(orders, [0.5, 2 / 3, 2.0], rtol=1e-12)
    np.testing.assert_allclose(np.log10(coarse / fine), orders, rtol=0.02)


def test_order_set_by_the_mode_before():
    task = LinearTask(jnp.diag(jnp.asarray([1.2, 1.0])))
    draw = gaussian((2, 4, 2), scale=1.0, key=jax.random.key(2))

    def error(scale):
        model = DeepLinear(tuple(scale * w for w in draw.weights))
        prediction = SaddleToSaddle.from_model(model, task)
        np.testing.assert_allclose(prediction.orders, [1 / 3, 0.4], rtol=1e-12)
        predicted = float(prediction.half_rise_times[1])
        return abs(_half_rises(model, task, predicted + 5.0)[1] - predicted)

    assert float(np.log10(error(1e-6) / error(1e-7))) == pytest.approx(0.4, rel=0.03)


def test_aligned_network_agrees_with_the_exact_solution():
    task = LinearTask(jnp.diag(jnp.asarray([3.0, 2.0, 1.0])))
    for strength in (1e-2, 1e-4):
        model = aligned(task, (4,), strength=strength, key=jax.random.key(0))
        exact = TwoLayerModes.from_model(model, task, tx.GradientFlow(2.0))
        found = SaddleToSaddle.from_model(model, task, tx.GradientFlow(2.0))
        np.testing.assert_allclose(found.half_rise_times, exact.half_times(), atol=4 * strength)


@pytest.mark.slow
def test_plateaus_are_saddles_of_the_network(getkey):
    s = jnp.asarray([4.0, 2.5, 1.4, 0.7])
    u, v = haar(getkey(), 4, 4, s.dtype), haar(getkey(), 5, 4, s.dtype)
    r = haar(getkey(), 6, 4, s.dtype)
    task = LinearTask((u * s[None, :]) @ v.T, target_power=30.0)
    prediction = SaddleToSaddle.from_model(gaussian((5, 6, 4), scale=1e-4, key=getkey()), task, tx.GradientFlow(2.0))
    for k in range(4):
        learned = jnp.where(jnp.arange(4) < k, jnp.sqrt(s), 0.0)[None, :]
        saddle = DeepLinear(((r * learned) @ v.T, (u * learned) @ r.T))
        flat, unravel = jax.flatten_util.ravel_pytree(saddle)

        def loss(x, unravel=unravel):
            return task.loss(unravel(x))

        assert float(loss(flat)) == pytest.approx(float(prediction.plateau_losses[k]), rel=1e-12)
        assert float(jnp.max(jnp.abs(jax.grad(loss)(flat)))) < 1e-12
        lowest = jnp.linalg.eigvalsh(jax.hessian(loss)(flat))[0]
        assert float(-lowest / 2) == pytest.approx(float(prediction.escape_rates[k]), rel=1e-10)
    assert float(prediction.plateau_losses[4]) == pytest.approx(float(task.floor), rel=1e-12)


@pytest.mark.slow
def test_few_hidden_units_learn_the_largest_modes(getkey):
    task = LinearTask(jnp.diag(jnp.asarray([4.0, 2.5, 1.4, 0.7])))
    model = gaussian((4, 2, 4), scale=1e-3, key=getkey())
    prediction = SaddleToSaddle.from_model(model, task)
    np.testing.assert_allclose(prediction.orders, [0.75, 0.88], rtol=1e-12)
    trained = tx.train(model, task, tx.GradientFlow(), jnp.asarray([30.0])).model
    np.testing.assert_allclose(prediction.reduce(trained).strength, prediction.limit().strength, rtol=1e-6)
    assert float(task.loss(trained)) == pytest.approx(float(prediction.plateau_losses[-1]), rel=1e-6)
    assert float(prediction.plateau_losses[-1]) == pytest.approx((1.4**2 + 0.7**2) / 2, rel=1e-12)


def test_modes_without_signal_are_never_learned(getkey):
    u, v = haar(getkey(), 3, 2, jnp.float64), haar(getkey(), 5, 2, jnp.float64)
    task = LinearTask((u * jnp.asarray([[2.0, 0.5]])) @ v.T)
    prediction = SaddleToSaddle.from_model(gaussian((5, 4, 3), scale=1e-3, key=getkey()), task)
    np.testing.assert_array_equal(jnp.isinf(prediction.half_rise_times), [False, False, True])
    np.testing.assert_allclose(prediction.limit().strength, [2.0, 0.5, 0.0], rtol=1e-12)
    for t in (0.0, 1e3, 1e12, jnp.inf):
        assert jnp.all(jnp.isfinite(prediction.evaluate(t).strength))
    np.testing.assert_array_equal(prediction.evaluate(jnp.inf).strength, prediction.limit().strength)
    assert float(tx.residual(prediction, jnp.asarray([0.0, 2.0, 5.0, 20.0])).worst) < 1e-12


def test_gradient_jit_and_float32():
    def first_time(scale):
        model, task = _reference(scale)
        return SaddleToSaddle.from_model(model, task).half_rise_times[0]

    # Twice the scale is ln 2 / s earlier.
    assert float(jax.jit(jax.grad(first_time))(1e-3)) == pytest.approx(-1e3 / 2.0, rel=1e-10)
    model, task = _reference(1e-3)
    single_model, single_task = jax.tree.map(lambda x: x.astype(jnp.float32), (model, task))
    single = SaddleToSaddle.from_model(single_model, single_task)
    assert single.evaluate(5.0).strength.dtype == jnp.float32
    expected = SaddleToSaddle.from_model(model, task).half_rise_times
    np.testing.assert_allclose(single.half_rise_times, expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("discrete", [False, True])
def test_dependent_units_stay_dependent(discrete, getkey):
    flow = tx.GradientFlow(weight_decay=0.1, rates=jnp.asarray([0.5, 1.0, 2.0]))
    rule = tx.GradientDescent(0.02) if discrete else flow
    covariance = jnp.asarray([[1.0, 0.3, 0.0], [0.3, 2.0, 0.1], [0.0, 0.1, 0.5]])
    task = LinearTask(jax.random.normal(getkey(), (2, 3)) @ covariance, covariance)
    sizes = (3, 6, 6, 2)
    # Units of a hidden layer between two matrices of rank 1 have rank 2.
    model = low_rank(sizes, rank=1, scale=1.0, key=getkey())
    for layer in (1, 2):
        dependences = unit_dependences(hidden_units(model, layer), rank=2)
        assert dependences.shape == (4, 6)
        trained = tx.train(model, task, rule, jnp.asarray([6.0])).model
        assert float(task.loss(trained)) < 0.9 * float(task.loss(model))
        assert float(dependence_violation(dependences, hidden_units(trained, layer))) < 1e-8
        # Something that is no dependence does change.
        moved = unit_dependences(hidden_units(model, layer), rank=1)
        assert float(dependence_violation(moved, hidden_units(trained, layer))) > 1e-3


def test_refuses_what_it_does_not_cover(getkey):
    model, task = _reference(1e-3)
    with pytest.raises(ValueError, match=r"small weights.*FAILS"):
        SaddleToSaddle.from_model(gaussian((2, 3, 2), scale=0.5, key=getkey()), task)
    with pytest.raises(ValueError, match=r"distinct singular values.*FAILS \(violation 1,"):
        SaddleToSaddle.from_model(model, LinearTask(jnp.eye(2)))
    with pytest.raises(ValueError, match=r"whitened inputs.*FAILS"):
        SaddleToSaddle.from_model(model, LinearTask(jnp.eye(2), jnp.diag(jnp.asarray([2.0, 1.0]))))
    with pytest.raises(ValueError, match=r"generic weights.*FAILS"):
        row = 1e-3 * jnp.ones((3, 1))
        SaddleToSaddle.from_model(DeepLinear((row @ jnp.ones((1, 2)), jnp.ones((2, 1)) @ row.T)), task)
    with pytest.raises(ValueError, match="2 layers"):
        SaddleToSaddle.from_model(gaussian((2, 3, 3, 2), scale=1e-3, key=getkey()), task)
    with pytest.raises(ValueError, match="equal rates"):
        SaddleToSaddle.from_model(model, task, tx.GradientFlow(rates=jnp.asarray([1.0, 2.0])))
    with pytest.raises(ValueError, match="no weight decay"):
        SaddleToSaddle.from_model(model, task, tx.GradientFlow(weight_decay=0.1))
    with pytest.raises(ValueError, match="`layer` must be a hidden layer"):
        hidden_units(model, 2)
    with pytest.raises(ValueError, match="`rank` must be between 0 and the number of units, 3; got 4"):
        unit_dependences(hidden_units(model), rank=4)
