"""Jacobian and Fourier probes, the Jacobian in the loss, wrong labels: known answers, estimators, refusals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tractax as tx
from tractax.analysis import (
    centroid_alignment,
    inverse_participation_ratio,
    jacobian_centroid,
    jacobian_norm,
    projected_jacobian_norm,
)
from tractax.deep_linear import DeepLinear, RegressionTask
from tractax.two_layer import JacobianPenalty, TwoLayerNetwork, corrupt_labels, residue_sums, shrunk_map

RNG = np.random.default_rng(0)
MODEL = TwoLayerNetwork(RNG.normal(size=(5, 3)), RNG.normal(size=(4, 5)), "tanh")
INPUTS = jnp.asarray(RNG.normal(size=(6, 3)))


def jacobians():
    """By hand: W₂ diag(1 - tanh²) W₁."""
    w1, w2 = np.asarray(MODEL.first), np.asarray(MODEL.second)
    return np.stack([w2 @ ((1 - np.tanh(w1 @ x) ** 2)[:, None] * w1) for x in np.asarray(INPUTS)])


def test_jacobian():
    expected = jacobians()
    norms = np.linalg.norm(expected, axis=(1, 2))
    assert float(jacobian_norm(MODEL, INPUTS)) == pytest.approx(norms.mean(), rel=1e-13)
    centroids = expected.sum(axis=1)
    np.testing.assert_allclose(jacobian_centroid(MODEL, INPUTS[2]), centroids[2], rtol=1e-12)
    x = np.asarray(INPUTS)
    cosines = np.sum(centroids * x, axis=1) / np.linalg.norm(centroids, axis=1) / np.linalg.norm(x, axis=1)
    np.testing.assert_allclose(centroid_alignment(MODEL, INPUTS), cosines, rtol=1e-12)
    # A linear network of the identity points at every input; nothing points anywhere at zero.
    identity = DeepLinear([np.eye(3)])
    np.testing.assert_allclose(centroid_alignment(identity, jnp.ones((1, 3))), 1.0, rtol=1e-14)
    np.testing.assert_array_equal(centroid_alignment(identity, jnp.zeros((1, 3))), 0.0)


def test_projections():
    # The square of one example's estimate is unbiased, its mean below the norm; many projections converge.
    one, norm = INPUTS[:1], np.linalg.norm(jacobians()[0])
    estimate = jax.jit(jax.vmap(lambda key: projected_jacobian_norm(MODEL, one, projections=2, key=key)))
    found = np.asarray(estimate(jax.random.split(jax.random.key(0), 20_000)))
    error = np.std(found**2) / np.sqrt(found.size)
    assert abs(np.mean(found**2) - norm**2) < 4 * error < 0.05 * norm**2
    assert np.mean(found) < norm
    many = projected_jacobian_norm(MODEL, one, projections=20_000, key=jax.random.key(1))
    assert float(many) == pytest.approx(norm, rel=0.02)


@pytest.mark.slow
def test_penalty():
    task = RegressionTask(INPUTS, np.ones((6, 4)))
    norms = np.linalg.norm(jacobians(), axis=(1, 2))
    penalised = JacobianPenalty(task, INPUTS, 0.3)
    assert float(penalised.loss(MODEL)) == pytest.approx(float(task.loss(MODEL)) + 0.3 * norms.mean(), rel=1e-13)
    batch = penalised.sample(jax.random.key(0), 3)
    expected = float(task.batch_loss(MODEL, batch[0])) + 0.3 * norms[np.asarray(batch[1])].mean()
    assert float(penalised.batch_loss(MODEL, batch)) == pytest.approx(expected, rel=1e-13)
    # A network of zeros has a finite gradient.
    zero = jax.tree.map(lambda w: 0 * w if eqx.is_array(w) else w, MODEL)
    gradient = eqx.filter_jit(eqx.filter_grad(penalised.loss))(zero)
    assert all(jnp.all(jnp.isfinite(g)) for g in jax.tree.leaves(gradient))
    # Single precision stays so.
    single = TwoLayerNetwork(np.ones((2, 6), np.float32), np.ones((3, 2), np.float32))
    sums = residue_sums(3, dtype=jnp.float32)
    assert JacobianPenalty(sums, sums.inputs, 0.1).loss(single).dtype == jnp.float32


def test_shrunk_map():
    target = np.asarray([[3.0, 0.0], [0.0, 4.0]])
    np.testing.assert_allclose(shrunk_map(target, 1.0), 0.8 * target, rtol=1e-15)
    np.testing.assert_array_equal(shrunk_map(target, 6.0), 0 * target)
    np.testing.assert_array_equal(shrunk_map(0 * target, 0.0), 0 * target)
    # It is the minimum: nearby maps are worse.
    best, rng = np.asarray(shrunk_map(target, 1.0)), np.random.default_rng(1)

    def loss(w):
        return np.sum((w - target) ** 2) / 2 + np.linalg.norm(w)

    assert all(loss(best + 0.1 * rng.normal(size=(2, 2))) > loss(best) for _ in range(50))


@pytest.mark.slow
def test_training_with_projections():
    task = RegressionTask(INPUTS, np.ones((6, 4)))
    rule = tx.GradientDescent(0.05, batch_size=4)
    sizes = []
    for strength in (0.0, 1.0):
        penalised = JacobianPenalty(task, INPUTS, strength, projections=2)
        end = tx.train(MODEL, penalised, rule, [20.0], key=jax.random.key(0)).model
        sizes.append(float(jacobian_norm(end, INPUTS)))
    assert sizes[1] < 0.5 * sizes[0]


def test_inverse_participation_ratio():
    assert float(inverse_participation_ratio(jnp.asarray([1.0, 2, 0, 0, 0]))) == pytest.approx(0.65625, rel=1e-13)
    single = jnp.cos(2 * np.pi * 3 * jnp.arange(11.0) / 11 + 0.7)
    spike = jnp.zeros(11).at[4].set(1.0)
    found = inverse_participation_ratio(jnp.stack([single, spike, jnp.zeros(11), 5 + 1e-200 * single]))
    np.testing.assert_allclose(found[:3], [1.0, 2 / 10, 0.0], rtol=1e-12)
    assert jnp.isfinite(found[3])


def test_wrong_labels():
    labels = np.arange(1000) % 7
    for fraction, count in ((0.0, 0), (0.25, 250), (1.0, 1000)):
        found, wrong = corrupt_labels(labels, 7, fraction, key=jax.random.key(0))
        assert int(jnp.sum(wrong)) == count
        np.testing.assert_array_equal(found != labels, wrong)
        assert 0 <= int(jnp.min(found)) and int(jnp.max(found)) < 7
    # All other classes alike: 1000 draws of six.
    shifts = np.bincount((np.asarray(found) - labels) % 7, minlength=7)
    assert shifts[0] == 0 and np.sum((shifts[1:] - 1000 / 6) ** 2 / (1000 / 6)) < 20
    less, fewer = corrupt_labels(labels, 7, 0.1, key=jax.random.key(0))
    assert jnp.all(found[fewer] == less[fewer])


def test_refusals():
    task = RegressionTask(INPUTS, np.ones((6, 4)))
    key = jax.random.key(0)
    for call, message in (
        (lambda: projected_jacobian_norm(MODEL, INPUTS, projections=0, key=key), "`projections` must be a whole"),
        (lambda: projected_jacobian_norm(MODEL, INPUTS, projections=1, key=None), "`key` must be"),
        (lambda: JacobianPenalty(MODEL, INPUTS, 0.1), "`task` must be a task"),
        (lambda: JacobianPenalty(task, INPUTS, -0.1), "`strength` must be non-negative"),
        (lambda: JacobianPenalty(task, INPUTS, np.ones(2)), r"`strength` must be one number; got shape \(2,\)"),
        (lambda: JacobianPenalty(task, INPUTS, 0.1, projections=0), "`projections` must be a whole number"),
        (lambda: corrupt_labels([0, 1], 1, 0.5, key=key), "`classes` must be a whole number of at least 2"),
        (lambda: corrupt_labels([0, 3], 2, 0.5, key=key), "`labels` must be whole numbers from 0 to 1; got"),
        (lambda: corrupt_labels([0, 1], 2, 1.5, key=key), "`fraction` must be at most 1"),
        (lambda: corrupt_labels([0, 1], 2, -0.5, key=key), "`fraction` must be non-negative"),
        (lambda: corrupt_labels([0.5], 2, 0.5, key=key), "`labels` must be whole numbers"),
        (lambda: corrupt_labels([0, 1], 2, 0.5, key=None), "`key` must be"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.slow
def test_catalogue_entry():
    assert tx.verify("jacobian_penalty").passed
