"""Interacting subcircuits: reference values, clamping, sign flips and escape times, degenerate starts, refusals."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special

import tractax as tx
from tractax.special import carlson_rf
from tractax.transformers import (
    BalancedTensor,
    ClampedTensor,
    LinearAttention,
    RankOneTensor,
    RankOneTensorFlow,
    RankOneTensorTask,
    TensorOverlaps,
    clamp_factors,
    gaussian_tensor,
    tensor_escape_time,
)

SIZES = (3, 2, 4)
TASK = RankOneTensorTask(gaussian_tensor(SIZES, scale=1.0, key=jax.random.key(0)))
START = gaussian_tensor(SIZES, scale=0.4, key=jax.random.key(1))


@eqx.filter_jit
def at(solution, t):
    return solution.evaluate(t)


@eqx.filter_jit
def losses_of(solution, ts):
    return jax.vmap(solution.loss)(ts)


escape_time = jax.jit(tensor_escape_time)


def placed(along, across, truth=TASK.truth):
    """Factors with these overlaps."""
    factors = []
    for m, q, true in zip(along, across, truth.factors, strict=True):
        unit = np.asarray(true / jnp.linalg.norm(true))
        rest = np.linalg.svd(unit[None])[2][1]
        factors.append(m * unit + q * rest)
    return RankOneTensor(*factors)


def scaled(model, scale):
    return RankOneTensor(*(scale * x for x in model.factors))


def with_strength(strength, sizes):
    """A task whose truth lies along the first entries."""
    a, b, c = (np.eye(n)[0] for n in sizes)
    return RankOneTensorTask(RankOneTensor(strength * a, b, c))


UNIT = with_strength(1.0, SIZES)


def test_reference_values():
    task = with_strength(1.0, (2, 2, 2))
    solution = RankOneTensorFlow.from_model(placed((0.3, 0.2, 0.25), (0.1, 0.2, 0.0), task.truth), task, t1=40.0)
    expected = [0.9418070283297, 0.9262146076685, 0.9234345311958]
    np.testing.assert_allclose(at(solution, jnp.asarray(30.0)).along, expected, rtol=1e-11)
    assert float(solution.loss(30.0)) == pytest.approx(0.003097795543, rel=1e-9)
    task = with_strength(2.0, (3, 4, 5))
    solution = BalancedTensor.from_model(placed((0.2, 0.2, 0.2), (0, 0, 0), task.truth), task)
    np.testing.assert_allclose(at(solution, jnp.asarray(100.0)).along, 0.573948493125601, rtol=1e-13)
    np.testing.assert_allclose(at(solution, jnp.asarray(200.0)).along, 1.259843469260931, rtol=1e-13)
    np.testing.assert_allclose(solution.limit().along, np.cbrt(2.0), rtol=1e-14)


@pytest.mark.slow
def test_six_numbers_are_those_of_the_whole_tensor():
    # The velocity from automatic differentiation of all 24 entries, and the loss.
    flow = RankOneTensorFlow.from_model(START, TASK, t1=1.0)
    loss, gradient = jax.value_and_grad(TASK.loss)(START)
    _, moved = jax.jvp(flow.reduce, (START,), (jax.tree.map(jnp.negative, gradient),))
    velocity = flow.vector_field(0.0, flow.reduce(START))
    np.testing.assert_allclose(velocity.along, moved.along, rtol=1e-12)
    np.testing.assert_allclose(velocity.across, moved.across, rtol=1e-12)
    assert float(flow.loss(0.0)) == pytest.approx(float(loss), rel=1e-13)
    # No cancellation where the loss is small.
    near = placed((1e-9 + float(TASK.strength), 1.0, 1.0), (0.0, 1e-9, 0.0))
    solution = ClampedTensor.from_model(near, TASK, tx.GradientFlow(rates=(0.0, 1.0, 1.0)))
    assert float(solution.loss(0.0)) == pytest.approx(float(TASK.loss(near)), rel=1e-6)


@pytest.mark.slow
def test_what_is_conserved_and_what_progresses():
    flow = RankOneTensorFlow.from_model(START, TASK, t1=200.0)
    states = jax.vmap(flow.evaluate)(jnp.linspace(0.0, 200.0, 9))
    np.testing.assert_allclose(states.imbalance, np.broadcast_to(states.imbalance[0], (9, 2)), atol=1e-10)
    assert jnp.all(jnp.diff(states.across, axis=0) < 0)
    cosines = [
        x @ y / jnp.linalg.norm(x) / jnp.linalg.norm(y) for x, y in zip(START.factors, TASK.truth.factors, strict=True)
    ]
    np.testing.assert_allclose(states.misalignment[0], 1 - np.square(cosines), rtol=1e-12)
    assert jnp.all(states.misalignment[-1] < states.misalignment[0])
    np.testing.assert_array_equal(TensorOverlaps(jnp.zeros(3), jnp.zeros(3)).misalignment, 1.0)


def test_clamped_against_scipy():
    # Every choice of rates, with frozen factors that are not the true ones.
    strength, entries = float(TASK.strength), TASK.entries
    start = ClampedTensor.from_model(START, TASK, tx.GradientFlow(rates=(0.0, 1.0, 1.0))).initial
    y0 = np.concatenate([start.along, start.across])
    evaluate = eqx.filter_jit(lambda rule, ts: jax.vmap(ClampedTensor(start, TASK, rule).evaluate)(ts))
    for rates in ((1, 1, 0), (0, 0.3, 2), (0.5, 0, 0.5), (1, 0, 0), (0, 0, 0.4)):

        def velocity(t, y, rates=rates):
            rates = np.asarray(rates)
            m, n = y[:3], y[:3] ** 2 + y[3:] ** 2
            others = np.roll(n, 1) * np.roll(n, -1)
            gain = strength * np.roll(m, 1) * np.roll(m, -1) - m * others
            return np.concatenate([rates * gain, -rates * y[3:] * others]) / entries

        ts = np.asarray([0.0, 3.0, 30.0, 100.0, 400.0])
        expected = scipy.integrate.solve_ivp(velocity, (0, 400), y0, "DOP853", ts, rtol=1e-12, atol=1e-14).y.T
        found = evaluate(tx.GradientFlow(rates=np.asarray(rates, float)), jnp.asarray(ts))
        np.testing.assert_allclose(np.concatenate([found.along, found.across], axis=1), expected, atol=1e-10, rtol=1e-9)


@pytest.mark.slow
def test_clamping():
    model, rule = clamp_factors(START, TASK, "cb", time_constant=2.0)
    np.testing.assert_array_equal(model.b, TASK.truth.b)
    np.testing.assert_array_equal(model.c, TASK.truth.c)
    solution = ClampedTensor.from_model(model, TASK, rule)
    # One layer left: an exponential.
    b, c = (float(x @ x) for x in (TASK.truth.b, TASK.truth.c))
    decay, true = np.exp(-b * c * 7.0 / 2 / TASK.entries), float(jnp.linalg.norm(TASK.truth.a))
    along = true + (float(solution.initial.along[0]) - true) * decay
    np.testing.assert_allclose(at(solution, jnp.asarray(7.0)).along[0], along, rtol=1e-13)
    np.testing.assert_allclose(at(solution, jnp.asarray(7.0)).across[0], solution.initial.across[0] * decay, rtol=1e-13)
    unclamped, all_train = clamp_factors(START, TASK, "")
    assert all(map(jnp.array_equal, unclamped.factors, START.factors)) and jnp.all(all_train.rates == 1)
    # The more is clamped, the sooner half of the loss is gone.
    small = placed((0.1, 0.1, 0.1), (0.1, 0.1, 0.1))
    solutions = [RankOneTensorFlow.from_model(small, TASK, t1=4000.0)]
    for factors in ("c", "bc"):
        clamped, rule = clamp_factors(small, TASK, factors)
        solutions.append(ClampedTensor.from_model(clamped, TASK, rule))
    ts = jnp.geomspace(0.01, 4000.0, 400)
    losses = jnp.stack([losses_of(solution, ts) for solution in solutions], axis=1)
    halves = tx.analysis.crossing_times(ts, losses, TASK.strength**2 / (4 * TASK.entries))
    assert halves[0] > 3 * halves[1] > 15 * halves[2]


def test_balanced_pair_has_the_textbook_form():
    # Two layers, one hidden unit, balanced: numerator and denominator in e^(-στ).
    model, rule = clamp_factors(placed((0.3, -0.1, 0.0), (0.2, np.sqrt(0.12), 0.0)), TASK, "c")
    solution = ClampedTensor.from_model(model, TASK, rule)
    lengths = [float(jnp.linalg.norm(x)) for x in TASK.truth.factors]
    s, tau = lengths[0] * lengths[1], 40.0 * lengths[2] ** 2 / TASK.entries
    plus, minus, e = 0.2 / 2**0.5, 0.4 / 2**0.5, np.exp(-s * tau)
    spread = (plus**2 * (1 - e**2) + minus**2 * e**2 * (1 - e**2)) / (2 * s)
    root = np.sqrt(e**2 + spread + (0.04 + 0.12) * tau * e**2)
    expected = [(plus + minus * e**2) / 2**0.5 / root, (plus - minus * e**2) / 2**0.5 / root]
    state = at(solution, jnp.asarray(40.0))
    np.testing.assert_allclose(state.along[:2], expected, rtol=1e-12)
    np.testing.assert_allclose(state.across[:2], np.asarray([0.2, 0.12**0.5]) * e / root, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("along", "across", "rates", "expected"),
    [
        # Anti-aligned, or with nothing along the truth: no escape.
        ((0.3, -0.3, 1.0), (0.0, 0.0, 0.0), (1, 1, 0), (0.0, 0.0)),
        ((0.0, 0.0, 1.0), (0.3, 0.2, 0.0), (1, 1, 0), (0.0, 0.0)),
        # A frozen factor across the truth is of no use: the smaller of the others is unlearned.
        ((0.3, 0.2, 0.0), (0.1, 0.1, 1.0), (1, 1, 0), (None, 0.0)),
        # A frozen factor of zero freezes all; so does the smaller of two trained ones that is zero and slow.
        ((0.3, 0.2, 0.0), (0.1, 0.1, 0.0), (1, 1, 0), (0.3, 0.2)),
        ((0.3, 0.0, 1.0), (0.1, 0.0, 0.0), (1, 0, 0), (0.3, 0.0)),
        ((0.3, 0.2, 1.0), (0.1, 0.1, 0.0), (0, 0, 0), (0.3, 0.2)),
    ],
)
def test_degenerate_starts(along, across, rates, expected):
    rule = tx.GradientFlow(rates=tuple(map(float, rates)))
    solution = ClampedTensor.from_model(placed(along, across, UNIT.truth), UNIT, rule)
    for t in (0.0, 1.0, 1e5, 1e300, jnp.inf):
        state = at(solution, jnp.asarray(t))
        assert jnp.all(jnp.isfinite(state.along)) and jnp.all(jnp.isfinite(state.across))
    for found, value in zip(solution.limit().along[:2], expected, strict=True):
        assert value is None or float(found) == pytest.approx(value, abs=1e-12)
    residual = tx.residual(solution, jnp.asarray([0.0, 1.0, 50.0]))
    assert float(jnp.max(jnp.stack(jax.tree.leaves(residual.absolute)))) < 1e-12


@pytest.mark.slow
def test_clamped_with_frozen_sign_and_float32():
    # A frozen factor against the truth makes the product of the others negative.
    rule = tx.GradientFlow(rates=(1.0, 1.0, 0.0))
    solution = ClampedTensor.from_model(placed((0.3, 0.2, -0.5), (0.1, 0.1, 0.3)), TASK, rule)
    end = solution.limit()
    assert float(end.along[0] * end.along[1]) == pytest.approx(-0.5 * float(TASK.strength) / (0.25 + 0.09), rel=1e-12)
    single = RankOneTensorTask(RankOneTensor(*(x.astype(jnp.float32) for x in TASK.truth.factors)))
    model = RankOneTensor(*(x.astype(jnp.float32) for x in START.factors))
    low = ClampedTensor.from_model(model, single, rule)
    high = ClampedTensor.from_model(START, TASK, rule)
    for t in (0.0, 30.0, 1e4, 1e30):
        np.testing.assert_allclose(at(low, jnp.asarray(t)).along, at(high, jnp.asarray(t)).along, rtol=1e-5)


def half_loss_time(model, horizon):
    ts = np.linspace(0.9, 1.1, 81) * horizon
    losses = tx.train(model, TASK, tx.GradientFlow(), ts, solver=diffrax.Tsit5()).observed
    return float(tx.analysis.crossing_times(ts, losses[:, None], TASK.strength**2 / (4 * TASK.entries))[0])


@pytest.mark.slow
def test_escape_times():
    # By the reduced flow, in SciPy; for the whole network, below.
    strength, entries = float(TASK.strength), TASK.entries

    def velocity(t, y):
        m, n = y[:3], y[:3] ** 2 + y[3:] ** 2
        others = np.roll(n, 1) * np.roll(n, -1)
        return np.concatenate([strength * np.roll(m, 1) * np.roll(m, -1) - m * others, -y[3:] * others]) / entries

    def halved(t, y):
        excess = np.prod(y[:3] ** 2 + y[3:] ** 2) - 2 * strength * np.prod(y[:3])
        return excess + strength**2 / 2

    halved.terminal = True
    for sign in (1.0, -1.0):
        along, across, errors = np.asarray([sign * 0.9, 0.5, 1.3]), np.asarray([1.0, 0.7, 0.4]), []
        for scale in (0.1, 0.05, 0.025):
            start = scale * np.concatenate([along, across])
            run = scipy.integrate.solve_ivp(velocity, (0, 1e6), start, "DOP853", events=halved, rtol=1e-11, atol=1e-14)
            predicted = escape_time(scaled(placed(along, across), scale), TASK)
            errors.append(abs(float(run.t_events[0][0]) - float(predicted)))
        # The error falls like ε² ln(1/ε).
        rates = np.log(np.asarray(errors[:-1]) / errors[1:]) / np.log(2.0)
        assert np.all((1.5 < rates) & (rates < 2.5))
    for model in (scaled(placed((0.9, 0.5, 1.3), across), 0.02), scaled(placed((0.9, -0.5, 1.3), across), 0.02)):
        predicted = float(escape_time(model, TASK))
        assert half_loss_time(model, predicted) == pytest.approx(predicted, rel=1e-4)
        slow = tensor_escape_time(model, TASK, tx.GradientFlow(3.0))
        assert float(slow) == pytest.approx(3 * predicted, rel=1e-14)


def test_escape_times_that_never_come_and_gradients():
    for along in ((0.1, 0.0, 0.0), (0.0, 0.0, 0.0), (-0.1, 0.1, 0.3)):
        assert escape_time(placed(along, (0.1, 0.1, 0.1), UNIT.truth), UNIT) == jnp.inf
    # Two overlaps teach the third.
    assert jnp.isfinite(escape_time(placed((0.0, 0.1, 0.2), (0, 0, 0), UNIT.truth), UNIT))
    for sign in (1.0, -1.0):
        model = placed((0.02, sign * 0.03, 0.05), (0.1, 0.1, 0.1))
        slope = jax.grad(escape_time)(model, TASK).b @ model.b
        step = 1e-5
        sides = [float(escape_time(RankOneTensor(model.a, (1 + s) * model.b, model.c), TASK)) for s in (-step, step)]
        assert float(slope) == pytest.approx((sides[1] - sides[0]) / (2 * step), rel=1e-7)
    tiny = scaled(placed((0.2, 0.3, 0.5), (0, 0, 0)), 1e-200)
    blow_up = TASK.entries / float(TASK.strength) * scipy.special.elliprf(0.04, 0.09, 0.25) * 1e200
    assert float(escape_time(tiny, TASK)) == pytest.approx(blow_up, rel=1e-12)


def test_carlson_rf():
    arguments = np.asarray([(1, 2, 3), (0, 1, 2), (1e-300, 1, 1e300), (1e-200, 1e-200, 1), (5, 5, 5), (1e8, 1e-9, 0)])
    np.testing.assert_allclose(carlson_rf(*arguments.T), scipy.special.elliprf(*arguments.T), rtol=1e-15)
    assert carlson_rf(0.0, 0.0, 1.0) == jnp.inf and carlson_rf(0.0, 0.0, 0.0) == jnp.inf
    assert jnp.isnan(carlson_rf(-1.0, 1.0, 2.0))
    x, y, z = jnp.asarray([0.3, 1.0, 7.0])
    # ∂R_F/∂x = -R_D(y, z, x)/6.
    assert float(jax.grad(carlson_rf)(x, y, z)) == pytest.approx(-scipy.special.elliprd(1.0, 7.0, 0.3) / 6, rel=1e-13)
    single = carlson_rf(*(v.astype(jnp.float32) for v in (x, y, z)))
    assert single.dtype == jnp.float32 and float(single) == pytest.approx(scipy.special.elliprf(0.3, 1.0, 7.0), rel=1e-6)


def test_refusals():
    wrong = gaussian_tensor((3, 2, 5), scale=1.0, key=jax.random.key(0))
    balanced = placed((0.1, 0.1, 0.1), (0, 0, 0))
    clamped = tx.GradientFlow(rates=(1.0, 1.0, 0.0))
    for call, message in (
        (lambda: RankOneTensor(np.eye(2), np.ones(2), np.ones(2)), "`a` must have shape"),
        (lambda: RankOneTensor(np.ones(2), np.asarray([np.nan]), np.ones(2)), "`b` must be finite"),
        (lambda: RankOneTensorTask(RankOneTensor(np.ones(2), np.zeros(2), np.ones(2))), "its `b` is"),
        (lambda: RankOneTensorTask(np.ones(3)), "`truth` must be a RankOneTensor"),
        (lambda: gaussian_tensor((2, 2), scale=1.0, key=jax.random.key(0)), "`sizes` must be a tuple of three"),
        (lambda: gaussian_tensor((2, 0, 2), scale=1.0, key=jax.random.key(0)), r"`sizes\[1\]` must be a whole number"),
        (lambda: gaussian_tensor((2, 2, 2), scale=-1.0, key=jax.random.key(0)), "`scale` must be positive"),
        (lambda: clamp_factors(START, TASK, "d"), "`factors` must name some of a, b, c"),
        (lambda: clamp_factors(START, TASK, "cc"), "`factors` must name some of a, b, c"),
        (lambda: clamp_factors(wrong, TASK, "c"), r"sizes \(3, 2, 4\) to fit `task`; got \(3, 2, 5\)"),
        (lambda: RankOneTensorFlow.from_model(START, START, t1=1.0), "`task` must be a RankOneTensorTask"),
        (
            lambda: ClampedTensor.from_model(LinearAttention(np.eye(2), np.eye(2)), TASK, clamped),
            "`model` must be a Rank",
        ),
        (lambda: RankOneTensorFlow.from_model(START, TASK, tx.GradientFlow(rates=(1.0,)), t1=1.0), "one number for each"),
        (lambda: RankOneTensorFlow.from_model(START, TASK, tx.GradientDescent(0.1), t1=1.0), "`rule` must be"),
        (lambda: ClampedTensor.from_model(START, TASK), "a clamped factor"),
        (lambda: ClampedTensor.from_model(START, TASK, tx.GradientFlow(1.0, 0.1, (1.0, 1.0, 0.0))), "no weight decay"),
        (lambda: BalancedTensor.from_model(START, TASK), "factors along the true ones"),
        (lambda: BalancedTensor.from_model(balanced, TASK, clamped), "equal rates"),
        (lambda: BalancedTensor.from_model(placed((0.1, 0.1, 0.2), (0, 0, 0)), TASK), "factors of equal norm"),
        (lambda: BalancedTensor.from_model(placed((0.1, 0.1, -0.1), (0, 0, 0)), TASK), "signs that lead away"),
        (lambda: BalancedTensor.from_model(placed((0.0, 0.0, 0.0), (0, 0, 0)), TASK), "signs that lead away"),
        (lambda: BalancedTensor.from_model(placed((9.0, 9.0, 9.0), (0, 0, 0)), TASK), "below the fixed point"),
        (lambda: tensor_escape_time(START, TASK, tx.GradientFlow(weight_decay=0.1)), "no weight decay"),
        (lambda: tensor_escape_time(START, TASK, clamped), "equal rates"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
