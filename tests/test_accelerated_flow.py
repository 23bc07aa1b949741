"""Momentum: reference values, methods iterated by hand, orders of the flows, the cycle of heavy ball, refusals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.integrate
from toys import MODEL, TASK

import tractax as tx
from tractax.rules import (
    HeavyBall,
    HeavyBallFlow,
    Nesterov,
    NesterovFlow,
    QuadraticAcceleration,
    QuadraticMomentum,
    SlopeChange,
    TripleMomentum,
    nesterov_bound,
    strongly_convex_momentum,
)


class Point(eqx.Module):
    """A model that is nothing but its parameters."""

    w: jax.Array


class Quadratic(tx.AbstractTask):
    """The loss ½ wᵀHw − bᵀw."""

    matrix: jax.Array
    slope: jax.Array

    def loss(self, model):
        return model.w @ self.matrix @ model.w / 2 - self.slope @ model.w


MATRIX = np.asarray([[2.0, 0.6, 0.0], [0.6, 1.0, -0.3], [0.0, -0.3, 0.7]])
SLOPE = np.asarray([0.3, -0.2, 0.5])
START = np.asarray([1.0, -0.7, 0.4])
QUADRATIC = Quadratic(jnp.asarray(MATRIX), jnp.asarray(SLOPE))


def _mode(rule, curvature, start=1.0):
    task = Quadratic(jnp.asarray([[curvature]]), jnp.zeros(1))
    return QuadraticAcceleration.from_model(Point(jnp.asarray([start])), task, rule)


def _whole(model):
    return model.w


# --- steps ----------------------------------------------------------------------------------------------------------


def _by_hand(rule, gradient, x, count):
    """The iterates of a method, from its definition."""
    s, out = float(rule.learning_rate), [x]
    if isinstance(rule, HeavyBall):
        before = x
        for k in range(count):
            rate = s * (float(rule.first_step) if k == 0 else 1.0)
            x, before = x + float(rule.momentum) * (x - before) - rate * gradient(x), x
            out.append(x)
    elif isinstance(rule, Nesterov):
        y = x
        for k in range(count):
            beta = k / (k + float(rule.friction)) if rule.momentum is None else float(rule.momentum)
            after = x - s * gradient(x)
            x, y = after + beta * (after - y), after
            out.append(x)
    else:
        ell, mu = 25.0, 1.0
        rho = 1 - np.sqrt(mu / ell)
        a, b = (1 + rho) / ell, rho**2 / (2 - rho)
        c, d = rho**2 / ((1 + rho) * (2 - rho)), rho**2 / (1 - rho**2)
        xi, before = x, x
        for _ in range(count):
            step = a * gradient((1 + c) * xi - c * before)
            xi, before = (1 + b) * xi - b * before - step, xi
            out.append((1 + d) * xi - d * before)
    return np.stack(out)


@pytest.mark.parametrize(
    "rule",
    [
        HeavyBall(0.2, 0.7, first_step=1.7, weight_decay=0.3),
        Nesterov(0.2, friction=4.0),
        pytest.param(Nesterov(0.2, 0.7, weight_decay=0.3), marks=pytest.mark.slow),
        TripleMomentum(25.0, 1.0),
    ],
    ids=["heavy_ball", "nesterov_growing", "nesterov", "triple_momentum"],
)
def test_steps_by_hand(rule):
    decay = float(getattr(rule, "weight_decay", 0.0))
    expected = _by_hand(rule, lambda x: MATRIX @ x - SLOPE + decay * x, START, 12)
    ts = rule.time_per_step * jnp.arange(13.0)
    run = tx.train(Point(jnp.asarray(START)), QUADRATIC, rule, ts, observe=_whole)
    np.testing.assert_allclose(run.observed, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.slow
def test_heavy_ball_from_rest_is_the_one_of_optax():
    momentum = optax.sgd(0.05, momentum=0.8)
    expected = tx.train(MODEL, TASK, tx.GradientDescent(0.05, momentum), [0.5, 1.0])
    found = tx.train(MODEL, TASK, HeavyBall(0.05, 0.8, time_per_step=0.05), [0.5, 1.0])
    np.testing.assert_allclose(found.observed, expected.observed, rtol=1e-12)


def test_default_time_is_the_root_of_the_rate():
    assert float(HeavyBall(0.04, 0.5).time_per_step) == pytest.approx(0.2)
    assert float(Nesterov(0.04, time_per_step=1.0).time_per_step) == 1.0


def test_triple_momentum_reference():
    rule = TripleMomentum(1.0, 1 / 25)
    found = [float(x) for x in (rule.learning_rate, rule.momentum, rule.lookahead, rule.readout)]
    np.testing.assert_allclose(found, [1.8, 8 / 15, 8 / 27, 16 / 9], rtol=1e-14)


@pytest.mark.parametrize("ratio", [10.0, pytest.param(100.0, marks=pytest.mark.slow)])
def test_rates(ratio):
    curvatures = jnp.concatenate([jnp.linspace(1.0, ratio, 40), jnp.asarray([0.0])])
    task, model = Quadratic(jnp.diag(curvatures), jnp.zeros(41)), Point(jnp.ones(41))

    def worst(rule):
        return float(jnp.max(QuadraticMomentum.from_model(model, task, rule, check=False).rates[1:]))

    triple, heavy = TripleMomentum(ratio, 1.0), HeavyBall.for_quadratics(ratio, 1.0)
    assert worst(triple) == pytest.approx(float(triple.rate), rel=1e-12)
    assert float(triple.rate) == pytest.approx(1 - ratio**-0.5, rel=1e-14)
    # A double root at the ends of the range: its square root feels rounding.
    assert worst(heavy) == pytest.approx((ratio**0.5 - 1) / (ratio**0.5 + 1), rel=1e-6)
    momentum = strongly_convex_momentum(1 / ratio, 1.0)
    assert worst(Nesterov(1 / ratio, momentum)) == pytest.approx(1 - ratio**-0.5, rel=1e-6)


@pytest.mark.parametrize(
    "rule",
    [
        Nesterov(0.55, 0.6, weight_decay=0.1),
        pytest.param(HeavyBall(0.9, 0.0), marks=pytest.mark.slow),
        pytest.param(TripleMomentum(25.0, 1.0), marks=pytest.mark.slow),
    ],
    ids=["nesterov", "heavy_ball", "triple_momentum"],
)
def test_quadratic_steps(rule):
    # With sλ > 1, where the roots have opposite signs; without momentum; with three sequences.
    model = Point(jnp.asarray(START))
    solution = QuadraticMomentum.from_model(model, QUADRATIC, rule)
    decay = float(getattr(rule, "weight_decay", 0.0))
    iterates = _by_hand(rule, lambda x: MATRIX @ x - SLOPE + decay * x, START, 12)
    for k in (0, 1, 2, 7, 12):
        state = solution.evaluate(k * rule.time_per_step)
        reduced = solution.reduce(Point(jnp.asarray(iterates[k])))
        np.testing.assert_allclose(state.gradient, reduced.gradient, rtol=1e-10, atol=1e-11)
        np.testing.assert_allclose(state.loss, reduced.loss, rtol=1e-10, atol=1e-11)


@pytest.mark.slow
def test_unstable_steps_grow_and_have_no_limit():
    solution = QuadraticMomentum.from_model(Point(jnp.asarray(START)), QUADRATIC, HeavyBall(2.5, 0.3))
    assert float(jnp.max(solution.rates)) > 1
    assert float(solution.evaluate(300.0).loss) > 1e10
    with pytest.raises(ValueError, match="QuadraticMomentum has no limit"):
        solution.limit()
    stable = QuadraticMomentum.from_model(Point(jnp.asarray(START)), QUADRATIC, HeavyBall(0.5, 0.3))
    lowest = -SLOPE @ np.linalg.solve(MATRIX, SLOPE) / 2
    assert float(stable.limit().loss) == pytest.approx(lowest, rel=1e-12)
    for t in (1e3, 1e9, jnp.inf):
        assert float(stable.evaluate(t).loss) == pytest.approx(lowest, rel=1e-12)


# --- the loss on which heavy ball does not converge --------------------------------------------------------------------


def test_slope_change():
    xs = jnp.asarray([-2.0, 0.5, 1.0, 1.5, 2.0, 3.0])
    task = SlopeChange()
    np.testing.assert_allclose(jax.grad(lambda x: task.loss(Point(x)))(xs), [-50, 12.5, 25, 25.5, 26, 51], rtol=1e-14)
    around = jnp.asarray([1.0, 2.0])
    step = 1e-9
    below, above = (jax.vmap(lambda x: task.loss(Point(x)))(around + sign * step) for sign in (-1, 1))
    np.testing.assert_allclose(above - below, 2 * step * np.asarray([25.0, 26.0]), rtol=1e-5)


def test_heavy_ball_cycles_where_triple_momentum_converges():
    starts, late = jnp.linspace(3.07, 3.46, 5), 300 + jnp.arange(3.0)

    def end(rule):
        # Every number moves by itself.
        ts = late * rule.time_per_step
        return tx.train(Point(starts), SlopeChange(), rule, ts, observe=_whole).observed

    cycle = np.asarray([792.0, -2208.0, 2592.0]) / 1225
    np.testing.assert_allclose(end(HeavyBall.for_quadratics(25.0, 1.0)), np.tile(cycle[:, None], 5), rtol=1e-13)
    assert float(jnp.max(jnp.abs(end(TripleMomentum(25.0, 1.0))))) < 1e-14


# --- flows ------------------------------------------------------------------------------------------------------------


def test_reference_values():
    bessel = _mode(NesterovFlow(0.01, order=1), 2.5).evaluate(2.0)
    assert float(bessel.gradient[0]) / 2.5 == pytest.approx(0.17482385283132812, rel=1e-13)
    beta = strongly_convex_momentum(0.01, 0.25)
    critical = _mode(HeavyBallFlow(0.01, beta, 1), 1.0).evaluate(3.0)
    assert float(critical.gradient[0]) == pytest.approx(-0.1243547674084118, rel=1e-13)
    assert float(critical.loss) == pytest.approx(0.1243547674084118**2 / 2, rel=1e-12)


@pytest.mark.parametrize("friction", [2.5, *(pytest.param(r, marks=pytest.mark.slow) for r in (3.0, 5.0))])
def test_bessel_modes_against_scipy(friction):
    curvature, ts = 1.7, np.asarray([0.5, 3.0, 11.0])
    solution = _mode(NesterovFlow(0.01, order=1, friction=friction), curvature)
    found = jax.vmap(solution.evaluate)(jnp.asarray(ts)).gradient[:, 0] / curvature
    early = 1e-3
    start = [1 - curvature * early**2 / (2 * (1 + friction)), -curvature * early / (1 + friction)]
    run = scipy.integrate.solve_ivp(
        lambda t, y: [y[1], -friction / t * y[1] - curvature * y[0]],
        (early, ts[-1]),
        start,
        method="DOP853",
        t_eval=ts,
        rtol=1e-12,
        atol=1e-14,
    )
    # The start is exact up to its fourth power.
    np.testing.assert_allclose(found, run.y[0], atol=1e-10)


@pytest.mark.slow
def test_modes_obey_their_equations():
    # Second derivatives in time: no integrator, under-, over- and critically damped.
    s, ts = 0.04, jnp.asarray([0.1, 1.0, 4.0])
    beta = strongly_convex_momentum(s, 0.25)
    flows = (HeavyBallFlow(s, beta, first_step=1.4), NesterovFlow(s, beta), NesterovFlow(s, order=1))
    task = Quadratic(jnp.diag(jnp.asarray([0.05, 0.25, 3.0])), jnp.zeros(3))
    for flow, gradient_damping in zip(flows, (0.0, 1.0, 0.0), strict=True):
        solution = QuadraticAcceleration.from_model(Point(jnp.ones(3)), task, flow)

        def x(t, solution=solution):
            return solution.evaluate(t).gradient

        curvatures = solution.objective.curvatures
        v, a = jax.jacfwd(x), jax.jacfwd(jax.jacfwd(x))
        for t in ts:
            friction = 3 / t if flow is flows[2] else 2 * 0.5 + gradient_damping * jnp.sqrt(s) * curvatures
            force = curvatures if flow is flows[2] else (1 + jnp.sqrt(0.25 * s)) * curvatures
            np.testing.assert_allclose(a(t) + friction * v(t) + force * x(t), np.zeros(3), atol=1e-12)
        kick = {0: 1.4 - (1 + beta) / 4, 1: 3 * (1 + beta) / 4, 2: 0.0}[flows.index(flow)]
        np.testing.assert_allclose(v(jnp.asarray(0.0)), -kick * jnp.sqrt(s) * curvatures * x(0.0), atol=1e-13)


@pytest.mark.slow
def test_late_times():
    task = Quadratic(jnp.diag(jnp.asarray([0.0, 1e-3, 1.0])), jnp.asarray([0.0, 1e-3, 1.0]))
    for flow in (NesterovFlow(0.01, 0.9), NesterovFlow(0.01, order=1), HeavyBallFlow(0.01, 0.0)):
        solution = QuadraticAcceleration.from_model(Point(jnp.asarray([2.0, 3.0, 4.0])), task, flow)
        for t in (1e8, jnp.inf):
            np.testing.assert_allclose(solution.evaluate(t).loss, solution.limit().loss, rtol=1e-8)
        assert float(solution.limit().loss) == pytest.approx(-0.5005, rel=1e-12)


@pytest.mark.slow
def test_convex_bound():
    # The largest t² L / x₀² of a mode does not depend on its curvature; 0.677 of the bound's 2.
    ts = jnp.linspace(0.05, 40.0, 1600)
    for curvature, start in ((1.0, 1.0), (0.3, 2.0)):
        losses = jax.vmap(_mode(NesterovFlow(0.01, order=1), curvature, start).evaluate)(ts).loss
        assert jnp.all(losses <= nesterov_bound(ts, start))
        assert float(jnp.max(ts**2 * losses)) / start**2 == pytest.approx(0.677, abs=2e-3)
    assert float(nesterov_bound(2.0, 3.0, 5.0)) == pytest.approx(16 * 9 / 8)


@pytest.mark.slow
def test_lyapunov():
    # dE/dt = -2t(⟨∇L, x - x*⟩ - (L - L*)) - 2t(r - 3)/(r - 1) (L - L*), both of one sign on a convex loss.
    friction = 4.5
    flow = NesterovFlow(0.01, order=1, friction=friction, weight_decay=0.3)
    model, best = Point(jnp.asarray(START)), Point(jnp.linalg.solve(MATRIX + 0.3 * np.eye(3), jnp.asarray(SLOPE)))
    objective, t = tx.Objective(QUADRATIC, eqx.partition(model, eqx.is_inexact_array)[1]), jnp.asarray(1.7)
    rest = flow.lyapunov(0.0, flow.init(model), objective, best)
    assert float(rest) == pytest.approx((friction - 1) * float(jnp.sum((model.w - best.w) ** 2)), rel=1e-13)
    state = eqx.tree_at(lambda state: state.drive.w, flow.init(model), jnp.asarray([0.4, -0.3, 0.8]))
    velocity = flow.vector_field(t, state, objective)
    _, slope = jax.jvp(
        lambda t, state: flow.lyapunov(t, state, objective, best), (t, state), (jnp.ones_like(t), velocity)
    )
    penalised = MATRIX + 0.3 * np.eye(3)
    offset = np.asarray(model.w - best.w)
    height, climb = offset @ penalised @ offset / 2, offset @ penalised @ offset
    expected = -2 * 1.7 * (climb - height) - 2 * 1.7 * (friction - 3) / (friction - 1) * height
    assert float(slope) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="`lyapunov` belongs to the growing momentum of order 1"):
        NesterovFlow(0.01).lyapunov(0.0, state, objective, best)


# --- refusals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: HeavyBall(0.0), "`learning_rate` must be positive; got 0.0"),
        (lambda: HeavyBall(0.1, 1.0), "`momentum` must lie below 1"),
        (lambda: HeavyBall(0.1, -0.1), "`momentum` must be non-negative; got -0.1"),
        (lambda: HeavyBall(0.1, first_step=-1.0), "`first_step` must be non-negative"),
        (lambda: HeavyBall(0.1, time_per_step=0.0), "`time_per_step` must be positive"),
        (lambda: HeavyBall.for_quadratics(1.0, 2.0), "`convexity` must be at most `smoothness`"),
        (lambda: Nesterov(jnp.nan), "`learning_rate` must be finite"),
        (lambda: Nesterov(0.1, friction=0.5), "`friction` must be at least 1"),
        (lambda: Nesterov(0.1, weight_decay=-1.0), "`weight_decay` must be non-negative"),
        (lambda: TripleMomentum(1.0, 0.0), "`convexity` must be positive"),
        (lambda: TripleMomentum(1.0, 2.0), "`convexity` must be at most `smoothness`"),
        (lambda: HeavyBallFlow(0.1, 0.5, 3), "`order` must be a whole number from 1 to 2; got 3"),
        (lambda: NesterovFlow(0.1, 0.5, True), "`order` must be a whole number from 1 to 2; got True"),
        (lambda: NesterovFlow(0.1, 1.5), "`momentum` must lie below 1"),
        (lambda: strongly_convex_momentum(2.0, 1.0), "`convexity` must be at most 1 / learning_rate"),
        (lambda: nesterov_bound(1.0, 1.0, 2.0), "`friction` must be at least 3"),
        (lambda: nesterov_bound(0.0, 1.0), "`t` must be positive"),
    ],
)
def test_refuses(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_solutions_refuse():
    point, task = Point(jnp.ones(1)), Quadratic(jnp.eye(1), jnp.zeros(1))
    with pytest.raises(ValueError, match=r"`rule` must be HeavyBall, Nesterov with a constant momentum"):
        QuadraticMomentum.from_model(point, task, Nesterov(0.1))
    with pytest.raises(ValueError, match=r"`rule` must be HeavyBallFlow, or NesterovFlow with a constant momentum"):
        QuadraticAcceleration.from_model(point, task, NesterovFlow(0.1))
    with pytest.raises(ValueError, match="`friction` must be at most 21"):
        QuadraticAcceleration.from_model(point, task, NesterovFlow(0.1, order=1, friction=22.0))
    with pytest.raises(ValueError, match=r"QuadraticMomentum does not apply\. quadratic loss: FAILS"):
        QuadraticMomentum.from_model(point, SlopeChange(), HeavyBall(0.1))
    with pytest.raises(ValueError, match=r"convex loss: FAILS"):
        QuadraticAcceleration.from_model(point, Quadratic(-jnp.eye(1), jnp.zeros(1)), HeavyBallFlow(0.1))
    with pytest.raises(ValueError, match=r"no gradient without curvature: FAILS"):
        QuadraticMomentum.from_model(point, Quadratic(jnp.zeros((1, 1)), jnp.ones(1)), HeavyBall(0.1))
