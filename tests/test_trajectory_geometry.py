"""Principal components of trajectories against NumPy, commutators of steps, alignment against chance, refusals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import tractax as tx
from tractax.analysis import gradient_bracket, step_commutator, subspace_alignment, trajectory_pca
from tractax.transformers import InContextRegression, gaussian_separate_attention

pca = eqx.filter_jit(trajectory_pca)
alignment = eqx.filter_jit(subspace_alignment)


def quadratic(theta, batch):
    hessian, linear = batch
    return theta @ hessian @ theta / 2 + linear @ theta


def fit(network, batch):
    inputs, targets = batch
    return jnp.mean((jax.vmap(network)(inputs) - targets) ** 2) / 2


def network_and_batches():
    keys = jax.random.split(jax.random.key(0), 5)
    network = eqx.nn.MLP(3, 2, 4, 1, activation=jnp.tanh, key=keys[0])
    batches = [(jax.random.normal(keys[i], (6, 3)), jax.random.normal(keys[i + 1], (6, 2))) for i in (1, 3)]
    return network, *batches


def test_reference_value():
    a, b = jnp.diag(jnp.asarray([1.0, 2.0])), jnp.asarray([[1.0, 0.5], [0.5, 1.0]])
    none = jnp.zeros(2)
    np.testing.assert_allclose(step_commutator(jnp.ones(2), quadratic, (a, none), (b, none), 0.1), [0.005, -0.005])
    np.testing.assert_allclose(gradient_bracket(jnp.ones(2), quadratic, (a, none), (b, none)), [0.5, -0.5])


@pytest.mark.slow
def test_commutator_of_quadratic_losses_is_the_bracket_at_any_rate(getkey):
    keys = jax.random.split(getkey(), 5)
    hessians = [x + x.T for x in jax.random.normal(keys[0], (2, 4, 4))]
    linear, theta = jax.random.normal(keys[1], (2, 4)), jax.random.normal(keys[2], (4,))
    first, second = zip(hessians, linear, strict=True)
    bracket = gradient_bracket(theta, quadratic, first, second)
    expected = hessians[1] @ (hessians[0] @ theta + linear[0]) - hessians[0] @ (hessians[1] @ theta + linear[1])
    np.testing.assert_allclose(bracket, expected, rtol=1e-12)
    for rate in (0.01, 3.0):
        commutator = step_commutator(theta, quadratic, first, second, rate)
        np.testing.assert_allclose(commutator, rate**2 * bracket, rtol=1e-9, atol=1e-14)
    # Batches whose Hessians and gradients commute: the order does not matter.
    same = step_commutator(theta, quadratic, first, first, 0.1)
    np.testing.assert_array_equal(same, 0.0)
    assert jnp.isnan(subspace_alignment(same, jnp.eye(4)).share)


def test_bracket_against_whole_hessians():
    network, first, second = network_and_batches()
    params, static = eqx.partition(network, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(params)

    def derivatives(batch):
        def value(vector):
            return fit(eqx.combine(unravel(vector), static), batch)

        return jax.grad(value)(flat), jax.hessian(value)(flat)

    (g1, h1), (g2, h2) = (jax.jit(derivatives)(batch) for batch in (first, second))
    bracket = eqx.filter_jit(gradient_bracket)(network, fit, first, second)
    np.testing.assert_allclose(ravel_pytree(bracket)[0], h2 @ g1 - h1 @ g2, rtol=1e-10, atol=1e-14)
    # The tree is that of the trainable arrays, so that it can be added to the network.
    assert eqx.apply_updates(network, bracket).layers[0].weight.shape == (4, 3)
    assert jax.tree.structure(bracket) == jax.tree.structure(params)


def test_remainder_is_of_the_next_order():
    network, first, second = network_and_batches()
    leading = ravel_pytree(gradient_bracket(network, fit, first, second))[0]

    @jax.jit
    def remainder(rate):
        commutator = ravel_pytree(step_commutator(network, fit, first, second, rate))[0]
        return jnp.linalg.norm(commutator / rate**2 - leading) / jnp.linalg.norm(leading)

    found = tx.scaling(lambda rate: remainder(jnp.asarray(rate)), (0.1, 0.03, 0.01, 0.003), correction=1.0)
    assert found.contains(1.0) and float(found.interval[1] - found.interval[0]) < 0.05


def test_commutator_is_what_training_does():
    # Two steps of tx.train on two data sets, in both orders.
    network, first, second = network_and_batches()

    class OneBatch(tx.AbstractTask):
        batch: tuple

        def loss(self, model):
            return fit(model, self.batch)

    def trained(model, batch):
        return tx.train(model, OneBatch(batch), tx.GradientDescent(0.05), jnp.asarray([0.05])).model

    forth, back = trained(trained(network, first), second), trained(trained(network, second), first)
    expected = jax.tree.map(jnp.subtract, *(eqx.filter(x, eqx.is_inexact_array) for x in (forth, back)))
    commutator = step_commutator(network, fit, first, second, 0.05)
    np.testing.assert_allclose(ravel_pytree(commutator)[0], ravel_pytree(expected)[0], atol=1e-15)


@pytest.mark.slow
def test_sampled_task_of_attention():
    task = InContextRegression(jnp.diag(jnp.asarray([0.6, 0.4])), length=5)
    model = gaussian_separate_attention(2, 2, scale=0.4, key=jax.random.key(0))
    batches = [task.sample(key, 4) for key in jax.random.split(jax.random.key(1))]

    @jax.jit
    def both(rate):
        return gradient_bracket(model, task.batch_loss, *batches), step_commutator(model, task.batch_loss, *batches, rate)

    bracket, commutator = (ravel_pytree(tree)[0] for tree in both(jnp.asarray(1e-3)))
    np.testing.assert_allclose(commutator * 1e6, bracket, atol=2e-3 * float(jnp.max(jnp.abs(bracket))))


def test_components_against_numpy(getkey):
    rows = np.asarray(jax.random.normal(getkey(), (7, 5))) * np.asarray([3.0, 1.0, 0.5, 0.1, 0.01])
    recorded = {"bias": jnp.asarray(rows[:, 0]), "weight": jnp.asarray(rows[:, 1:].reshape(7, 2, 2)), "name": "layer"}
    found = pca(recorded)
    centred = rows - rows.mean(axis=0)
    left, singular, right = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(found.singular_values, singular, rtol=1e-8)
    directions = np.concatenate([found.directions["bias"][:, None], found.directions["weight"].reshape(5, 4)], axis=1)
    np.testing.assert_allclose(directions @ directions.T, np.eye(5), atol=1e-8)
    np.testing.assert_allclose(np.abs(np.sum(directions * right, axis=1)), 1.0, rtol=1e-10)
    np.testing.assert_allclose(found.scores @ directions, centred, atol=1e-8)
    np.testing.assert_allclose(np.abs(found.scores), np.abs(left * singular), atol=1e-8)
    assert float(found.participation_ratio) == pytest.approx(np.sum(singular**2) ** 2 / np.sum(singular**4), rel=1e-12)
    for share in (0.5, 0.9, 0.95, 0.99, 0.9999):
        held = np.cumsum(singular**2) / np.sum(singular**2)
        assert int(found.dimension(share)) == int(np.argmax(held >= share)) + 1
    assert found.leading(2)["weight"].shape == (2, 2, 2)


@pytest.mark.slow
def test_lines_circles_and_constants():
    # More parameters than checkpoints: a straight line has one component, a circle two equal ones.
    times, axes = jnp.linspace(0.0, 1.0, 9), np.linalg.qr(np.random.default_rng(0).normal(size=(40, 2)))[0]
    line = pca(times[:, None] * axes[None, :, 0] + 5.0)
    assert int(line.dimension(0.999)) == 1 and float(line.participation_ratio) == pytest.approx(1.0, rel=1e-12)
    assert line.singular_values.shape == (8,) and jnp.all(jnp.isfinite(line.directions))
    angle = 2 * np.pi * np.arange(12) / 12
    circle = pca(jnp.asarray(np.stack([np.cos(angle), np.sin(angle)], axis=1) @ axes.T))
    assert float(circle.participation_ratio) == pytest.approx(2.0, rel=1e-12)
    assert int(circle.dimension(0.4)) == 1 and int(circle.dimension(0.9)) == 2
    still = pca(jnp.ones((4, 3)))
    assert int(still.dimension()) == 0 and jnp.isnan(still.participation_ratio)
    assert jnp.all(still.directions == 0)
    single = pca(jnp.asarray(np.stack([np.cos(angle), np.sin(angle)], axis=1), jnp.float32))
    assert single.directions.dtype == jnp.float32 == single.explained.dtype
    # A rotation changes nothing.
    assert float(trajectory_pca(circle.scores).participation_ratio) == pytest.approx(2.0, rel=1e-12)


def test_alignment():
    vector = {"a": jnp.asarray([3.0, 0.0]), "b": jnp.asarray([[4.0]])}
    along = {"a": jnp.asarray([[2.0, 0.0], [1e-3, 0.0], [0.0, 0.0]]), "b": jnp.zeros((3, 1, 1))}
    # Parallel and vanishing directions span one dimension of three.
    found = alignment(vector, along)
    assert float(found.share) == pytest.approx(9 / 25, rel=1e-14) and float(found.baseline) == pytest.approx(1 / 3)
    assert float(found.ratio) == pytest.approx(27 / 25, rel=1e-14)
    oblique = {"a": jnp.asarray([[1.0, 1.0], [1.0, -1.0]]), "b": jnp.asarray([[[1.0]], [[1.0]]])}
    rows = np.asarray([[1, 1, 1], [1, -1, 1.0]])
    projector = np.linalg.pinv(rows) @ rows
    target = np.asarray([3.0, 0.0, 4.0])
    assert float(alignment(vector, oblique).share) == pytest.approx(target @ projector @ target / 25, rel=1e-13)
    # Tiny vectors are as good as others; none at all is not.
    tiny = jax.tree.map(lambda x: 1e-200 * x, vector)
    assert float(alignment(tiny, along).share) == pytest.approx(9 / 25, rel=1e-14)
    assert jnp.isnan(alignment(vector, jax.tree.map(jnp.zeros_like, along)).ratio)


def test_random_vectors_align_by_chance(getkey):
    directions = jax.random.normal(getkey(), (5, 40))
    shares = jax.vmap(lambda v: alignment(v, directions).share)(jax.random.normal(getkey(), (4000, 40)))
    error = float(jnp.std(shares)) / 4000**0.5
    assert abs(float(jnp.mean(shares)) - 5 / 40) < 4 * error


def test_refusals():
    network, first, second = network_and_batches()
    for call, message in (
        (lambda: step_commutator(network, fit, first, second, 0.0), "`learning_rate` must be positive"),
        (lambda: step_commutator(network, fit, first, second, jnp.nan), "`learning_rate` must be finite"),
        (lambda: gradient_bracket(eqx.nn.Identity(), fit, first, second), "`model` must have trainable arrays"),
        (lambda: gradient_bracket(network, lambda m, b: m(b[0][0]), first, second), "`loss` must return a number"),
        (lambda: trajectory_pca(jnp.ones((1, 3))), "at least two times"),
        (lambda: trajectory_pca({"a": jnp.ones((3, 3)), "b": jnp.ones((2, 3))}), "at least two times"),
        (lambda: trajectory_pca({"name": "none"}), "at least two times"),
        (lambda: trajectory_pca(jnp.asarray([[1.0], [jnp.inf]])), "`recorded` must be finite"),
        (lambda: trajectory_pca(jnp.eye(3)).dimension(1.0), "`share` must lie between 0 and 1"),
        (lambda: trajectory_pca(jnp.eye(3)).leading(3), "`number` must be between 1 and 2"),
        (lambda: subspace_alignment(jnp.ones(3), jnp.ones((2, 4))), "`directions` must be like `vector`"),
        (lambda: subspace_alignment(jnp.ones(3), (jnp.ones((2, 3)),)), "`directions` must be like `vector`"),
        (lambda: subspace_alignment({}, {}), "`directions` must be like `vector`"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
