"""Modular addition: the flow of modes, its elliptic solution, divergence times, winners, refusals."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

import tractax as tx
from tractax.two_layer import (
    ModularAddition,
    ModularModesFlow,
    ModularNetwork,
    PhaseLocking,
    SeparateModularNetwork,
    gaussian_modular_network,
    modular_modes,
)

TASK = ModularAddition(11, "correlation")


def single_mode(a, b, p=11, k=3):
    """One neuron with one frequency."""
    one = np.zeros((1, (p - 1) // 2), complex)
    one[0, k - 1] = 1
    return ModularNetwork.from_amplitudes(a * one, b * one)


@eqx.filter_jit
def over_time(function, ts):
    return eqx.filter_vmap(function)(ts)


@eqx.filter_jit
def gradient_of(task, model):
    return eqx.filter_grad(task.loss)(model)


def exact_orbit(a, b, ts, p=11):
    """Amplitudes and coupling of one mode, by SciPy."""

    def velocity(t, y):
        del t
        return np.asarray([2 * np.conj(y[0]) * y[1], y[0] ** 2]) / p

    start = np.asarray([a, b], complex)
    found = scipy.integrate.solve_ivp(velocity, (0, ts[-1]), start, method="DOP853", t_eval=ts, rtol=1e-13, atol=1e-25)
    a, b = found.y
    return np.abs(a), np.abs(b), a**2 * np.conj(b)


def test_reference_values():
    a = 0.3 * np.exp(0.4j)
    for first, second, expected in (
        (a, 0.2 * np.exp(-0.5j), 30.059299975512943),
        (a, 0.2 * np.exp(3j), 40.67008296065877),
        (0.1, 0.1, 68.55477641542534),
        # Aligned, on the separatrix: p/2β.
        (0.2 * 2**0.5, 0.2, 11 / 0.4),
    ):
        solution = PhaseLocking.from_model(single_mode(first, second), TASK)
        assert float(solution.blow_up_times[0, 2]) == pytest.approx(expected, rel=1e-14)
        assert float(solution.t1) == pytest.approx(expected, rel=1e-14) and solution.winners.tolist() == [3]
    solution = PhaseLocking.from_model(single_mode(a, 0.2 * np.exp(-0.5j)), TASK)
    assert float(solution.evaluate(15.0).readout[0, 2]) == pytest.approx(0.3614844330902016, rel=1e-14)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (0.3, 0.1j),
        (0.3j, -0.2 * np.exp(0.3j)),
        # From a readout that vanishes, or runs through zero, or nearly.
        (0.3, 0.0),
        (0.3, -0.1),
        (0.3, -0.1 * np.exp(1e-6j)),
        # Past the saddle without embedding, so closely that nothing happens for long.
        (0.1, -0.2 * np.exp(1e-4j)),
        (1e-3, 0.3j),
        # From next to it, on the way out and on the way in.
        (1e-10, 0.3),
        (1e-12 * np.exp(1j), -0.3),
        # C = 0 with and without torsion.
        (0.2, 0.2j / 2**0.5),
        (0.2 * np.exp(1j), 0.2 * np.exp(2j) / 2**0.5),
    ],
)
def test_orbits(a, b):
    solution = PhaseLocking.from_model(single_mode(a, b), TASK)
    ts = np.asarray([0.05, 0.3, 0.5, 0.7, 0.95]) * float(solution.blow_up_times[0, 2])
    found = over_time(solution.evaluate, jnp.asarray(ts))
    alpha, beta, coupling = exact_orbit(a, b, ts)
    tolerance = 1e-8 if abs(np.angle(-(a**2) * np.conj(b))) < 1e-2 else 1e-11
    np.testing.assert_allclose(found.embedding[:, 0, 2], alpha, rtol=tolerance)
    np.testing.assert_allclose(found.readout[:, 0, 2], beta, rtol=tolerance)
    angle = np.asarray(found.misalignment[:, 0, 2])
    np.testing.assert_allclose(np.exp(1j * angle), coupling / np.abs(coupling), rtol=tolerance, atol=tolerance)


@pytest.mark.slow
def test_opposed_phases_and_modes_that_never_diverge():
    # Into the saddle at zero embedding, for ever; from it; and from nothing at all.
    solution = PhaseLocking.from_model(single_mode(0.1, -0.2), TASK)
    assert float(solution.blow_up_times[0, 2]) == np.inf and float(solution.blow_up_times[0, 0]) > 1e10
    late = solution.evaluate(1e5)
    np.testing.assert_allclose(late.embedding[0, 2], 0.0, atol=1e-15)
    np.testing.assert_allclose(late.readout[0, 2], np.sqrt(0.2**2 - 0.1**2 / 2), rtol=1e-14)
    a, b, coupling = exact_orbit(0.1, -0.2, np.asarray([50.0]))
    early = solution.evaluate(50.0)
    np.testing.assert_allclose([early.embedding[0, 2], early.readout[0, 2]], [a[0], b[0]], rtol=1e-9)
    assert float(early.misalignment[0, 2]) == pytest.approx(np.pi) and coupling.real[0] < 0
    still = PhaseLocking.from_model(ModularNetwork(jnp.zeros((2, 11)), jnp.ones((2, 11))), TASK)
    assert still.winners.tolist() == [0, 0] and float(still.t1) == np.inf
    assert jnp.all(still.evaluate(1e12).embedding < 1e-30)


@pytest.mark.slow
def test_all_weights_follow_the_modes():
    model = gaussian_modular_network(11, 3, scale=0.3, key=jax.random.key(3))
    gradient = gradient_of(TASK, model)
    solution = ModularModesFlow.from_model(model, TASK, t1=1.0)
    velocity = solution.vector_field(0.0, solution.reduce(model))
    moved = modular_modes(ModularNetwork(-gradient.embedding, -gradient.readout))
    np.testing.assert_allclose(velocity.embedding, moved.embedding, rtol=1e-11, atol=1e-15)
    np.testing.assert_allclose(velocity.readout, moved.readout, rtol=1e-11, atol=1e-15)
    # The constants are frozen.
    assert jnp.max(jnp.abs(jnp.mean(gradient.embedding, axis=1))) < 1e-15
    assert jnp.max(jnp.abs(jnp.mean(gradient.readout, axis=1))) < 1e-15


@pytest.mark.slow
def test_integrated_and_closed():
    model = gaussian_modular_network(11, 3, scale=0.3, key=jax.random.key(3))
    solution = ModularModesFlow.from_model(model, TASK, t1=8.0)
    ts = jnp.linspace(0.0, 8.0, 9)
    states = over_time(solution.evaluate, ts)
    closed = over_time(PhaseLocking.from_model(model, TASK).evaluate, ts)
    np.testing.assert_allclose(states.embedding_amplitude, closed.embedding, rtol=1e-9)
    np.testing.assert_allclose(states.readout_amplitude, closed.readout, rtol=1e-9)
    np.testing.assert_allclose(states.misalignment, closed.misalignment, rtol=1e-9)
    phases = 2 * states.embedding_phase - states.readout_phase
    np.testing.assert_allclose(jnp.cos(phases), jnp.cos(closed.misalignment), atol=1e-10)
    for conserved in (states.imbalance, states.torsion):
        np.testing.assert_allclose(conserved, jnp.broadcast_to(conserved[0], conserved.shape), atol=1e-12)
    assert jnp.all(jnp.diff(jnp.real(states.coupling), axis=0) > 0)


@pytest.mark.slow
def test_the_losses_agree_for_small_outputs():
    model = gaussian_modular_network(7, 4, scale=1e-3, key=jax.random.key(0))
    gradients = [
        eqx.filter_grad(ModularAddition(7, loss).loss)(model) for loss in ("correlation", "cross_entropy", "squared")
    ]
    for other in gradients[1:]:
        np.testing.assert_allclose(other.embedding, gradients[0].embedding, atol=1e-7 * 1e-3)
        np.testing.assert_allclose(other.readout, gradients[0].readout, atol=1e-7 * 1e-3)


@pytest.mark.slow
def test_losses_and_accuracy_by_hand():
    model = gaussian_modular_network(5, 3, scale=0.8, key=jax.random.key(1), activation=jax.nn.relu)
    logits = np.empty((5, 5, 5))
    for x in range(5):
        for y in range(5):
            hidden = np.maximum(np.asarray(model.embedding)[:, x] + np.asarray(model.embedding)[:, y], 0)
            logits[x, y] = hidden @ np.asarray(model.readout)
    np.testing.assert_allclose(model.logits(), logits, rtol=1e-13)
    np.testing.assert_allclose(model(jnp.asarray(2), jnp.asarray(4)), logits[2, 4], rtol=1e-13)
    x, y = np.meshgrid(range(5), range(5), indexing="ij")
    answers = (x + y) % 5
    own = np.take_along_axis(logits, answers[..., None], axis=2)[..., 0]
    target = np.eye(5)[answers] - 0.2
    expected = {
        "correlation": np.mean(np.mean(logits, axis=2) - own),
        "cross_entropy": np.mean(np.log(np.sum(np.exp(logits), axis=2)) - own),
        "squared": np.sum((logits - target) ** 2) / 50,
    }
    every_pair = (jnp.asarray(x.ravel()), jnp.asarray(y.ravel()))
    for loss, value in expected.items():
        task = ModularAddition(5, loss)
        assert float(task.loss(model)) == pytest.approx(value, rel=1e-13)
        assert float(task.batch_loss(model, every_pair)) == pytest.approx(value, rel=1e-13)
    assert float(task.accuracy(model)) == np.mean(np.argmax(logits, axis=2) == answers)
    a, b = task.sample(jax.random.key(0), 50)
    assert a.shape == b.shape == (50,) and set(np.unique(np.concatenate([a, b]))) == set(range(5))


def test_frequencies_by_fourier_transform():
    draw = np.random.default_rng(0).normal(size=(4, 2, 5))
    a, b = draw[0] + 1j * draw[1], draw[2] + 1j * draw[3]
    model = ModularNetwork.from_amplitudes(a, b)
    modes = modular_modes(model)
    np.testing.assert_allclose(modes.embedding, np.stack([a.real, a.imag], axis=-1), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(modes.readout, np.stack([b.real, b.imag], axis=-1), rtol=1e-12, atol=1e-15)
    x = np.arange(11)
    waves = sum(
        np.abs(a[:, k - 1, None]) * np.cos(2 * np.pi * k * x / 11 + np.angle(a[:, k - 1, None])) for k in range(1, 6)
    )
    np.testing.assert_allclose(model.embedding, waves, rtol=1e-12, atol=1e-13)


@pytest.mark.slow
def test_transformations_and_float32():
    def first_end(scale, phase):
        one = jnp.zeros((1, 5)).at[0, 2].set(1.0)
        a, b = (0.3 * one, 0.1 * one), (scale * jnp.cos(phase) * one, scale * jnp.sin(phase) * one)
        model = ModularNetwork.from_amplitudes(jax.lax.complex(*a), jax.lax.complex(*b))
        return PhaseLocking.from_model(model, TASK).blow_up_times[0, 2]

    points = jnp.asarray([[0.2, 0.5], [0.1, 2.0], [0.2, 2.5]])
    gradient = jax.jit(jax.vmap(jax.grad(lambda x: first_end(*x))))(points)
    value = jax.jit(jax.vmap(lambda x: first_end(*x)))
    for i in range(2):
        shift = 1e-5 * jnp.eye(2)[i][None]
        np.testing.assert_allclose(gradient[:, i], (value(points + shift) - value(points - shift)) / 2e-5, rtol=1e-7)
    # At aligned phases the time is least, so that its derivative by the phase vanishes.
    aligned = jax.jit(jax.grad(lambda x: first_end(*x)))(jnp.asarray([0.2, 2 * np.arctan2(0.1, 0.3)]))
    assert abs(float(aligned[1])) < 1e-7 and float(aligned[0]) < 0
    # T is homogeneous of degree -1 in the weights, modes that are not there included.
    model = ModularNetwork(*(0.1 * jnp.cos(2 * np.pi / 11 * np.arange(11)[None]) for _ in range(2)))
    scaled = jax.jit(jax.value_and_grad(lambda c: PhaseLocking.from_model(jax.tree.map(lambda w: c * w, model), TASK).t1))
    end, slope = scaled(1.0)
    assert float(slope) == pytest.approx(-float(end), rel=1e-10)
    model = gaussian_modular_network(7, 2, scale=0.3, key=jax.random.key(0))
    double = PhaseLocking.from_model(model, ModularAddition(7, "correlation"))
    single = PhaseLocking.from_model(
        jax.tree.map(lambda w: w.astype(jnp.float32), model), ModularAddition(7, "correlation")
    )
    assert single.blow_up_times.dtype == jnp.float32
    np.testing.assert_allclose(single.blow_up_times, double.blow_up_times, rtol=1e-4)


def test_refusals():
    model = gaussian_modular_network(11, 2, scale=0.3, key=jax.random.key(0))
    solution = PhaseLocking.from_model(model, TASK)
    with pytest.raises(ValueError, match="horizon of PhaseLocking"):
        solution.evaluate(1.01 * solution.t1)
    with pytest.raises(ValueError, match="`t1` must be below the time at which the first mode diverges"):
        ModularModesFlow.from_model(model, TASK, t1=1.01 * solution.t1)
    cases = (
        (model, ModularAddition(11), None, r"loss=\"correlation\""),
        (model, TASK, tx.GradientFlow(weight_decay=0.1), "no weight decay"),
        (ModularNetwork(model.embedding, model.readout, jax.nn.relu), TASK, None, "quadratic activation"),
        (model, ModularAddition(7, "correlation"), None, "`model` must be for p = 7"),
        (model, tx.deep_linear.LinearTask(jnp.eye(2)), None, "`task` must be a ModularAddition"),
        (model, TASK, tx.GradientDescent(0.1), "`rule` must be tx.GradientFlow"),
        (model, TASK, tx.GradientFlow(rates=(1.0, 2.0)), "equal rates"),
        (SeparateModularNetwork(*(jnp.ones((1, 11)),) * 3), TASK, None, "`model` must be a ModularNetwork"),
        (ModularNetwork(jnp.ones((1, 6)), jnp.ones((1, 6))), ModularAddition(6, "correlation"), None, "odd number"),
    )
    for network, task, rule, message in cases:
        with pytest.raises(ValueError, match=message):
            PhaseLocking.from_model(network, task, rule)
        with pytest.raises(ValueError, match=message):
            ModularModesFlow.from_model(network, task, rule, t1=1.0)
    assert not all(a.holds for a in PhaseLocking.assumptions(model, ModularAddition(11)))
    for call, message in (
        (lambda: ModularAddition(2), "`p` must be a whole number of at least 3"),
        (lambda: ModularAddition(7.0), "`p` must be a whole number"),
        (lambda: ModularAddition(7, "hinge"), "`loss` must be one of correlation, cross_entropy, squared"),
        (lambda: ModularNetwork(jnp.ones((2, 5)), jnp.ones((3, 5))), "`readout` must have shape"),
        (lambda: ModularNetwork(jnp.full((2, 5), jnp.nan), jnp.ones((2, 5))), "`embedding` must be finite"),
        (lambda: ModularNetwork(jnp.ones((2, 5)), jnp.ones((2, 5)), "relu"), "`activation` must be a function"),
        (lambda: ModularNetwork.from_amplitudes(jnp.ones((1, 2)), jnp.ones((1, 3))), "the same shape"),
        (lambda: gaussian_modular_network(5, 0, scale=0.1, key=jax.random.key(0)), "`neurons` must be"),
        (lambda: gaussian_modular_network(5, 2, scale=-0.1, key=jax.random.key(0)), "`scale` must be positive"),
        (lambda: ModularAddition(5).loss(tx.deep_linear.DeepLinear((jnp.eye(2),))), "`model` must be a ModularNetwork"),
        (lambda: ModularAddition(5).loss(model), "`model` must be for p = 5"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.slow
def test_late_winners_on_cross_entropy():
    # One small network until its loss is small: the winners of the first half of the neurons are as predicted.
    model = gaussian_modular_network(11, 12, scale=0.02, key=jax.random.key(2))
    solution = PhaseLocking.from_model(model, TASK)
    times = np.asarray(jnp.min(solution.blow_up_times, axis=1))
    task = ModularAddition(11)
    options = {"solver": diffrax.Tsit5(), "stepsize_controller": diffrax.PIDController(rtol=1e-6, atol=1e-9)}
    run = tx.train(model, task, tx.GradientFlow(), [2 * times.max()], observe=(task.accuracy, modular_modes), **options)
    accuracy, modes = run.observed
    ends = 1 + np.argmax(np.asarray(modes.embedding_amplitude * modes.readout_amplitude)[0], axis=1)
    early = np.argsort(times)[:6]
    assert float(accuracy[0]) == 1.0
    np.testing.assert_array_equal(ends[early], np.asarray(solution.winners)[early])
