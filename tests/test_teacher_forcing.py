"""Generalised teacher forcing: reference values, differences, bounds and when they are reached, training, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import tractax as tx
from tractax.systems.teacher_student._teacher_forcing import by_differentiation, lozi, lozi_sequence, networks
from tractax.teacher_student import (
    PLRNN,
    ForcedSequenceTask,
    LinearClassifier,
    ShallowPLRNN,
    critical_forcing,
    forced_rollout,
    forced_sensitivity,
    forced_states,
    largest_jacobian_norm,
    sensitivity_bound,
)

TRUTH = jax.random.normal(jax.random.key(3), (12, 2))


def small():
    linear, weights = jnp.asarray([[0.6, -0.8], [0.5, 1.1]]), jnp.asarray([[-0.7, 0.4], [0.3, -0.9]])
    return PLRNN(linear, weights, jnp.asarray([0.2, -0.1]))


def test_reference_values():
    linear = PLRNN(jnp.asarray([[0.6, -0.8], [0.5, 1.1]]), jnp.zeros((2, 2)))
    norm = largest_jacobian_norm(linear)
    assert float(norm) == pytest.approx(1.3615943226939, rel=1e-12)
    assert float(critical_forcing(norm)) == pytest.approx(0.2655668554629, rel=1e-12)


def test_steps_by_hand():
    model, z = small(), TRUTH[0]
    shallow = ShallowPLRNN(model.linear, model.weights, jnp.eye(2), model.bias)
    for network in (model, shallow):
        x = np.array([0.3, -0.4])
        states = [x]
        for target in np.asarray(TRUTH):
            y = 0.7 * x + 0.3 * target
            x = np.asarray(model.linear) @ y + np.asarray(model.weights) @ np.maximum(y, 0) + np.asarray(model.bias)
            states.append(x)
        np.testing.assert_allclose(forced_rollout(network, jnp.asarray([0.3, -0.4]), TRUTH, 0.3), states, rtol=1e-12)
        np.testing.assert_allclose(network.jacobian(z), jax.jacfwd(network)(z), rtol=1e-15)
    # A unit at zero counts as inactive, as automatic differentiation has it.
    np.testing.assert_allclose(model.jacobian(jnp.zeros(2)), model.linear)
    np.testing.assert_allclose(jax.jacrev(model)(jnp.zeros(2)), model.linear)


def test_sensitivity_against_differences():
    # Two units, twelve steps: as central differences of the rollout see it.
    model, start = small(), jnp.asarray([0.3, -0.4])
    predicted = forced_sensitivity(model, start, TRUTH, 0.2)
    step = 1e-6

    def last(z):
        return forced_rollout(model, z, TRUTH, 0.2)[-1]

    columns = [(last(start + step * e) - last(start - step * e)) / (2 * step) for e in jnp.eye(2)]
    np.testing.assert_allclose(predicted[0], jnp.stack(columns, axis=1), atol=1e-9)
    np.testing.assert_array_equal(predicted[-1], jnp.eye(2))
    final = forced_states(model, start, TRUTH, 0.2)[-1]
    np.testing.assert_allclose(predicted[-2], 0.8 * model.jacobian(final), rtol=1e-14)


@pytest.mark.slow
def test_sensitivity_against_automatic_differentiation():
    truth = jax.random.normal(jax.random.key(1), (9, 4))
    model = networks()[1]
    predicted = forced_sensitivity(model, truth[0], truth, 0.25)
    np.testing.assert_allclose(predicted, by_differentiation(model, truth, 0.25), rtol=1e-12, atol=1e-12)


def test_bounds():
    model, start, steps = small(), TRUTH[0], jnp.arange(12.0, -1.0, -1.0)
    everywhere = largest_jacobian_norm(model)
    a, w = np.asarray(model.linear), np.asarray(model.weights)
    patterns = [a + w * np.array(p) for p in ([0, 0], [0, 1], [1, 0], [1, 1])]
    assert float(everywhere) == pytest.approx(max(np.linalg.norm(p, 2) for p in patterns), rel=1e-12)
    for forcing in (0.0, 0.5, float(critical_forcing(everywhere)), 1.0):
        visited = largest_jacobian_norm(model, forced_states(model, start, TRUTH, forcing))
        sizes = jnp.linalg.norm(forced_sensitivity(model, start, TRUTH, forcing), ord=2, axis=(1, 2))
        tight, loose = sensitivity_bound(visited, forcing, steps), sensitivity_bound(everywhere, forcing, steps)
        assert jnp.all(sizes <= tight * (1 + 1e-12)) and jnp.all(tight <= loose * (1 + 1e-12))
    np.testing.assert_allclose(sensitivity_bound(everywhere, critical_forcing(everywhere), steps), 1.0, rtol=1e-12)
    assert float(critical_forcing(0.8)) == 0.0 and float(critical_forcing(0.0)) == 0.0
    assert float(sensitivity_bound(2.0, 1.0, 3)) == 0.0 and float(sensitivity_bound(2.0, 1.0, 0)) == 1.0


def test_bound_is_reached_by_normal_matrices():
    angle = 0.7
    rotation = 1.3 * jnp.asarray([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    model = PLRNN(rotation, jnp.zeros((2, 2)))
    sizes = jnp.linalg.norm(forced_sensitivity(model, TRUTH[0], TRUTH, 0.1), ord=2, axis=(1, 2))
    np.testing.assert_allclose(sizes, sensitivity_bound(largest_jacobian_norm(model), 0.1, jnp.arange(12.0, -1.0, -1.0)))


@pytest.mark.slow
def test_lozi_map_explodes_below_the_critical_forcing_only():
    model = lozi()
    np.testing.assert_allclose(model(jnp.asarray([0.4, -0.2])), [1 - 1.7 * 0.4 - 0.2, 0.5 * 0.4], rtol=1e-15)
    np.testing.assert_allclose(model(jnp.asarray([-0.4, 0.0])), [1 - 1.7 * 0.4, -0.5 * 0.4], rtol=1e-15)
    critical = critical_forcing(largest_jacobian_norm(model))
    truth = lozi_sequence(201)

    def gradient(steps, forcing):
        """Of the loss after a perturbation of the weights, over a sequence."""
        off = PLRNN(model.linear * 1.001, model.weights, model.bias)
        return float(jnp.linalg.norm(jax.grad(ForcedSequenceTask(truth[: steps + 1], forcing).loss)(off).linear))

    assert gradient(60, 0.0) > 1e3 * gradient(10, 0.0)
    assert gradient(200, critical) < 2 * gradient(10, critical)


@pytest.mark.slow
def test_forcing_makes_a_chaotic_map_learnable():
    # Lozi's map from a network that is near nothing: descent on short-memory gradients finds it.
    truth = lozi_sequence(101)
    keys = jax.random.split(jax.random.key(0), 2)
    model = PLRNN(0.3 * jax.random.normal(keys[0], (2, 2)), 0.3 * jax.random.normal(keys[1], (2, 2)), jnp.zeros(2))
    task = ForcedSequenceTask(truth, 0.6)
    run = tx.train(model, task, tx.GradientDescent(0.03, optax.adam), [0.0, 60.0])
    assert float(run.observed[1]) < 1e-3 * float(run.observed[0])
    np.testing.assert_allclose(jax.vmap(run.model)(truth[:-1]), truth[1:], atol=0.1)


def test_transformations_and_float32():
    model, start = small(), TRUTH[0]
    many = jax.jit(jax.vmap(lambda forcing: forced_sensitivity(model, start, TRUTH, forcing)))(jnp.asarray([0.1, 0.6]))
    np.testing.assert_allclose(many[1], forced_sensitivity(model, start, TRUTH, 0.6), rtol=1e-12)
    slope = jax.grad(lambda forcing: sensitivity_bound(1.7, forcing, 4.0))(0.3)
    assert float(slope) == pytest.approx(-4 * 1.7 * (0.7 * 1.7) ** 3, rel=1e-12)
    single = jax.tree.map(lambda x: x.astype(jnp.float32), model)
    found = forced_sensitivity(single, start, TRUTH, 0.2)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, forced_sensitivity(model, start, TRUTH, 0.2), rtol=1e-3, atol=1e-5)


def test_refusals():
    model, start = small(), TRUTH[0]
    for forcing in (-0.1, 1.1):
        with pytest.raises(ValueError, match="`forcing` must lie between 0 and 1; got"):
            forced_rollout(model, start, TRUTH, forcing)
        with pytest.raises(ValueError, match="`forcing` must lie between 0 and 1"):
            ForcedSequenceTask(TRUTH, forcing)
        with pytest.raises(ValueError, match="`forcing` must lie between 0 and 1"):
            sensitivity_bound(1.0, forcing, 2)
    with pytest.raises(ValueError, match="`model` must be a PLRNN or a ShallowPLRNN"):
        forced_rollout(LinearClassifier(jnp.ones(2)), start, TRUTH, 0.1)
    with pytest.raises(ValueError, match=r"`start` must have shape \(2,\)"):
        forced_sensitivity(model, jnp.ones(3), TRUTH, 0.1)
    with pytest.raises(ValueError, match=r"`truth` must have shape \(any, 2\)"):
        forced_states(model, start, jnp.ones((4, 3)), 0.1)
    with pytest.raises(ValueError, match=r"`states` must have shape \(any, 2\)"):
        largest_jacobian_norm(model, jnp.ones((4, 3)))
    with pytest.raises(ValueError, match="`norm` must be non-negative"):
        critical_forcing(-1.0)
    with pytest.raises(ValueError, match="`steps` must be non-negative"):
        sensitivity_bound(1.0, 0.5, -1)
    with pytest.raises(ValueError, match="`sequence` must have at least 2 states"):
        ForcedSequenceTask(TRUTH[:1], 0.5)
    with pytest.raises(ValueError, match="`linear` must be square"):
        PLRNN(jnp.ones((2, 3)), jnp.eye(2))
    with pytest.raises(ValueError, match=r"`weights` must have shape \(2, 2\)"):
        PLRNN(jnp.eye(2), jnp.eye(3))
    with pytest.raises(ValueError, match=r"`inward` must have shape \(3, 2\)"):
        ShallowPLRNN(jnp.eye(2), jnp.ones((2, 3)), jnp.ones((2, 2)))
    with pytest.raises(ValueError, match="`model` must have at most 20 hidden units"):
        largest_jacobian_norm(ShallowPLRNN(jnp.eye(2), jnp.ones((2, 21)), jnp.ones((21, 2))))


@pytest.mark.slow
def test_catalogue_entry():
    assert tx.verify("teacher_forcing").passed
