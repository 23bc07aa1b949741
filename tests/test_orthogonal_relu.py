"""Rectifiers on orthogonal inputs: reference values, kinks against events of SciPy, saddles, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

import tractax as tx
from tractax.deep_linear import RegressionTask
from tractax.two_layer import (
    LeakyReLU,
    OrthogonalReLUFlow,
    OrthogonalSaddles,
    PatternFixedReLU,
    TwoLayerNetwork,
    balanced_units,
)

Y = np.asarray([1.5, 0.8, -1.2, -0.4])
TASK = RegressionTask(jnp.eye(4), Y)
WIDE = RegressionTask(2**0.5 * jnp.eye(4), Y)
SADDLES = OrthogonalSaddles.from_task(TASK)


def unit(first, sign=1.0):
    """A balanced unit."""
    first = np.asarray(first)
    return TwoLayerNetwork(first[None, :], np.asarray([sign]) * np.linalg.norm(first))


def test_reference_values():
    model = TwoLayerNetwork(0.01 * SADDLES.directions, 0.01 * np.asarray([1.0, -1.0]))
    solution = PatternFixedReLU.from_model(model, TASK)
    np.testing.assert_allclose(solution.masses(15.0), [1.6200712809491034, 0.6455991814003411], rtol=1e-12)
    assert float(solution.loss(15.0)) == pytest.approx(0.04874197601770929, rel=1e-12)
    np.testing.assert_allclose(solution.half_times, [11.45989387973973, 14.934272289722744], rtol=1e-12)
    for i, t in enumerate(solution.half_times):
        assert float(solution.masses(t)[i]) == pytest.approx(float(solution.strengths[i]) / 2, rel=1e-12)
    # From small weights the saddles predict the same times.
    np.testing.assert_allclose(SADDLES.times(model), solution.half_times, rtol=1e-4)
    np.testing.assert_allclose(SADDLES.leading_times(0.01) * SADDLES.rates, -np.log(0.01), rtol=1e-14)
    np.testing.assert_allclose(2 * np.sum(solution.masses(jnp.inf)), SADDLES.least_norm, rtol=1e-12)


def test_saddles_of_the_reference_run():
    saddles = OrthogonalSaddles.from_task(WIDE)
    assert float(saddles.least_norm) == pytest.approx(4.193, abs=5e-4)
    np.testing.assert_allclose(saddles.leading_times(1e-6)[0], 22.99, atol=5e-3)
    np.testing.assert_allclose(saddles.plateau_losses, [np.sum(Y**2) / 8, np.sum(Y[2:] ** 2) / 8, 0.0], rtol=1e-14)
    # Each is a fixed point of the whole network: nothing, the faster sign, both.
    strengths = np.sqrt(saddles.strengths)[:, None]
    for kept, level in zip(([0, 0], [1, 0], [1, 1]), saddles.plateau_losses, strict=True):
        scale = strengths * np.asarray(kept)[:, None]
        model = TwoLayerNetwork(scale * saddles.directions, scale[:, 0] * np.asarray([1.0, -1.0]))
        loss, gradient = jax.value_and_grad(WIDE.loss)(model)
        assert float(loss) == pytest.approx(float(level), rel=1e-13, abs=1e-30)
        assert all(jnp.all(jnp.abs(g) < 1e-15) for g in jax.tree.leaves(gradient))


@pytest.mark.slow
def test_the_flow_is_that_of_the_weights_and_keeps_silent_units_silent():
    inputs = np.asarray([[1.0, 0.0, 0.0], [0.0, 1.3, 0.0]])
    task = RegressionTask(inputs, np.asarray([1.0, -0.7]))
    # The second field of a positive unit falls to zero; the third weight sees no data.
    model = TwoLayerNetwork([[0.4, 0.05, 0.2], [-0.2, 0.5, 0.1]], [0.5, -0.4])
    solution = OrthogonalReLUFlow.from_model(model, task, t1=20.0)
    gradient = jax.grad(task.loss)(model)
    velocity = solution.vector_field(0.0, solution.reduce(model))
    np.testing.assert_allclose(velocity.fields, -gradient.first @ inputs.T, rtol=1e-13, atol=1e-16)
    np.testing.assert_allclose(velocity.readout, -gradient.second[0], rtol=1e-13)
    times = np.asarray(solution.silent_from)
    assert times[1, 0] == 0.0 and np.isinf(times[0, 0]) and np.isinf(times[1, 1]) and 0 < times[0, 1] < 20

    def pieces(t, v, active):
        z, a = v[:4].reshape(2, 2), v[4:]
        h = np.where(active, z, 0.0)
        r = (task.targets - a @ h) / 2
        return np.append(np.where(active, a[:, None] * (np.asarray([1.0, 1.69]) * r)[None, :], 0.0).ravel(), h @ r)

    def falls(t, v, active):
        return v[1]

    falls.terminal = True
    start = np.append((model.first @ inputs.T).ravel(), model.second[0])
    options = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-14}
    first = scipy.integrate.solve_ivp(
        pieces, (0, 20), start, events=falls, args=(np.asarray([[1, 1], [0, 1]]) > 0,), **options
    )
    assert times[0, 1] == pytest.approx(first.t[-1], rel=1e-9)
    second = scipy.integrate.solve_ivp(
        pieces, (first.t[-1], 9.0), first.y[:, -1], args=(np.asarray([[1, 0], [0, 1]]) > 0,), **options
    )
    state = solution.evaluate(9.0)
    np.testing.assert_allclose(np.append(state.fields, state.readout), second.y[:, -1], rtol=1e-10, atol=1e-13)
    assert float(state.fields[0, 1]) == 0.0
    network = solution.network(9.0)
    np.testing.assert_allclose(network.first @ inputs.T, state.fields, atol=1e-14)
    np.testing.assert_allclose(network.first[:, 2], model.first[:, 2], rtol=1e-14)
    balance = [m.second[0] ** 2 - jnp.sum(m.first**2, axis=1) for m in (model, network)]
    np.testing.assert_allclose(balance[1], balance[0], atol=1e-12)
    assert float(solution.loss(9.0)) == pytest.approx(float(task.loss(network)), rel=1e-12)
    with pytest.raises(ValueError, match="horizon"):
        solution.evaluate(21.0)
    with pytest.raises(ValueError, match="no closed form"):
        solution.limit()


@pytest.mark.slow
def test_parallel_units_fall_silent_together():
    task = RegressionTask(np.eye(3)[:2], np.asarray([1.0, -0.7]))
    shares = np.sqrt(np.asarray([0.3, 0.7]))
    model = TwoLayerNetwork(shares[:, None] * np.asarray([[0.4, 0.05, 0.0]]), 0.5 * shares)
    times = np.asarray(OrthogonalReLUFlow.from_model(model, task, t1=20.0).silent_from)
    assert 0 < times[0, 1] < 1 and times[1, 1] == pytest.approx(times[0, 1], rel=1e-12)
    assert np.all(np.isinf(times[:, 0]))
    # A field that is tiny but grows does not; nor does anything move where all units are silent.
    tiny = TwoLayerNetwork([[1e-14, 0.05, 0.0], [0.0, 0.0, 0.4]], [0.5, 0.5])
    solution = OrthogonalReLUFlow.from_model(tiny, task, t1=20.0)
    times = np.asarray(solution.silent_from)
    assert np.isinf(times[0, 0]) and 0 < times[0, 1] < 1 and np.all(times[1] == 0)
    assert float(solution.loss(20.0)) == pytest.approx(0.49 / 4, rel=1e-2)
    silent = TwoLayerNetwork(-np.abs(model.first), model.second)
    np.testing.assert_array_equal(OrthogonalReLUFlow.from_model(silent, task, t1=20.0).network(9.0).first, silent.first)


@pytest.mark.slow
def test_small_weights_pass_the_saddles():
    saddles = OrthogonalSaddles.from_task(WIDE)
    ts = jnp.linspace(0.0, 60.0, 6001)
    found, predicted, ends = {}, {}, []
    for scale in (1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9):
        model = balanced_units(4, 24, scale=scale, key=jax.random.key(2))
        solution = OrthogonalReLUFlow.from_model(model, WIDE, t1=60.0)
        states = jax.vmap(solution.evaluate)(ts)
        outputs = jnp.einsum("tj,tjk->tk", states.readout, jax.nn.relu(states.fields))
        squares = (WIDE.targets[None, :] - outputs) ** 2
        parts = jnp.stack([squares[:, :2].sum(1), squares[:, 2:].sum(1)], axis=1)
        found[scale] = np.asarray(tx.analysis.crossing_times(ts, parts, parts[0] / 4))
        predicted[scale] = np.asarray(saddles.times(model))
        end = solution.network(60.0)
        ends.append(float(jnp.sum(end.first**2) + jnp.sum(end.second**2)))
    # Between the two times the loss rests next to the middle plateau.
    assert float(solution.loss(np.mean(found[1e-9]))) == pytest.approx(float(saddles.plateau_losses[1]), rel=0.02)
    assert np.all(np.diff(ends) < 0) and ends[-1] == pytest.approx(float(saddles.least_norm), rel=0.02)
    # Each tenfold smaller start takes ln(10)/D longer, up to a power of λ that the second best group sets.
    for i, rival in enumerate((1.5 / np.hypot(1.5, 0.8), 1.2 / np.hypot(1.2, 0.4))):
        power, rate = 2 * (1 - rival), float(saddles.rates[i])
        growth = {scale: np.exp(rate * (t[i] - found[1e-4][i])) for scale, t in found.items()}
        fit = tx.scaling(lambda scale, growth=growth: jnp.asarray(growth[scale]), list(growth), correction=power)
        assert float(fit.exponent) == pytest.approx(-1.0, abs=1e-4)
        assert max(abs(found[scale][i] - predicted[scale][i]) for scale in found) < 0.1


@pytest.mark.slow
def test_limits_of_groups():
    inputs = np.asarray([[1.0, 1.0, 0.0], [1.0, -1.0, 0.0]])
    one_sign = RegressionTask(inputs, np.asarray([0.5, 1.0]))
    solution = PatternFixedReLU.from_model(unit([0.3, 0.1, 0.0]), one_sign)
    assert jnp.isnan(solution.half_times[0]) and jnp.isinf(solution.half_times[1])
    for t in (1e3, 1e9, jnp.inf):
        state = solution.evaluate(t)
        np.testing.assert_allclose((state.second @ jax.nn.relu(state.first @ inputs.T))[0], one_sign.targets, rtol=1e-12)
    np.testing.assert_allclose(jnp.sum(state.first**2) + jnp.sum(state.second**2), 2 * solution.strengths[0], rtol=1e-12)
    # A target of zero belongs to neither sign, and nothing reaches it.
    with_zero = RegressionTask(np.eye(3), np.asarray([0.5, 0.0, -1.0]))
    model = TwoLayerNetwork([[0.2, 0, 0], [0, 0, 0.1]], [0.2, -0.1])
    assert float(PatternFixedReLU.from_model(model, with_zero).loss(jnp.inf)) < 1e-28
    np.testing.assert_allclose(OrthogonalSaddles.from_task(with_zero).strengths, [0.5, 1.0])
    assert OrthogonalSaddles.from_task(one_sign).times(unit([0.3, 0.1, 0.0]))[1] == jnp.inf


def test_refusals():
    pair = TwoLayerNetwork(0.01 * SADDLES.directions, 0.01 * np.asarray([1.0, -1.0]))
    crooked = np.asarray([[1.0, 0, 0, 0], [0.1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    for theory in (
        lambda task: PatternFixedReLU.from_model(pair, task),
        lambda task: OrthogonalReLUFlow.from_model(pair, task, t1=1.0),
        lambda task: OrthogonalSaddles.from_task(task),
    ):
        with pytest.raises(ValueError, match=r"orthogonal inputs, x_k·x_l = 0: FAILS \(violation 0\.1"):
            theory(RegressionTask(crooked, Y))
        with pytest.raises(ValueError, match="orthogonal inputs"):
            theory(RegressionTask(np.diag([1.0, 1.0, 1.0, 0.0]), Y))
    uneven = RegressionTask(np.diag([1.0, 2.0, 1.0, 1.0]), Y)
    for theory in (lambda: PatternFixedReLU.from_model(pair, uneven), lambda: OrthogonalSaddles.from_task(uneven)):
        with pytest.raises(ValueError, match="inputs of equal norm"):
            theory()
    e = 0.1 * np.eye(4)
    for first, second, message in (
        (e[:3:2], [0.1, -0.2], "balanced units"),
        (e[[0, 1, 2]], [0.1, 0.1, -0.1], "parallel units"),
        (0.6 * e[:1] + 0.8 * e[2:3], [0.1], "in the span"),
        (np.stack([0.6 * e[0] - 0.8 * e[1], e[2] + e[3]]), [0.1, -(0.02**0.5)], "units active on all examples"),
        (SADDLES.directions[:1], [1.0], "units for every sign of the targets"),
    ):
        with pytest.raises(ValueError, match=message):
            PatternFixedReLU.from_model(TwoLayerNetwork(first, np.asarray(second)), TASK)
    with pytest.raises(ValueError, match="that sign is never fitted"):
        SADDLES.times(TwoLayerNetwork(SADDLES.directions, np.ones(2)))
    with pytest.raises(ValueError, match="`scale` must be positive"):
        SADDLES.leading_times(-1.0)
    with pytest.raises(ValueError, match="no weight decay"):
        OrthogonalReLUFlow.from_model(pair, TASK, tx.GradientFlow(weight_decay=0.1), t1=1.0)
    with pytest.raises(ValueError, match="`rule` must have equal rates"):
        PatternFixedReLU.from_model(pair, TASK, tx.GradientFlow(rates=jnp.ones(2)))
    with pytest.raises(ValueError, match="`t1` must be positive"):
        OrthogonalReLUFlow.from_model(pair, TASK, t1=0.0)
    for model, message in (
        (TwoLayerNetwork(e, np.ones((2, 4))), "`model` must have one output"),
        (TwoLayerNetwork(e, np.ones(4), LeakyReLU(0.1)), "`model` must have relu units"),
        (TwoLayerNetwork(e, np.ones(4), bias=np.ones(4)), "`model` must have no bias"),
        (TwoLayerNetwork(e[:, :3], np.ones(4)), "`model` must have 4 inputs and 1 outputs"),
        (tx.deep_linear.DeepLinear((e, e)), "`model` must be a TwoLayerNetwork"),
    ):
        with pytest.raises(ValueError, match=message):
            PatternFixedReLU.from_model(model, TASK)
    with pytest.raises(ValueError, match="`task` must be a RegressionTask"):
        PatternFixedReLU.from_model(pair, tx.deep_linear.LinearTask(np.eye(4)))


def test_network():
    model = TwoLayerNetwork([[1.0, -2.0], [0.5, 1.0]], [[1.0, 2.0], [0.0, -1.0]], LeakyReLU(0.1), bias=[0.0, -1.0])
    np.testing.assert_allclose(model(jnp.asarray([1.0, 1.0])), [-0.1 + 1.0, -0.5])
    assert model.sizes == (2, 2, 2)
    assert TwoLayerNetwork([[1.0, 2.0]], [3.0]).second.shape == (1, 1)
    for name, value in (("relu", 0.0), ("linear", -2.0), ("quadratic", 4.0), ("tanh", np.tanh(-2.0))):
        np.testing.assert_allclose(TwoLayerNetwork([[1.0]], [1.0], name)(jnp.asarray([-2.0])), [value])
    assert float(TwoLayerNetwork([[1.0]], [1.0], jnp.sin)(jnp.ones(1))[0]) == pytest.approx(np.sin(1))
    # The stated derivative at the kink.
    assert float(jax.grad(LeakyReLU(0.2))(0.0)) == 0.2 and float(jax.grad(LeakyReLU())(0.0)) == 0.0
    assert len(jax.tree.leaves(model)) == 3
    draw = balanced_units(3, 5, scale=0.1, key=jax.random.key(0))
    np.testing.assert_allclose(jnp.abs(draw.second[0]), jnp.linalg.norm(draw.first, axis=1), rtol=1e-14)
    for call, message in (
        (lambda: TwoLayerNetwork([[1.0]], [1.0, 2.0]), "`second` must have shape"),
        (lambda: TwoLayerNetwork([[1.0]], [1.0], "swish"), "`activation` must be one of"),
        (lambda: TwoLayerNetwork([[1.0]], [1.0], 3.0), "`activation` must be a name or a function"),
        (lambda: TwoLayerNetwork([[jnp.nan]], [1.0]), "`first` must be finite"),
        (lambda: TwoLayerNetwork([[1.0]], [1.0], bias=[1.0, 2.0]), "`bias` must have shape"),
        (lambda: LeakyReLU(jnp.inf), "`slope` must be a finite"),
        (lambda: balanced_units(0, 2, scale=1.0, key=jax.random.key(0)), "`inputs` must be a whole number of at least 1"),
        (lambda: balanced_units(2, 2, scale=-1.0, key=jax.random.key(0)), "`scale` must be positive"),
        (lambda: balanced_units(2, 2, scale=1.0, key=None), "`key` must be a JAX PRNG key"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
