"""Lion-K: reference values, conjugates, the Lyapunov function, the box, solved cases, refusals."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg

import tractax as tx
from tractax.rules import (
    AbsoluteValue,
    DeadZone,
    HalfSquare,
    Huber,
    LionBox,
    LionK,
    LionKFlow,
    LionQuadratic,
    LionSigns,
    LionState,
    LogCosh,
    NuclearNorm,
    Power,
    SmoothAbsolute,
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
TASK = Quadratic(jnp.asarray(MATRIX), jnp.asarray(SLOPE))
START = Point(jnp.asarray([0.6, -0.4, 0.3]))
FUNCTIONS = {
    "absolute": AbsoluteValue(),
    "huber": Huber(0.3),
    "smooth": SmoothAbsolute(0.3),
    "log_cosh": LogCosh(0.2),
    "dead_zone": DeadZone(0.1),
    "half_square": HalfSquare(),
    "power": Power(1.7),
    "nuclear": NuclearNorm(),
}
# By default those that are written piece by piece.
some_functions = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("huber", "dead_zone") else pytest.mark.slow)
        for name in FUNCTIONS
        if name != "nuclear"
    ],
)
BOUNDED = ("absolute", "huber", "smooth", "log_cosh", "dead_zone")


def _objective(task, model):
    return tx.Objective(task, eqx.partition(model, eqx.is_inexact_array)[1])


def _whole(model):
    return model.w


# --- convex functions ------------------------------------------------------------------------------------------------


@some_functions
def test_conjugates_against_their_definition(name):
    function = FUNCTIONS[name]
    ys = jnp.asarray([-0.95, -0.3, 0.0, 0.5, 0.9])
    xs = jnp.linspace(-6.0, 6.0, 24001)
    values = jax.vmap(lambda x: function(x[None]))(xs)
    found = jax.vmap(lambda y: function.conjugate(y[None]))(ys)
    np.testing.assert_allclose(found, jnp.max(ys[:, None] * xs[None, :] - values[None, :], axis=1), atol=1e-6)
    if name in BOUNDED:
        assert jnp.isinf(function.conjugate(jnp.asarray([0.2, 1.001])))


@some_functions
def test_gradients_are_where_the_conjugate_is_attained(name):
    # K(x) + K*(∇K(x)) = x·∇K(x), and K(0) = K*(0) = 0.
    function, shrink = FUNCTIONS[name], 1 - 1e-15
    x = jnp.asarray([[0.7, -0.02, 0.4], [-1.3, 0.25, 0.05]])
    slope = function.gradient(x)
    found = function(x) + function.conjugate(shrink * slope)
    assert float(found) == pytest.approx(float(jnp.sum(x * slope)), rel=1e-12)
    zero = jnp.zeros_like(x)
    assert float(function(zero)) == float(function.conjugate(zero)) == 0.0
    np.testing.assert_array_equal(function.gradient(zero), zero)


def test_nuclear_norm():
    x = jax.random.normal(jax.random.key(0), (3, 2))
    function, values = NuclearNorm(), np.linalg.svd(np.asarray(x), compute_uv=False)
    assert float(function(x)) == pytest.approx(values.sum(), rel=1e-13)
    np.testing.assert_allclose(function.gradient(x), scipy.linalg.polar(np.asarray(x))[0], atol=1e-13)
    low = jnp.outer(jnp.asarray([3.0, 0.0, 4.0]), jnp.asarray([0.6, 0.8]))
    np.testing.assert_allclose(function.gradient(low), low / 5, atol=1e-14)
    vector = jnp.asarray([3.0, 4.0])
    assert float(function(vector)) == pytest.approx(5.0)
    np.testing.assert_allclose(function.gradient(vector), [0.6, 0.8], rtol=1e-14)
    assert float(function(x)) == pytest.approx(float(jnp.sum(x * function.gradient(x))), rel=1e-13)
    assert float(function.conjugate(0.99 * x / values[0])) == 0 and jnp.isinf(function.conjugate(1.01 * x / values[0]))
    with pytest.raises(ValueError, match="no trainable array of more than two axes"):
        function(jnp.ones((2, 2, 2)))


# --- the Lyapunov function -------------------------------------------------------------------------------------------


def test_reference_values():
    flow = LionKFlow(SmoothAbsolute(0.3), momentum_decay=0.8, lookahead=0.5, weight_decay=0.6)
    model = Point(jnp.asarray([0.5]))
    state, objective = (
        LionState(model, Point(jnp.asarray([-0.2]))),
        _objective(Quadratic(jnp.eye(1), jnp.zeros(1)), model),
    )
    assert float(flow.lyapunov(0.0, state, objective)) == pytest.approx(0.20544279656613645, rel=1e-14)
    assert float(flow.dissipation(0.0, state, objective)) == pytest.approx(0.5732929983071132, rel=1e-14)


def _flow(name, lookahead=0.5, weight_decay=0.6):
    options = {"gradient_rate": 1.3, "momentum_decay": 0.8, "lookahead": lookahead, "weight_decay": weight_decay}
    return LionKFlow(FUNCTIONS[name], **options)


def _check_dissipation(flow):
    state, objective = LionState(START, Point(jnp.asarray([0.5, -0.7, 0.2]))), _objective(TASK, START)
    velocity = flow.vector_field(0.0, state, objective)
    _, slope = jax.jvp(lambda state: flow.lyapunov(0.0, state, objective), (state,), (velocity,))
    dissipation = float(flow.dissipation(0.0, state, objective))
    assert dissipation > 0
    assert float(slope) == pytest.approx(-dissipation, rel=1e-13)


@pytest.mark.slow
def test_dissipation():
    _check_dissipation(_flow("smooth"))


@pytest.mark.slow
@pytest.mark.parametrize("name", list(FUNCTIONS))
@pytest.mark.parametrize(("lookahead", "weight_decay"), [(0.5, 0.6), (0.0, 0.6), (1.25, 0.6), (0.5, 0.0)])
def test_dissipation_of_every_function(name, lookahead, weight_decay):
    _check_dissipation(_flow(name, lookahead, weight_decay))


@pytest.mark.slow
def test_the_end_is_stationary_and_never_passed():
    for name in ("smooth", "huber", "log_cosh", "power"):
        flow, objective = _flow(name), _objective(TASK, START)
        start = flow.init(START)
        solution = diffrax.diffeqsolve(
            flow.terms(start, 0.0, 150.0, key=None),
            diffrax.Tsit5(),
            t0=0.0,
            t1=150.0,
            dt0=None,
            y0=start,
            args=objective,
            saveat=diffrax.SaveAt(
                subs=[
                    diffrax.SubSaveAt(ts=jnp.linspace(0.0, 150.0, 301), fn=flow.lyapunov),
                    diffrax.SubSaveAt(t1=True),
                ]
            ),
            stepsize_controller=diffrax.PIDController(rtol=1e-11, atol=1e-13),
            max_steps=2**16,
        )
        heights, last = solution.ys
        assert float(jnp.max(jnp.diff(heights))) < 1e-12
        x = last.params.w[-1]
        decay, gamma, alpha = 0.6, 0.8, 1.3
        pull = FUNCTIONS[name].conjugate_gradient(decay * x)
        np.testing.assert_allclose(alpha * (TASK.matrix @ x - TASK.slope) + gamma * pull, np.zeros(3), atol=1e-9)


# --- steps -----------------------------------------------------------------------------------------------------------


def test_lion_is_the_one_of_optax():
    ts = 0.02 * jnp.arange(0.0, 60.0, 5.0)
    optimiser = optax.lion(0.02, b1=0.8, b2=0.95, weight_decay=0.3)
    expected = tx.train(START, TASK, tx.GradientDescent(0.02, optimiser), ts, observe=_whole).observed
    found = tx.train(START, TASK, LionK(0.02, b1=0.8, b2=0.95, weight_decay=0.3), ts, observe=_whole).observed
    np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_steps_by_hand():
    x, m, width = np.asarray(START.w), np.zeros(3), 0.3
    for _ in range(20):
        g = MATRIX @ x - SLOPE
        c = 0.8 * m + 0.2 * g
        x, m = x - 0.05 * (np.clip(c / width, -1, 1) + 0.4 * x), 0.95 * m + 0.05 * g
    rule = LionK(0.05, Huber(width), b1=0.8, b2=0.95, weight_decay=0.4)
    np.testing.assert_allclose(tx.train(START, TASK, rule, [1.0], observe=_whole).observed[0], x, rtol=1e-12)


@pytest.mark.slow
def test_steps_follow_their_flow():
    tight = diffrax.PIDController(rtol=1e-10, atol=1e-12)

    def distance(rate):
        rule = LionK(rate, SmoothAbsolute(0.5), b1=0.7, b2=1 - 0.8 * rate, weight_decay=0.4)
        stepped = tx.train(START, TASK, rule, [2.0], observe=_whole).observed[0]
        flowed = tx.train(START, TASK, rule.flow(), [2.0], observe=_whole, stepsize_controller=tight).observed[0]
        return jnp.linalg.norm(stepped - flowed)

    assert tx.scaling(distance, [0.1, 0.05, 0.025, 0.0125], correction=1.0).contains(1.0)


def test_orthogonal_steps_of_matrices():
    # Muon: the first step moves by an orthogonal matrix.
    weights = jax.random.normal(jax.random.key(1), (2, 3))

    class Far(tx.AbstractTask):
        def loss(self, model):
            return jnp.sum((model.w - 1.0) ** 2) / 2

    end = tx.train(Point(weights), Far(), LionK(0.1, NuclearNorm()), [0.1], observe=_whole).observed[0]
    expected = weights - 0.1 * scipy.linalg.polar(np.asarray(weights - 1.0))[0]
    np.testing.assert_allclose(end, expected, rtol=1e-12)


# --- the box ---------------------------------------------------------------------------------------------------------


def test_box():
    start, rate, decay = Point(jnp.asarray([5.0, -4.0, 0.3])), 0.01, 0.8
    box, ts = LionBox(decay, rate), 0.01 * jnp.arange(0.0, 1501.0, 50.0)
    observe = {"excess": box.excess, "weights": _whole}
    seen = tx.train(start, TASK, LionK(rate, weight_decay=decay), ts, observe=observe).observed
    assert float(seen["excess"][0]) == 5 - 1 / 0.8
    assert jnp.all(seen["excess"] <= box.bound(ts, seen["excess"][0]) * (1 + 1e-12))
    # Two numbers to the same side: as far as the bound allows.
    far = Quadratic(jnp.zeros((3, 3)), jnp.asarray([100.0, -100.0, 0.0]))
    held = tx.train(start, far, LionK(rate, weight_decay=decay), ts, observe=box.excess).observed
    np.testing.assert_allclose(held, box.bound(ts, held[0]), rtol=1e-9)
    np.testing.assert_allclose(LionBox(decay).bound(2.0, 3.0), 3 * np.exp(-1.6), rtol=1e-14)


@pytest.mark.slow
def test_clipped_minimum():
    minimum = jnp.asarray([3.0, -0.4, -2.0])
    task = Quadratic(jnp.diag(jnp.asarray([1.0, 0.5, 2.0])), minimum * jnp.asarray([1.0, 0.5, 2.0]))
    for rate in (0.02, 0.005):
        rule = LionK(rate, b2=0.9, weight_decay=0.8)
        ends = tx.train(Point(jnp.asarray([5.0, -4.0, 0.3])), task, rule, [30.0, 30.5], observe=_whole).observed
        expected = LionBox(0.8).clip(minimum)
        np.testing.assert_allclose(expected, [1.25, -0.4, -1.25])
        assert float(jnp.max(jnp.abs(ends - expected[None, :]))) < 4 * rate


# --- solved cases ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_constant_signs():
    # x_k = -s/λ + (x₀ + s/λ)(1 - ηλ)^k; the third entry has no gradient.
    task, rate = Quadratic(jnp.zeros((3, 3)), jnp.asarray([0.3, -0.2, 0.0])), 0.05
    signs, x0 = np.asarray([-1.0, 1.0, 0.0]), np.asarray(START.w)
    for decay in (0.4, 0.0):
        rule = LionK(rate, weight_decay=decay)
        solution = LionSigns.from_model(START, task, rule)
        run = tx.train(START, task, rule, rate * jnp.arange(0.0, 200.0, 9.0), observe=solution.reduce)
        assert float(tx.compare(solution, run).worst) < 1e-12
        k = 9
        by_hand = -signs / decay + (x0 + signs / decay) * (1 - rate * decay) ** k if decay else x0 - signs * rate * k
        np.testing.assert_allclose(solution.evaluate(rate * k).values, by_hand, rtol=1e-13)
        flow = LionSigns.from_model(START, task, LionKFlow(AbsoluteValue(), lookahead=0.3, weight_decay=decay))
        assert float(tx.residual(flow, [0.0, 1.0, 40.0]).worst) < 1e-13
        np.testing.assert_array_equal(flow.evaluate(0.0).values, x0)
        if decay:
            for t in (1e9, jnp.inf):
                np.testing.assert_allclose(solution.evaluate(t).values, -signs / decay, atol=1e-15)
                np.testing.assert_allclose(flow.evaluate(t).values, flow.limit().values, atol=1e-15)
        else:
            assert float(flow.evaluate(jnp.inf).values[2]) == x0[2]
            with pytest.raises(ValueError, match="LionSigns has no limit without weight decay"):
                flow.limit()


@pytest.mark.parametrize(("lookahead", "weight_decay"), [(0.5, 0.6), pytest.param(0.0, 0.0, marks=pytest.mark.slow)])
def test_quadratic_against_the_matrix_exponential(lookahead, weight_decay):
    alpha, gamma = 1.3, 0.8
    solution = LionQuadratic.from_model(START, TASK, _flow("half_square", lookahead, weight_decay))
    eye = np.eye(3)
    # d/dt (x, m) = A (x, m) + c.
    top = np.hstack([-weight_decay * eye - lookahead * alpha * MATRIX, (1 - lookahead * gamma) * eye])
    a = np.vstack([top, np.hstack([-alpha * MATRIX, -gamma * eye])])
    c = np.concatenate([lookahead * alpha * SLOPE, alpha * SLOPE])
    rest = -np.linalg.solve(a, c)
    start = np.concatenate([np.asarray(START.w), np.zeros(3)])
    for t in (0.0, 0.7, 5.0):
        expected = rest + scipy.linalg.expm(a * t) @ (start - rest)
        np.testing.assert_allclose(solution.evaluate(t).values, expected[:3], rtol=1e-11, atol=1e-12)
    lowest = np.linalg.solve(alpha * MATRIX + gamma * weight_decay * eye, alpha * SLOPE)
    np.testing.assert_allclose(solution.limit().values, lowest, rtol=1e-12)


@pytest.mark.slow
def test_float32_vmap_and_gradients():
    single = jax.tree.map(lambda x: x.astype(jnp.float32), (START, TASK))
    for rule in (LionK(0.02, Huber(0.3), weight_decay=0.3), _flow("smooth")):
        small, big = tx.train(*single, rule, [1.0], observe=_whole), tx.train(START, TASK, rule, [1.0], observe=_whole)
        assert small.observed.dtype == jnp.float32
        np.testing.assert_allclose(small.observed, big.observed, rtol=1e-3)

    def end(decay, width):
        rule = LionK(0.02, SmoothAbsolute(width), weight_decay=decay)
        return tx.train(START, TASK, rule, [1.0], observe=_whole).observed[0, 0]

    decays, widths = jnp.asarray([0.1, 0.5]), jnp.asarray([0.2, 0.3])
    slopes = jax.jit(jax.vmap(jax.grad(end)))(decays, widths)
    ahead, behind = (jax.vmap(end)(decays + step, widths) for step in (1e-5, -1e-5))
    np.testing.assert_allclose(slopes, (ahead - behind) / 2e-5, rtol=1e-6)


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LionK(0.0), "`learning_rate` must be positive; got 0.0"),
        (lambda: LionK(0.1, jnp.sign), "`function` must be a convex function"),
        (lambda: LionK(0.1, b1=1.0), "`b1` must lie below 1"),
        (lambda: LionK(0.1, b2=-0.1), "`b2` must be non-negative"),
        (lambda: LionK(0.1, weight_decay=-1.0), "`weight_decay` must be non-negative"),
        (lambda: LionKFlow(None), "`function` must be a convex function"),
        (lambda: LionKFlow(HalfSquare(), momentum_decay=2.0, lookahead=0.6), "`lookahead` must be at most"),
        (lambda: LionKFlow(HalfSquare(), gradient_rate=0.0), "`gradient_rate` must be positive"),
        (lambda: Huber(0.0), "`width` must be positive"),
        (lambda: Power(1.0), "`exponent` must be above 1"),
        (lambda: LionBox(0.0), "`weight_decay` must be positive"),
        (lambda: LionBox(2.0, 0.6), "`learning_rate` must be at most 1 / weight_decay"),
        (lambda: LionBox(1.0).bound(-1.0, 1.0), "`t` must be non-negative"),
        (lambda: LionSigns.from_model(START, TASK, LionK(0.1, Huber(0.1))), "`rule` must be LionK or LionKFlow with"),
        (lambda: LionSigns.from_model(START, TASK, LionK(0.1, weight_decay=10.0)), "must be below 1 / weight_decay"),
        (lambda: LionSigns.from_model(START, TASK, LionK(0.1)), "constant signs of the gradient: FAILS"),
        (lambda: LionQuadratic.from_model(START, TASK, _flow("huber")), "`rule` must be LionKFlow with HalfSquare"),
    ],
)
def test_refuses(build, message):
    with pytest.raises(ValueError, match=message):
        build()
