"""Rectifiers on Gaussian inputs: reference values, quadrature, parallel vectors, the late rates, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

import tractax as tx
from tractax.two_layer import GaussianReLUTask, ReLUUnitFlow, TwoLayerNetwork, arc_cosine, arc_cosine_gradient

W, V = np.asarray([1.0, -0.5, 0.3]), np.asarray([0.2, 0.7, -0.4])
value, gradient = jax.jit(arc_cosine), jax.jit(jax.grad(arc_cosine))
KEPT = tx.GradientFlow(rates=jnp.asarray([1.0, 0.0]))


def at(length, angle, readout=1.0):
    return TwoLayerNetwork(length * np.asarray([[np.cos(angle), np.sin(angle)]]), np.asarray([readout]))


TASK = GaussianReLUTask(at(1.0, 0.0))


def test_reference_values():
    found = arc_cosine_gradient(np.asarray([1.0, 0.0]), np.asarray([0.6, 0.8]))
    np.testing.assert_allclose(found, [0.3387737838832563, 0.28193310587965337], rtol=1e-14)
    solution = ReLUUnitFlow.from_model(at(0.5, 2.0), TASK, KEPT, t1=60.0)
    state = solution.evaluate(5.0)
    found = [state.length, state.angle, solution.loss(5.0)]
    np.testing.assert_allclose(found, [0.8441811038719891, 0.11738233600965736, 0.008902121566378096], rtol=1e-9)
    assert float(state.readout) == 1.0
    # Late rates: the angle falls by e^{-t/2}, and so does the length's distance.
    late = jax.vmap(solution.evaluate)(jnp.asarray([30.0, 32.0]))
    np.testing.assert_allclose(late.angle[1] / late.angle[0], np.exp(-1), rtol=1e-4)
    np.testing.assert_allclose((1 - late.length[1]) / (1 - late.length[0]), np.exp(-1), rtol=1e-4)


def test_averages_by_quadrature():
    # In the plane of the two vectors: radius in closed form, angle by SciPy.
    _, r = np.linalg.qr(np.stack([W, V], axis=1))

    def product(phi):
        direction = np.asarray([np.cos(phi), np.sin(phi)])
        return np.maximum(r[:, 0] @ direction, 0) * np.maximum(r[:, 1] @ direction, 0)

    kinks = sorted((np.arctan2(*c[::-1]) + s) % (2 * np.pi) for c in r.T for s in (np.pi / 2, -np.pi / 2))
    expected = scipy.integrate.quad(product, 0, 2 * np.pi, points=kinks, epsabs=1e-13)[0] * 2 / (2 * np.pi)
    assert float(value(W, V)) == pytest.approx(expected, rel=1e-12)
    # The derivative by AD is the average that it should be: w·g = J, and symmetric arguments.
    assert W @ gradient(W, V) == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(gradient(W, V), arc_cosine_gradient(W, V), rtol=1e-14)
    for k in range(3):
        step = 1e-5 * np.eye(3)[k]
        slope = float(value(W + step, V) - value(W - step, V)) / 2e-5
        assert float(gradient(W, V)[k]) == pytest.approx(slope, rel=1e-8)


def test_parallel_opposite_and_zero_vectors():
    np.testing.assert_allclose(gradient(W, W), W / 2, rtol=1e-15)
    np.testing.assert_allclose(gradient(W, 3 * W), 3 * W / 2, rtol=1e-15)
    np.testing.assert_allclose(gradient(W, -W), 0.0, atol=1e-16)
    assert float(value(W, W)) == pytest.approx(W @ W / 2, rel=1e-15)
    assert float(value(W, -W)) == pytest.approx(0.0, abs=1e-16)
    np.testing.assert_array_equal(gradient(0 * W, V), 0.0)
    np.testing.assert_array_equal(gradient(W, 0 * V), 0.0)
    curvature = jax.jacobian(jax.grad(lambda w: arc_cosine(w, w)))
    np.testing.assert_allclose(curvature(W), np.eye(3), atol=1e-14)
    # Almost parallel: J = w·v/2 + |w||v|θ³/6π, where an arc cosine would have lost θ.
    across = np.asarray([0.5, 1.0, 0.0])
    for angle in (1e-3, 1e-7):
        v = np.cos(angle) * W / np.linalg.norm(W) + np.sin(angle) * across / np.linalg.norm(across)
        found = gradient(W, v) - v / 2
        expected = -(angle**2) / (2 * np.pi) * across / np.linalg.norm(across)
        np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-10)
    single = gradient(jnp.asarray(W, jnp.float32), jnp.asarray(V, jnp.float32))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, gradient(W, V), rtol=1e-5)


@pytest.mark.slow
def test_population_loss():
    teacher = TwoLayerNetwork([[1.0, 0.2], [-0.3, 0.8]], [[1.0, -0.5], [0.3, 0.2]])
    student = TwoLayerNetwork([[0.5, 0.6], [0.1, -0.9], [1.0, 0.2]], [[0.7, 0.2, -0.4], [0.1, 0.5, 0.3]])
    task = GaussianReLUTask(teacher)
    inputs, answers = task.sample(jax.random.key(0), 200_000)
    errors = jnp.sum((jax.vmap(student)(inputs) - answers) ** 2, axis=1) / 2
    exact = float(task.loss(student))
    assert exact == pytest.approx(float(jnp.mean(errors)), abs=4 * float(jnp.std(errors)) / len(errors) ** 0.5)
    assert exact == pytest.approx(float(task.batch_loss(student, (inputs, answers))), rel=0.02)
    # By the angle alone, since the networks are homogeneous: E r² = 2.
    phi = (np.arange(20000) + 0.5) * 2 * np.pi / 20000
    circle = jnp.asarray(np.stack([np.cos(phi), np.sin(phi)], axis=1))
    mean = jnp.mean(jnp.sum((jax.vmap(student)(circle) - jax.vmap(teacher)(circle)) ** 2, axis=1))
    assert exact == pytest.approx(float(mean), rel=1e-7)
    # At the teacher itself, where every unit has a parallel one.
    loss, slope = jax.value_and_grad(task.loss)(teacher)
    assert abs(float(loss)) < 1e-15
    assert all(jnp.all(jnp.abs(g) < 1e-15) for g in jax.tree.leaves(slope))


def test_opposite_units_and_limits():
    opposite = ReLUUnitFlow.from_model(at(0.5, 0.0), GaussianReLUTask(at(1.0, np.pi)), KEPT, t1=60.0)
    state = opposite.evaluate(4.0)
    assert float(state.angle) == pytest.approx(np.pi, rel=1e-14)
    assert float(state.length) == pytest.approx(0.5 * np.exp(-2.0), rel=1e-9)
    assert float(ReLUUnitFlow.from_model(at(0.5, 2.0, 0.7), TASK, t1=60.0).limit().readout) == pytest.approx(
        (((0.7**2 - 0.25) + ((0.7**2 - 0.25) ** 2 + 4) ** 0.5) / 2) ** 0.5, rel=1e-12
    )
    wrong = ReLUUnitFlow.from_model(at(0.5, 2.0, -0.7), TASK, KEPT, t1=2.0)
    with pytest.raises(ValueError, match="does not find it"):
        wrong.limit()
    with pytest.raises(ValueError, match="horizon"):
        wrong.evaluate(2.1)


def test_refusals():
    def flow(model, task=TASK, rule=None, t1=1.0):
        return ReLUUnitFlow.from_model(model, task, rule, t1=t1)

    here, two = at(1.0, 1.0), TwoLayerNetwork(np.eye(2), np.ones(2))
    for call, message in (
        (lambda: GaussianReLUTask(np.eye(2)), "`teacher` must be a TwoLayerNetwork"),
        (lambda: GaussianReLUTask(TwoLayerNetwork([[1.0]], [1.0], "tanh")), "`teacher` must have rectifier units"),
        (lambda: GaussianReLUTask(TwoLayerNetwork([[1.0]], [1.0], bias=[1.0])), "`teacher` must have rectifier units"),
        (lambda: TASK.loss(TwoLayerNetwork([[1.0]], [1.0])), "`model` must have 2 inputs and 1 outputs"),
        (lambda: TASK.loss(TwoLayerNetwork([[1.0, 0.0]], [1.0], "linear")), "`model` must have relu units"),
        (lambda: flow(at(0.0, 0.0)), "weights that are not zero"),
        (lambda: flow(two), "`model` must have one hidden unit"),
        (lambda: flow(here, GaussianReLUTask(two)), "`teacher` must have one hidden unit"),
        (lambda: flow(here, rule=tx.GradientFlow(weight_decay=1.0)), "no weight decay"),
        (lambda: flow(here, rule=tx.GradientFlow(rates=jnp.ones(3))), "a rate for each"),
        (lambda: flow(here, t1=-1.0), "`t1` must be positive"),
        (lambda: flow(here, tx.deep_linear.LinearTask(np.eye(2))), "`task` must be a GaussianReLUTask"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
