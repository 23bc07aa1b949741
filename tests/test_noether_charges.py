"""Charges of symmetries: reference values, exact recursions, inertia, the norm of normalised weights, refusals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.integrate
import scipy.linalg

import tractax as tx
from tractax.deep_linear import RegressionTask
from tractax.rules import (
    InertialFlow,
    ModifiedFlow,
    NoetherCharges,
    NormalisedNetwork,
    RescaleSymmetry,
    RotationSymmetry,
    ScaleSymmetry,
    TranslationSymmetry,
    angle_between,
    charge_after_step,
    equilibrium_angle,
    equilibrium_norm,
    norm_from_gradients,
    translation_charge_after_steps,
)


def _network(power=1):
    keys = jax.random.split(jax.random.key(7), 5)
    shapes = ((3, 4), (4, 3), (3, 4), (8, 4), (8, 3))
    first, second, third, inputs, logits = (jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True))
    return NormalisedNetwork(first, second, third, power), RegressionTask(inputs, jax.nn.softmax(2 * logits))


MODEL, TASK = _network()
SYMMETRIES = MODEL.symmetries()
SCALE, TRANSLATION = SYMMETRIES["scale"], SYMMETRIES["translation"]


class Point(eqx.Module):
    """A model that is nothing but its parameters."""

    w: jax.Array


def _w(model):
    return model.w


class Tanh(tx.AbstractTask):
    """A tanh unit with weight normalisation, on eight examples."""

    inputs: jax.Array
    targets: jax.Array

    def loss(self, model):
        unit = model.w / jnp.linalg.norm(model.w)
        return jnp.mean((jnp.tanh(self.inputs @ unit) - self.targets) ** 2) / 2


UNIT = Point(jnp.asarray([0.9, -0.6, 0.3]))
EXAMPLES = Tanh(jnp.asarray(np.random.default_rng(3).normal(size=(8, 3))), jnp.asarray([1.0, -1, 1, 1, -1, -1, 1, -1]))
NORM = ScaleSymmetry(_w)


def _gradient_of_batch(model, batch):
    return jax.grad(TASK.batch_loss)(model, batch)


gradient_of_batch = jax.jit(_gradient_of_batch)


def test_identities_hold_on_every_batch_and_charges_follow_exactly():
    eta, gamma = 0.4, 0.1
    model = MODEL
    for key in jax.random.split(jax.random.key(0), 5):
        gradient = gradient_of_batch(model, TASK.sample(key, 2))
        stepped = jax.tree.map(lambda w, g: (1 - eta * gamma) * w - eta * g, model, gradient)
        for symmetry in SYMMETRIES.values():
            assert float(symmetry.violation(model, gradient)) < 1e-14
            predicted = charge_after_step(symmetry, model, gradient, eta, gamma)
            np.testing.assert_allclose(symmetry.charge(stepped), predicted, rtol=1e-13, atol=1e-14)
        model = stepped
    np.testing.assert_allclose(SCALE.charge(MODEL), np.sum(np.square(MODEL.first), axis=1), rtol=1e-14)
    np.testing.assert_allclose(TRANSLATION.charge(MODEL), np.sum(MODEL.third, axis=0), rtol=1e-13)
    rescaled = np.sum(np.square(MODEL.second), axis=1) - np.sum(np.square(MODEL.third), axis=0)
    np.testing.assert_allclose(SYMMETRIES["rescale"].charge(MODEL), rescaled, rtol=1e-13)


@pytest.mark.slow
def test_derivatives_of_the_identities():
    # H1 = 0, Hw = -g and g(cw) = g(w)/c.
    gradient, curved = jax.jvp(jax.grad(EXAMPLES.loss), (UNIT,), (UNIT,))
    np.testing.assert_allclose(curved.w, -gradient.w, rtol=1e-12)
    np.testing.assert_allclose(jax.grad(EXAMPLES.loss)(Point(3 * UNIT.w)).w, gradient.w / 3, rtol=1e-12)


def test_units_of_other_powers():
    model, task = _network(power=2)
    gradient = jax.jit(jax.grad(task.loss))(model)
    assert float(model.symmetries()["rescale"].violation(model, gradient)) < 1e-14
    assert float(RescaleSymmetry(lambda m: (m.second, m.third.T)).violation(model, gradient)) > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scale", "translation", "rescale"])
def test_gradient_flow(name):
    rule = tx.GradientFlow(2.0, weight_decay=0.3)
    model, task = _network(power=2)
    solution = NoetherCharges.from_model(model, task, rule, symmetry=model.symmetries()[name])
    run = tx.train(model, task, rule, jnp.linspace(0.0, 5.0, 6), observe=solution.reduce)
    assert float(tx.compare(solution, run).worst) < 1e-7
    assert float(tx.residual(solution, [0.0, 1.0, 30.0]).worst) < 1e-14
    degree = 1 if name == "translation" else 2
    expected = np.exp(-degree * 0.3 * 4.0 / 2.0) * solution.initial.charge
    np.testing.assert_allclose(solution.evaluate(4.0).charge, expected, rtol=1e-14)
    assert jnp.all(solution.limit().charge == 0) and jnp.all(solution.evaluate(1e300).charge == 0)


inertial = jax.jit(
    lambda m, c, r, ts: jax.vmap(
        NoetherCharges.from_model(MODEL, TASK, InertialFlow(m, c, r), symmetry=TRANSLATION, check=False).evaluate
    )(ts).charge[:, 0]
)


@pytest.mark.parametrize(
    ("mass", "friction", "decay"),
    [(0.4, 0.1, 0.7), (1.0, 4.0, 0.5), (1.0, 2.0, 1.0), (1.0, 2.0, 0.0), (1.0, 0.0, 2.0), (1e-3, 1.0, 0.3)],
    ids=["under", "over", "critical", "no decay", "no friction", "light"],
)
def test_translations_under_inertia(mass, friction, decay):
    ts = np.asarray([0.0, 1e-3, 0.7, 5.0, 20.0, 1e12])
    generator = np.asarray([[0.0, 1.0], [-decay / mass, -friction / mass]])
    exact = [scipy.linalg.expm(generator * t)[0, 0] for t in ts[:-1]]
    found = inertial(mass, friction, decay, jnp.asarray(ts)) / inertial(mass, friction, decay, jnp.zeros(6))
    np.testing.assert_allclose(found[:-1], exact, rtol=1e-11, atol=1e-12)
    if friction > 0:
        assert float(found[-1]) == pytest.approx(1.0 if decay == 0 else 0.0, abs=1e-14)
        at_infinity = inertial(mass, friction, decay, jnp.full(6, jnp.inf))
        assert float(at_infinity[0]) == pytest.approx(float(found[-1] * inertial(mass, friction, decay, jnp.zeros(6))[0]))


@pytest.mark.slow
def test_inertia_breaks_scale_and_damps_rotation():
    # Along the field: m Q'' + c Q' + 2 r Q = 2 m |v|², and m d(vᵀAw)/dt + c vᵀAw = 0 where the loss sees lengths only.
    rule = InertialFlow(0.7, 0.4, 0.2)
    velocity = Point(jnp.asarray([0.2, 0.5, -0.1]))

    def derivative(function, task, state):
        field = rule.vector_field(0.0, state, tx.Objective(task, Point(None)))
        return jax.jvp(function, (state,), (field,))[1]

    def rate(state):
        return 2 * NORM.momentum(state[0], state[1])

    state = (UNIT, velocity)
    left = 0.7 * derivative(rate, EXAMPLES, state) + 0.4 * rate(state) + 2 * 0.2 * NORM.charge(UNIT)
    assert float(left) == pytest.approx(2 * 0.7 * float(jnp.sum(velocity.w**2)), rel=1e-13)

    class Ring(tx.AbstractTask):
        def loss(self, model):
            return (jnp.sum(model.w**2) - 1) ** 2

    turn = RotationSymmetry(_w, [[0.0, 1.0, -2.0], [-1.0, 0.0, 0.5], [2.0, -0.5, 0.0]])
    spin = turn.momentum(*state)
    change = derivative(lambda s: turn.momentum(*s), Ring(), state)
    assert float(change) == pytest.approx(float(-0.4 / 0.7 * spin), rel=1e-13)
    assert abs(float(spin)) > 0.1 and abs(float(turn.charge(UNIT))) < 1e-15


@pytest.mark.parametrize("beta", [pytest.param(0.0, marks=pytest.mark.slow), 0.9])
def test_translations_with_momentum(beta):
    eta, gamma, steps = 0.3, 0.2, 60
    rule = tx.GradientDescent(eta, optax.chain(optax.add_decayed_weights(gamma), optax.sgd(eta, beta)))
    run = tx.train(MODEL, TASK, rule, [eta * steps], observe=TRANSLATION.charge)
    predicted = translation_charge_after_steps(TRANSLATION.charge(MODEL), steps, eta, beta, gamma)
    np.testing.assert_allclose(run.observed[0], predicted, rtol=1e-12, atol=1e-13)


def test_inertia_from_rest_lags_behind_momentum():
    # By η/(2(1 - β)) times the pull rQ of the decay, on a charge that relaxes as exp(-rt/(1 - β)).
    beta, decay, eta = 0.5, 0.7, 2**-14
    flow = inertial(eta * (1 + beta) / 2, 1 - beta, decay, jnp.asarray([0.0, 1.0, 1.0, 1.0, 1.0, 1.0]))
    steps = translation_charge_after_steps(flow[0], 2**14, eta, beta, decay)
    lag = decay / (2 * (1 - beta)) * np.exp(-decay / (1 - beta))
    assert float((flow[1] - steps) / (eta * flow[0])) == pytest.approx(lag, rel=2e-3)


def test_powers_of_the_recursion():
    matrix = np.asarray([[1 - 0.06, 0.9], [-0.06, 0.9]])
    power = jax.jit(translation_charge_after_steps)
    for steps in (0, 1, 7, 1000):
        expected = np.linalg.matrix_power(matrix, steps)[0, 0]
        assert float(power(1.0, steps, 0.3, 0.9, 0.2)) == pytest.approx(expected, rel=1e-11, abs=1e-300)
    assert float(power(2.0, 10**9, 0.3, 0.9, 0.2)) == 0.0
    assert float(power(2.0, 10**9, 0.3, 0.9, 0.0)) == pytest.approx(2.0, rel=1e-7)
    slope = jax.grad(lambda r: power(1.0, 3, 0.3, 0.9, r))(0.2)
    values = [float(power(1.0, 3, 0.3, 0.9, 0.2 + h)) for h in (1e-6, -1e-6)]
    assert float(slope) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-8)


def test_reference_equilibrium():
    assert float(equilibrium_norm(0.1, 0.01, 1.0)) == pytest.approx(2.236627204212922, rel=1e-15)
    assert float(equilibrium_angle(0.1, 0.01)) == pytest.approx(0.04472508716873345, rel=1e-15)
    assert float(equilibrium_angle(1e-8, 1e-8)) == pytest.approx(np.sqrt(2e-16), rel=1e-12)


def test_random_orthogonal_steps_turn_by_the_angle():
    eta, gamma, size = 0.1, 0.5, 1.7
    random = np.random.default_rng(0)
    w = np.asarray([0.3, -0.2, 0.5, 0.1])
    for _ in range(1000):
        noise = random.normal(size=4)
        noise -= noise @ w / (w @ w) * w
        before, w = w, (1 - eta * gamma) * w - eta * size * noise / np.linalg.norm(noise) / np.linalg.norm(w)
    assert w @ w == pytest.approx(float(equilibrium_norm(eta, gamma, size)), rel=1e-13)
    assert float(angle_between(before, w)) == pytest.approx(float(equilibrium_angle(eta, gamma)), rel=1e-13)


@pytest.mark.slow
def test_norm_is_that_of_the_modified_flow():
    # w' = -g - γw - (η/2)Hg, with SciPy; the average of its own gradients gives its norm.
    eta, gamma = 0.3, 0.2

    @jax.jit
    def field(w):
        g, hg = jax.jvp(jax.grad(lambda w: EXAMPLES.loss(Point(w))), (w,), (jax.grad(EXAMPLES.loss)(Point(w)).w,))
        return -g - gamma * w - eta / 2 * hg, jnp.sum(g**2)

    ts = np.linspace(0.0, 8.0, 1601)
    options = {"method": "DOP853", "rtol": 1e-11, "atol": 1e-13}
    run = scipy.integrate.solve_ivp(lambda _, w: np.asarray(field(w)[0]), (0, 8), UNIT.w, t_eval=ts, **options)
    norms = np.sum(run.y**2, axis=0)
    squares = norms * np.asarray(jax.vmap(lambda w: field(w)[1])(run.y.T))
    fine = norm_from_gradients(ts, squares, norms[0], eta, gamma)
    coarse = norm_from_gradients(ts[::2], squares[::2], norms[0], eta, gamma)
    # The lines between the times are an error of second order.
    np.testing.assert_allclose((4 * fine[::2] - coarse) / 3, norms[::2], rtol=1e-9)


def test_norm_from_constant_gradients():
    ts = jnp.asarray([0.0, 0.01, 3.0, 1e3, 1e6])
    found = norm_from_gradients(ts, jnp.full((5, 2), 4.0), jnp.asarray([0.3, 5.0]), 0.1, 0.02)
    decayed = np.exp(-0.08 * np.asarray(ts))[:, None]
    expected = np.sqrt(decayed * np.asarray([[0.09, 25.0]]) + 2 * 0.1 * 4.0 * (1 - decayed) / 0.08)
    np.testing.assert_allclose(found, expected, rtol=1e-13)
    growing = norm_from_gradients(ts, jnp.full(5, 4.0), 0.3, 0.1)
    np.testing.assert_allclose(growing, np.sqrt(0.09 + 0.8 * np.asarray(ts)), rtol=1e-13)


@pytest.mark.slow
def test_norm_of_descent_to_first_order():
    time, gamma = 8.0, 0.1

    @jax.jit
    def error(eta, ts):
        def step(w, _):
            g = jax.grad(EXAMPLES.loss)(Point(w)).w
            return (1 - eta * gamma) * w - eta * g, (jnp.sum(w**2), jnp.sum(g**2))

        norms, squares = jax.lax.scan(step, UNIT.w, length=321)[1]
        predicted = norm_from_gradients(ts, norms * squares, norms[0], eta, gamma)
        return jnp.max(jnp.where(ts <= time, jnp.abs(predicted / norms - 1), 0.0))

    fit = tx.scaling(lambda eta: error(eta, eta * jnp.arange(321.0)), [0.2, 0.1, 0.05, 0.025], correction=1.0)
    assert float(fit.exponent) == pytest.approx(1, abs=0.1)


def test_modified_flow_with_decay_knows_the_norm():
    # d|w|²/dt = η|g|² - (2γ + ηγ²)|w|² along the flow of second order.
    eta, gamma = 0.3, 0.2
    velocity = ModifiedFlow(eta, 2, gamma).vector_field(0.0, UNIT, tx.Objective(EXAMPLES, Point(None)))
    change = 2 * NORM.momentum(UNIT, velocity)
    gradient = jax.grad(EXAMPLES.loss)(UNIT)
    expected = eta * NORM.charge(gradient) - (2 * gamma + eta * gamma**2) * NORM.charge(UNIT)
    assert float(change) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.slow
def test_float32_vmap_and_grad():
    model = jax.tree.map(lambda x: x.astype(jnp.float32), MODEL)
    task = jax.tree.map(lambda x: x.astype(jnp.float32), TASK)

    @jax.jit
    @jax.vmap
    def charge(decay):
        rule = tx.GradientFlow(weight_decay=decay)
        return NoetherCharges.from_model(model, task, rule, symmetry=SCALE).evaluate(2.0).charge

    decays = jnp.asarray([0.0, 0.3])
    found = charge(decays)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, np.exp(-4 * decays)[:, None] * SCALE.charge(MODEL)[None, :], rtol=1e-5)
    np.testing.assert_allclose(jax.jacfwd(charge)(decays)[1, :, 1], -4 * found[1], rtol=1e-5)


class Epsilon(tx.AbstractTask):
    """A normalisation with a small number in its denominator."""

    def loss(self, model):
        return jnp.sum(jnp.sin(model.w / jnp.sqrt(jnp.sum(model.w**2) + 0.1)))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: NoetherCharges.from_model(UNIT, Epsilon(), symmetry=NORM), "a symmetry of the loss.*FAILS"),
        (lambda: NoetherCharges.from_model(Point(jnp.zeros(3)), EXAMPLES, symmetry=NORM), "FAILS"),
        (lambda: NoetherCharges.from_model(MODEL, TASK, tx.GradientDescent(0.1), symmetry=SCALE), "tx.GradientFlow"),
        (lambda: NoetherCharges.from_model(MODEL, TASK, InertialFlow(1.0), symmetry=SCALE), "be a TranslationSymmetry"),
        (lambda: NoetherCharges.from_model(MODEL, TASK, symmetry=_w), "`symmetry` must be one"),
        (lambda: NoetherCharges.from_model(UNIT, EXAMPLES, symmetry=RotationSymmetry(_w, np.zeros((3, 3)))), "momentum"),
        (lambda: TranslationSymmetry(lambda m: jnp.sum(m.w)).charge(UNIT), "`where` must return an array"),
        (lambda: RescaleSymmetry(_w).charge(UNIT), r"`where` must return 2 array\(s\)"),
        (lambda: RotationSymmetry(_w, np.eye(3)), "`matrix` must be antisymmetric"),
        (lambda: RotationSymmetry(_w, np.zeros((2, 2))).charge(UNIT), "`matrix` must rotate a last axis of length 3"),
        (lambda: NormalisedNetwork(np.zeros((1, 2)), [[1.0]], [[1.0]]), "`first` must have no row of zeros"),
        (lambda: NormalisedNetwork(np.ones((1, 2)), [[1.0]], [[1.0]], 3), "`power` must be 1 or 2; got 3"),
        (lambda: InertialFlow(0.0), "`mass` must be positive"),
        (lambda: InertialFlow(1.0, -0.1), "`friction` must be non-negative"),
        (lambda: InertialFlow.from_momentum(0.1, 1.0), "`momentum` must lie below 1"),
        (lambda: ModifiedFlow(0.1, 2, -1.0), "`weight_decay` must be non-negative"),
        (lambda: charge_after_step(NORM, UNIT, UNIT, -0.1), "`learning_rate` must be non-negative"),
        (lambda: translation_charge_after_steps(1.0, -1, 0.1), "`steps` must not be negative"),
        (lambda: translation_charge_after_steps(1.0, 1.5, 0.1), "`steps` must be a whole number"),
        (lambda: equilibrium_norm(1.0, 2.0, 1.0), "`weight_decay` must lie below 2 / learning_rate"),
        (lambda: equilibrium_angle(0.1, 0.0), "`weight_decay` must be positive"),
        (lambda: norm_from_gradients(jnp.arange(2.0), jnp.ones(1), 1.0, 0.1), "one row for each of 2 times"),
        (lambda: norm_from_gradients(jnp.arange(2.0), jnp.ones(2), 0.0, 0.1), "`initial` must be positive"),
        (lambda: angle_between(jnp.ones(2), jnp.ones(3)), "must have one shape"),
    ],
)
def test_refuses(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_no_limit_without_friction():
    def solution(rule):
        return NoetherCharges.from_model(MODEL, TASK, rule, symmetry=TRANSLATION, check=False)

    with pytest.raises(ValueError, match="without friction"):
        solution(InertialFlow(1.0, 0.0, 0.1)).limit()
    with pytest.raises(ValueError, match="second order"):
        inertial = solution(InertialFlow(1.0))
        inertial.vector_field(0.0, inertial.initial)
    np.testing.assert_array_equal(solution(InertialFlow(1.0, 0.0)).limit().charge, TRANSLATION.charge(MODEL))
