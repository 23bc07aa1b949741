"""Scores of phase-locked networks: exact for squares, in the limit for rectifiers; Gromov's weights; Fourier probes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tractax as tx
from tractax.analysis import frequency_power, inverse_participation_ratio
from tractax.two_layer import (
    ModularAddition,
    ModularNetwork,
    gaussian_modular_network,
    gromov_logits,
    gromov_network,
    phase_locked_assumptions,
    phase_locked_logits,
    phase_locked_network,
    quadratic_logits,
    random_gromov_network,
    relu_logits,
)

TASK = ModularAddition(11)


@pytest.mark.slow
def test_quadratic_logits_are_exact():
    x, y, j = np.meshgrid(*(range(11),) * 3, indexing="ij")
    flaws = 5.5 * ((j - 2 * x) % 11 == 0) + 5.5 * ((j - 2 * y) % 11 == 0)
    for neurons in (3, 5, 6):
        model = phase_locked_network(11, neurons, embedding=0.7, readout=1.3, phase=0.4)
        strength = neurons * 0.7**2 * 1.3
        by_hand = strength / 4 * (11 * ((j - x - y) % 11 == 0) + flaws - 2)
        np.testing.assert_allclose(model.logits(), by_hand, atol=1e-13 * strength * 11)
        np.testing.assert_allclose(phase_locked_logits(model), by_hand, atol=1e-13 * strength * 11)
        np.testing.assert_allclose(quadratic_logits(11, strength), by_hand, atol=1e-13 * strength * 11)
        assert float(TASK.accuracy(model)) == 1.0
        assert float(TASK.margin(model)) == pytest.approx(strength * 11 / 8, rel=1e-12)


def test_unequal_frequencies():
    sizes = np.asarray([1.0, 0.2, 0.0, 0.7, 1.4])
    model = phase_locked_network(11, 5, embedding=sizes, readout=sizes[::-1].copy())
    np.testing.assert_allclose(model.logits(), phase_locked_logits(model), atol=1e-13)


def relu_error(neurons):
    model = phase_locked_network(11, int(neurons), activation=jax.nn.relu)
    limit = relu_logits(11, neurons)
    return jnp.max(jnp.abs(model.logits() - limit)) / jnp.max(jnp.abs(limit))


@pytest.mark.slow
def test_rectifiers():
    logits = relu_logits(5, 1.0)
    np.testing.assert_allclose(logits[0, 1, 1], 0.23725418113905905, rtol=1e-14)
    np.testing.assert_allclose(logits[3, 2, jnp.asarray([2, 3])], -0.11862709056952953, rtol=1e-14)
    for neurons, error in ((5, 0.058), (9, 0.016), (33, 1.1e-3), (65, 2.9e-4), (64, 2.4e-3)):
        assert float(relu_error(neurons)) == pytest.approx(error, rel=0.05)
    assert tx.scaling(relu_error, (17, 33, 65, 129), correction=-2.0).contains(-2.0)
    for neurons, accuracy in ((5, 1.0), (9, 1.0), (3, 0.17)):
        model = phase_locked_network(11, neurons, activation=jax.nn.relu)
        assert float(TASK.accuracy(model)) == pytest.approx(accuracy, abs=0.005)
    model = phase_locked_network(11, 7, activation=jax.nn.relu, embedding=2.0)
    np.testing.assert_allclose(phase_locked_logits(model), relu_logits(11, 14.0), rtol=1e-12)


@pytest.mark.slow
def test_gromov_weights():
    for left, right in ((3, 3), (4, 3), (5, 7)):
        model = gromov_network(11, left, right)
        np.testing.assert_allclose(model.logits(), gromov_logits(11, left, right), atol=1e-12 * left * right)
        assert float(TASK.margin(model)) == pytest.approx(left * right * 11 / 4, rel=1e-12)
    task = ModularAddition(23)
    for neurons, low, high in ((50, 0.9, 0.999), (200, 1.0, 1.0)):
        accuracy = float(task.accuracy(random_gromov_network(23, neurons, key=jax.random.key(0))))
        assert low <= accuracy <= high


@pytest.mark.slow
def test_assumptions_fail_one_by_one():
    model = phase_locked_network(7, 5)
    assert all(a.holds for a in phase_locked_assumptions(model))
    theta, xi = model.embedding, model.readout
    wave = np.cos(2 * np.pi * np.arange(7) / 7)[None, :]
    for embedding, readout, message in (
        (theta + 0.1, xi, "no constants"),
        (theta + 0.1 * wave, xi, "one frequency in each neuron"),
        (theta, jnp.roll(xi, 1, axis=1), "locked phases"),
    ):
        with pytest.raises(ValueError, match=message):
            phase_locked_logits(ModularNetwork(embedding, readout))
    for neurons in (2, 4):
        with pytest.raises(ValueError, match="without second and fourth harmonic"):
            phase_locked_logits(phase_locked_network(7, neurons))
    assert not np.allclose(phase_locked_network(11, 4).logits(), quadratic_logits(11, 4.0))
    with pytest.raises(ValueError, match=r"activation jnp.square or jax.nn.relu"):
        phase_locked_logits(gaussian_modular_network(7, 3, scale=1.0, key=jax.random.key(0), activation=jnp.tanh))
    np.testing.assert_allclose(jax.jit(phase_locked_logits)(model), quadratic_logits(7, 5.0), atol=1e-12)
    single = phase_locked_network(7, 5, embedding=jnp.ones((), jnp.float32))
    assert phase_locked_logits(single).dtype == jnp.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: phase_locked_network(8, 5), "`p` must be an odd number of at least 3"),
        (lambda: quadratic_logits(6, 1.0), "`p` must be an odd number"),
        (lambda: relu_logits(1, 1.0), "`p` must be an odd number"),
        (lambda: relu_logits(7, np.ones(4)), r"`strengths` must be one number or have shape \(3,\)"),
        (lambda: phase_locked_network(7, 0), "`neurons` must be a whole number of at least 1"),
        (lambda: phase_locked_network(7, 3, embedding=np.nan), "`embedding` must be finite"),
        (lambda: phase_locked_network(7, 3, phase=np.ones(2)), "`phase` must be one number"),
        (lambda: gromov_network(7, 2, 3), "`left` must be a whole number of at least 3"),
        (lambda: gromov_logits(7, 3, 2), "`right` must be a whole number of at least 3"),
        (lambda: random_gromov_network(4, 10, key=jax.random.key(0)), "`p` must be an odd"),
        (lambda: phase_locked_logits(gromov_network(7, 3, 3)), "`model` must be a ModularNetwork"),
        (lambda: frequency_power(jnp.ones((4, 2))), "`values` must have at least three residues"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.slow
def test_fourier_probes():
    assert float(inverse_participation_ratio(jnp.asarray([1.0, 2, 0, 0, 0]))) == pytest.approx(0.65625, rel=1e-14)
    x = np.arange(11)
    rows = np.stack([3 + np.cos(2 * np.pi * 4 * x / 11 + 0.3), 1e-200 * np.sin(2 * np.pi * x / 11), np.zeros(11), x == 2])
    expected = np.abs(np.fft.fft(rows, axis=1))[:, 1:6] ** 2
    np.testing.assert_allclose(frequency_power(jnp.asarray(rows)), expected, atol=1e-13)
    np.testing.assert_allclose(inverse_participation_ratio(jnp.asarray(rows[[0, 2, 3]])), [1.0, 0.0, 0.2], rtol=1e-12)
    assert frequency_power(jnp.ones((2, 3, 8), jnp.float32)).shape == (2, 3, 3)
    slope = jax.grad(lambda v: inverse_participation_ratio(v))(jnp.zeros(5))
    assert jnp.all(jnp.isfinite(slope))
