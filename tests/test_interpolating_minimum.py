"""Minima that fit all data: reference values, autodiff of whole networks, bounds, refusals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from jax.flatten_util import ravel_pytree

import tractax as tx
from tractax.deep_linear import DiagonalLinear, RegressionTask, sgd_moment_step, sgd_threshold, sgd_threshold_bounds
from tractax.two_layer import (
    InterpolatingMinimum,
    LeakyReLU,
    TwoLayerNetwork,
    diagonal_hessian_trace,
    noise_alignment,
    rectifier_hessian_trace,
)

REFERENCE = InterpolatingMinimum(jnp.asarray([[1.0, 0.0], [1.0, 1.0]]))


def at_its_own_answers(model, inputs):
    return RegressionTask(inputs, jax.vmap(model)(inputs))


def hessian(model, task):
    params, static = eqx.partition(model, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(params)
    return jax.jit(jax.hessian(lambda w: task.loss(eqx.combine(unravel(w), static))))(flat)


def random_network(activation="relu", hidden=3, inputs=2, seed=0):
    rng = np.random.default_rng(seed)
    return TwoLayerNetwork(rng.normal(size=(hidden, inputs)), rng.normal(size=hidden), activation)


def test_reference_values():
    assert float(REFERENCE.threshold(1)) == pytest.approx(1.1314829081786704, rel=1e-13)
    assert float(REFERENCE.threshold(2)) == pytest.approx(4 / 3, rel=1e-13)
    assert float(REFERENCE.hessian_trace) == 1.5
    assert float(REFERENCE.threshold()) == pytest.approx(2 / 1.3090169943749475, rel=1e-14)
    # All examples without replacement are the full loss; one example is the same either way.
    assert float(REFERENCE.threshold(2, replace=False)) == pytest.approx(float(REFERENCE.threshold()), rel=1e-14)
    assert float(REFERENCE.threshold(1, replace=False)) == float(REFERENCE.threshold(1))
    assert float(REFERENCE.growth(REFERENCE.threshold(2), 2)) == pytest.approx(1, abs=1e-13)


@pytest.mark.slow
def test_trace_of_the_hessian_by_norms():
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(7, 2))
    # Against the Hessian of the whole loss.
    diagonal = DiagonalLinear(rng.normal(size=2), rng.normal(size=2), depth=3)
    found = jnp.trace(hessian(diagonal, at_its_own_answers(diagonal, inputs)))
    assert float(diagonal_hessian_trace(diagonal, inputs)) == pytest.approx(float(found), rel=1e-12)
    model = random_network(LeakyReLU(0.3))
    task = at_its_own_answers(model, inputs)
    found = jnp.trace(hessian(model, task))
    assert float(rectifier_hessian_trace(model, inputs)) == pytest.approx(float(found), rel=1e-12)
    assert float(InterpolatingMinimum.from_model(model, task).hessian_trace) == pytest.approx(float(found), rel=1e-12)
    # Symmetric and isotropic: ±√2 e_k.
    isotropic = 2**0.5 * np.concatenate([np.eye(2), -np.eye(2)])
    by_norms = rectifier_hessian_trace(model)
    assert float(by_norms) == pytest.approx(float(rectifier_hessian_trace(model, isotropic)), rel=1e-12)


@pytest.mark.parametrize("shape", [(5, 9), pytest.param((6, 3), marks=pytest.mark.slow)])
def test_bounds(shape):
    minimum = InterpolatingMinimum(jnp.asarray(np.random.default_rng(2).normal(size=shape)))
    for size, replace in ((1, True), (2, True), (4, True), (2, False), (4, False), (shape[0], False), (None, True)):
        threshold = float(minimum.threshold(size, replace=replace))
        bounds = minimum.bounds(size, replace=replace)
        noise = float(minimum.noise_bound(size, replace=replace))
        assert threshold <= float(bounds.moments) * (1 + 1e-12) <= float(bounds.trace) * (1 + 2e-12)
        assert threshold <= min(noise, float(bounds.full_batch)) * (1 + 1e-12)
    assert float(minimum.noise_bound()) == np.inf
    assert float(minimum.noise_bound(2, alignment=0.5)) == pytest.approx(2 / float(minimum.hessian_norm), rel=1e-12)


def test_two_over_the_learning_rate_can_be_exceeded_by_batches():
    # Equal curvatures in every direction: tr(H) η/2 reaches 2r/(r + 1) for two examples, not 1, and no more.
    minimum = InterpolatingMinimum(jnp.eye(4))
    used = float(minimum.hessian_trace * minimum.threshold(2)) / 2
    assert 1 < used == pytest.approx(2 * 4 / 5, rel=1e-12)
    assert float(minimum.bounds(2).trace) == pytest.approx(float(minimum.threshold(2)), rel=1e-12)


@pytest.mark.slow
def test_noise_along_displacements():
    # The alignment at a displaced network is that of the recursion, and never below the least one.
    model = random_network("tanh", seed=3)
    rng = np.random.default_rng(4)
    inputs = rng.normal(size=(4, 2))
    task = at_its_own_answers(model, inputs)
    minimum = InterpolatingMinimum.from_model(model, task)
    flat, unravel = ravel_pytree(eqx.filter(model, eqx.is_inexact_array))
    a, curvature = np.asarray(minimum.gradients), np.asarray(minimum.gradients.T @ minimum.gradients) / 4
    measure = jax.jit(lambda delta: noise_alignment(eqx.combine(unravel(flat + 1e-7 * delta), model), task))
    for _ in range(20):
        delta = rng.normal(size=flat.shape)
        covariance = np.cov((a * (a @ delta)[:, None]).T, bias=True)
        expected = np.trace(curvature @ covariance) / (delta @ curvature @ delta) / np.sum(curvature**2)
        assert float(measure(delta)) == pytest.approx(expected, rel=1e-5)
        assert expected >= float(minimum.least_alignment)
        # One step adds the noise to what descent leaves.
        after = sgd_moment_step(a, np.outer(delta, delta), 0.3, 1)
        kept = delta - 0.3 * curvature @ delta
        added = float(jnp.trace(curvature @ after)) - kept @ curvature @ kept
        assert added == pytest.approx(0.09 * np.trace(curvature @ covariance), rel=1e-10)
    assert float(minimum.least_alignment) > 0
    assert float(InterpolatingMinimum(jnp.ones((1, 3))).least_alignment) == 0.0


@pytest.mark.slow
def test_many_examples_and_transformations():
    # Against the whole operator in SciPy, with curvatures over four decades.
    a = np.random.default_rng(5).normal(size=(70, 20)) * np.logspace(0, -2, 20)
    h, eye = a.T @ a / 70, np.eye(20)
    single = np.mean([np.kron(np.outer(g, g), np.outer(g, g)) for g in a], axis=0)
    for size in (1, 16):
        diffusion = single / size + (1 - 1 / size) * np.kron(h, h)
        largest = scipy.linalg.eigh(diffusion, np.kron(h, eye) + np.kron(eye, h), eigvals_only=True)[-1]
        assert float(sgd_threshold(a, size)) == pytest.approx(1 / largest, rel=1e-10)
    wide = np.random.default_rng(6).normal(size=(120, 200))
    assert 0.5 * sgd_threshold_bounds(wide, 4).moments < sgd_threshold(wide, 4) <= sgd_threshold_bounds(wide, 4).moments
    single = jnp.asarray(a, jnp.float32)
    assert sgd_threshold(single, 1).dtype == jnp.float32
    assert float(sgd_threshold(single, 1)) == pytest.approx(float(sgd_threshold(a, 1)), rel=1e-4)
    both = jnp.stack([REFERENCE.gradients, 2 * REFERENCE.gradients])
    found = jax.jit(jax.vmap(lambda a: InterpolatingMinimum(a).threshold(2, replace=False)))(both)
    np.testing.assert_allclose(found, [1.5278640450004206, 1.5278640450004206 / 4], rtol=1e-12)


def test_single_steps_and_flat_directions():
    # One example: the step of learning rate 1/|g|² ends at the minimum, whatever lies off the gradient.
    lone = InterpolatingMinimum(jnp.asarray([[2.0, 0.0, 0.0]]))
    assert float(lone.growth(0.25, 1)) == pytest.approx(0.0, abs=1e-12)
    assert float(lone.threshold(1, replace=False)) == pytest.approx(0.5, rel=1e-14)
    assert float(lone.noise_bound(1)) == np.inf
    # Any unit of the parameters will do, in single precision too.
    for unit, dtype in ((1e-60, jnp.float64), (1e60, jnp.float64), (1e-15, jnp.float32)):
        scaled = InterpolatingMinimum(unit * REFERENCE.gradients.astype(dtype))
        assert float(scaled.threshold(2)) * unit**2 == pytest.approx(4 / 3, rel=1e-6)


def test_refusals():
    model = random_network()
    task = at_its_own_answers(model, np.ones((2, 2)))
    off = RegressionTask(task.inputs, task.targets + 0.1)
    for call, message in (
        (lambda: InterpolatingMinimum.from_model(model, off), "interpolation, f.*FAILS"),
        (lambda: InterpolatingMinimum.from_model(model, None), "`task` must be a RegressionTask; got NoneType"),
        (lambda: InterpolatingMinimum.from_model(model, RegressionTask(np.ones((2, 2)), np.ones((2, 2)))), "one target"),
        (lambda: REFERENCE.threshold(3, replace=False), "`batch_size` must be at most the 2 examples"),
        (lambda: REFERENCE.threshold(0), "`batch_size` must be a whole number"),
        (lambda: REFERENCE.noise_bound(1, alignment=-1.0), "`alignment` must be non-negative"),
        (lambda: diagonal_hessian_trace(model, task.inputs), "`model` must be a DiagonalLinear"),
        (lambda: rectifier_hessian_trace(random_network("tanh")), "leaky rectifier units"),
        (lambda: rectifier_hessian_trace(model, np.ones((2, 3))), "`inputs` must have shape"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert InterpolatingMinimum.from_model(model, off, check=False).gradients.shape == (2, 9)


@pytest.mark.slow
def test_catalogue_entry():
    assert tx.verify("interpolating_minimum").passed
