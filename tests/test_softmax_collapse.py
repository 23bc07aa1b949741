"""StableMax and the collapse of softmax: reference values, thresholds, tasks, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tractax as tx
from tractax.analysis import collapse_gap, softmax_collapse
from tractax.rules import radial_alignment
from tractax.special import log_stablemax, stablemax
from tractax.two_layer import CrossEntropyTask, TwoLayerNetwork, residue_sums


def test_reference_values():
    scores = jnp.asarray([2.0, -1.0, 0.5])
    np.testing.assert_allclose(stablemax(scores), [0.6, 0.1, 0.3], rtol=1e-15)
    assert float(-log_stablemax(scores)[0]) == pytest.approx(0.5108256237659907, rel=1e-15)
    assert collapse_gap(jnp.float32) == pytest.approx(16.6355, abs=1e-4)
    assert collapse_gap(jnp.float64) == pytest.approx(36.7368, abs=1e-4)


def test_stablemax():
    rng = np.random.default_rng(0)
    x = 5 * rng.normal(size=(3, 6))
    s = np.where(x >= 0, x + 1, 1 / (1 - np.minimum(x, 0)))
    np.testing.assert_allclose(stablemax(x, axis=0), s / s.sum(axis=0), rtol=1e-14)
    # s has slope 1 on both sides of zero, and the poles at ±1 of the branch not taken leave no NaN.
    slopes = jax.jacobian(lambda x: log_stablemax(x))(jnp.asarray([0.0, 1.0, -1.0]))
    stretch = np.diag([1.0, 0.5, 0.5])
    expected = (np.eye(3) - np.asarray(stablemax(np.asarray([0.0, 1.0, -1.0])))[None, :]) @ stretch
    np.testing.assert_allclose(slopes, expected, rtol=1e-14)
    huge = jnp.asarray([1e300, -1e300, 0.0])
    assert jnp.all(jnp.isfinite(log_stablemax(huge)))
    np.testing.assert_allclose(log_stablemax(huge)[1], -600 * np.log(10), rtol=1e-14)
    assert stablemax(jnp.ones(2, jnp.float32)).dtype == jnp.float32


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_where_softmax_collapses(dtype):
    gap = collapse_gap(dtype)
    below, above = (jnp.asarray([[g, 0.0], [g, 0.0]], dtype) for g in (gap - 0.14, gap + 0.36))
    assert float(softmax_collapse(below)) == 0.0
    assert float(softmax_collapse(above)) == 1.0
    assert float(softmax_collapse(jnp.concatenate([below, above])[1:])) == pytest.approx(2 / 3, rel=1e-6)
    # It is where the loss of the right answer is exactly zero, which StableMax's is only for astronomic scores.
    assert not jnp.any(jax.nn.log_softmax(above)[:, 0]) and jnp.all(jax.nn.log_softmax(below)[:, 0] < 0)
    assert jnp.all(log_stablemax(100 * above)[:, 0] < 0)
    assert float(softmax_collapse(above - 1000)) == 1.0


def test_task():
    rng = np.random.default_rng(1)
    inputs, labels = rng.normal(size=(5, 3)), np.asarray([0, 2, 1, 2, 0])
    model = TwoLayerNetwork(rng.normal(size=(4, 3)), rng.normal(size=(3, 4)))
    scores = np.maximum(inputs @ np.asarray(model.first).T, 0) @ np.asarray(model.second).T
    own = scores[np.arange(5), labels]
    task = CrossEntropyTask(inputs, labels)
    expected = np.mean(np.log(np.sum(np.exp(scores), axis=1)) - own)
    loss, accuracy, collapse = jax.jit(lambda m: (task.loss(m), task.accuracy(m), task.collapse(m)))(model)
    assert float(loss) == pytest.approx(expected, rel=1e-13)
    assert float(accuracy) == np.mean(np.argmax(scores, axis=1) == labels) and float(collapse) == 0.0
    s = np.where(scores >= 0, scores + 1, 1 / (1 - np.minimum(scores, 0)))
    stable = CrossEntropyTask(inputs, labels, "stablemax")
    assert float(stable.loss(model)) == pytest.approx(
        np.mean(-np.log(s[np.arange(5), labels] / s.sum(axis=1))), rel=1e-13
    )
    assert float(task.batch_loss(model, jnp.arange(5))) == pytest.approx(expected, rel=1e-13)
    # An example whose right score leads by far is lost, a wrong one by far is not.
    far = CrossEntropyTask(np.eye(2), [0, 0])
    assert float(far.collapse(TwoLayerNetwork(50 * np.eye(2), np.eye(2)))) == 0.5
    drawn = task.sample(jax.random.key(0), 100)
    assert drawn.shape == (100,) and set(np.asarray(drawn)) == set(range(5))


@pytest.mark.slow
def test_scaling_up_is_what_lowers_a_fitted_loss():
    # Euler's theorem for rectifiers of two layers: w·∇f = 2f, so that w·∇L = -2 × mean margin-weighted error.
    rng = np.random.default_rng(2)
    task = residue_sums(3)
    model = TwoLayerNetwork(rng.normal(size=(8, 6)), rng.normal(size=(3, 8)))
    gradient = jax.jit(jax.grad(task.loss))(model)
    radial = sum(jnp.vdot(w, g) for w, g in zip(jax.tree.leaves(model), jax.tree.leaves(gradient), strict=True))
    scores = np.asarray(task.logits(model))
    wrong = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True) - np.eye(3)[np.asarray(task.labels)]
    assert float(radial) == pytest.approx(2 * np.mean(np.sum(wrong * scores, axis=1)), rel=1e-12)
    sizes = [np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(tree))) for tree in (model, gradient)]
    assert float(radial_alignment(model, task)) == pytest.approx(-float(radial) / np.prod(sizes), rel=1e-12)
    assert float(radial_alignment(jax.tree.map(jnp.zeros_like, model), task)) == 0.0


def test_sums_of_residues():
    task = residue_sums(4, "stablemax", dtype=jnp.float32)
    assert task.inputs.dtype == jnp.float32 and task.inputs.shape == (16, 8) and task.probabilities == "stablemax"
    x, y = (np.argmax(np.asarray(half), axis=1) for half in (task.inputs[:, :4], task.inputs[:, 4:]))
    np.testing.assert_array_equal(task.labels, (x + y) % 4)
    assert len(set(zip(x, y, strict=True))) == 16


def test_refusals():
    narrow = TwoLayerNetwork(np.ones((1, 2)), np.ones((2, 1)))
    for call, message in (
        (lambda: CrossEntropyTask(np.eye(2), [0, 1, 0]), "`labels` must be as many as the 2 examples; got 3"),
        (lambda: CrossEntropyTask(np.eye(2), [0.0, 1.0]), "`labels` must be whole numbers from 0"),
        (lambda: CrossEntropyTask(np.eye(2), [0, -1]), "`labels` must be whole numbers from 0"),
        (lambda: CrossEntropyTask(np.eye(2), [0, 1], "sigmoid"), "`probabilities` must be one of softmax, stablemax"),
        (lambda: CrossEntropyTask(np.eye(2), [0, 2]).loss(narrow), "`model` must return a score for every class"),
        (lambda: softmax_collapse(jnp.ones((2, 0))), "`logits` must have at least one class"),
        (lambda: collapse_gap(jnp.int32), "`dtype` must be a floating-point type"),
        (lambda: residue_sums(2), "`p` must be a whole number of at least 3"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.slow
def test_catalogue_entry():
    assert tx.verify("softmax_collapse").passed
