"""Soft committee machines: reference values, plateau, noise floor, linear units in closed form, simulations, refusals."""

import functools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.optimize

import tractax as tx
from tractax.analysis import Custom, Erf, Linear, ReLU
from tractax.deep_linear import DeepLinear
from tractax.systems.teacher_student._soft_committee import noisy_case, plateau_case
from tractax.teacher_student import (
    CommitteeTask,
    OnlineSGD,
    Overlaps,
    SoftCommittee,
    SoftCommitteeFlow,
    committees,
    noise_floor,
    specialisation_rate,
    symmetric_plateau,
)


@functools.cache
def noisy():
    model, task, rule = noisy_case(10)
    return SoftCommitteeFlow.from_model(model, task, rule, t1=100.0)


def overlapping(student, cross, **options):
    """Student and teacher with these overlaps; the teacher's units are orthonormal."""
    student, cross = jnp.asarray(student), jnp.asarray(cross)
    return committees(student, cross, jnp.eye(cross.shape[1]), key=jax.random.key(0), **options)


@pytest.mark.slow
def test_reference_start():
    solution = noisy()
    start = solution.evaluate(0.0)
    speed = solution.vector_field(jnp.asarray(0.0), start)
    assert float(solution.error_of(start)) == pytest.approx(0.38944593374202, rel=1e-13)
    entries = [speed.student[0, 0], speed.student[0, 1], speed.student[1, 1]]
    np.testing.assert_allclose(entries, [0.034549706917, -0.003482273093, -0.003614675814], atol=1e-12)
    cross = [[0.190135272233, 0.162544030286], [0.177998494282, 0.162853335075]]
    np.testing.assert_allclose(speed.cross, cross, atol=1e-12)
    np.testing.assert_allclose(speed.readout, [-0.041375791207, -0.063138819705], atol=1e-12)


@pytest.mark.parametrize(
    ("t", "error"),
    [(1.0, 0.1955578416584), (3.0, 0.06108628598496), (10.0, 0.01646512225915), (100.0, 0.003674656869797)],
)
def test_reference_errors(t, error):
    assert float(noisy().generalisation_error(t)) == pytest.approx(error, rel=2e-9)


def test_residual():
    assert float(tx.residual(noisy(), jnp.asarray([0.3, 3.0, 30.0])).worst) < 1e-8


@pytest.mark.slow
def test_loss_is_that_of_samples():
    model, task, _ = noisy_case(20)
    losses = jax.vmap(lambda key: task.batch_loss(model, task.sample(key, 1000)))(
        jax.random.split(jax.random.key(0), 100)
    )
    error = float(jnp.std(losses)) / 10
    assert float(task.loss(model)) == pytest.approx(float(jnp.mean(losses)), abs=4 * error)
    assert error < 0.01 * float(task.loss(model))
    assert float(task.loss(task.teacher)) == pytest.approx(0.1**2 / 2, rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("units", [1, 2, 3])
def test_symmetric_plateau_is_at_rest(units):
    overlaps, error = symmetric_plateau(units)
    model, teacher = committees(overlaps.student, overlaps.cross, jnp.eye(units), size=2 * units, key=jax.random.key(0))
    task = CommitteeTask(teacher)
    assert float(task.generalisation_error(model)) == pytest.approx(float(error), abs=1e-12)
    eta = 1e-6
    solution = SoftCommitteeFlow.from_model(model, task, OnlineSGD(eta, 2 * units), t1=1.0)
    speed = solution.vector_field(jnp.asarray(0.0), solution.evaluate(0.0))
    assert max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(speed)) < 1e-5 * eta


def test_reference_rates_of_specialisation():
    assert float(specialisation_rate(2)) == pytest.approx(0.0657498, abs=5e-8)
    assert float(specialisation_rate(3, 0.1)) == pytest.approx(0.00461179, abs=5e-9)


@pytest.mark.slow
@pytest.mark.parametrize("units", [2, 3])
def test_specialisation_rate_is_an_eigenvalue(units):
    overlaps, _ = symmetric_plateau(units)
    model, teacher = committees(overlaps.student, overlaps.cross, jnp.eye(units), size=2 * units, key=jax.random.key(0))
    eta = 1e-6
    solution = SoftCommitteeFlow.from_model(model, CommitteeTask(teacher), OnlineSGD(eta, 2 * units), t1=1.0)
    # One student grows towards one teacher, and away from another.
    tilt = jnp.zeros((units, units)).at[:2, :2].set(jnp.asarray([[1.0, -1.0], [-1.0, 1.0]]))
    tangent = Overlaps(jnp.zeros((units, units)), tilt, jnp.zeros(units))
    speed = jax.jvp(lambda state: solution.vector_field(jnp.asarray(0.0), state), (overlaps,), (tangent,))[1]
    rate = float(specialisation_rate(units, eta))
    np.testing.assert_allclose(speed.cross, rate * tilt, atol=1e-5 * eta)
    np.testing.assert_allclose(speed.student, 0.0, atol=1e-5 * eta)


def test_specialisation_time():
    solution = SoftCommitteeFlow.from_model(*plateau_case(10), t1=600.0)

    def gap(t):
        cross = solution.evaluate(t).cross
        return float(cross[0, 0] - cross[0, 1]) - 0.3

    assert scipy.optimize.brentq(gap, 500, 600, xtol=1e-4) == pytest.approx(540.79, abs=0.006)


@pytest.mark.slow
def test_noise_floor_of_two_surplus_units_is_a_plateau():
    student = np.diag([1.0, 0.01, 0.01])
    model, teacher = overlapping(student, [[1.0], [0.0], [0.0]], size=4)
    rule, task = OnlineSGD(0.05, 4), CommitteeTask(teacher, noise_scale=0.1)
    control = diffrax.PIDController(rtol=1e-7, atol=1e-10)
    options = {"solver": diffrax.Kvaerno5(), "stepsize_controller": control}
    solution = SoftCommitteeFlow.from_model(model, task, rule, t1=1e6, **options)
    scale = 0.05 * 0.1**2
    assert float(noise_floor(0.05, 0.1, student=3, teacher=1)) / scale == pytest.approx(0.4102, abs=1e-4)
    for t, error in ((1e4, 0.4260), (1e5, 0.4198), (1e6, 0.2311)):
        assert float(solution.generalisation_error(t)) / scale == pytest.approx(error, abs=1e-4)


@pytest.mark.slow
def test_surplus_units_do_no_harm_where_both_layers_learn():
    draw = np.random.default_rng(4).normal(size=(4, 6)) * 0.6
    model, teacher = overlapping(draw @ draw.T, draw[:, :2], size=6)
    rule, task = OnlineSGD(0.1, 6, readout_rate=0.1), CommitteeTask(teacher, noise_scale=0.1)
    control = diffrax.PIDController(rtol=1e-7, atol=1e-10)
    options = {"solver": diffrax.Kvaerno5(), "stepsize_controller": control}
    solution = SoftCommitteeFlow.from_model(model, task, rule, t1=3e4, **options)
    needed, given = (float(noise_floor(0.1, 0.1, student=units, teacher=2)) for units in (2, 4))
    assert float(solution.generalisation_error(3e4)) == pytest.approx(needed, rel=0.1)
    assert given > 2.5 * needed


@pytest.mark.slow
def test_noise_floor_as_the_rate_falls():
    def relative_excess(eta):
        model, teacher = overlapping([[1.0, 0.0], [0.0, 0.01]], [[1.0], [0.0]], size=4)
        task = CommitteeTask(teacher, noise_scale=0.1)
        solution = SoftCommitteeFlow.from_model(model, task, OnlineSGD(eta, 4), t1=60 / eta)
        floor = noise_floor(eta, 0.1, student=2, teacher=1)
        return float(solution.generalisation_error(60 / eta) / floor) - 1

    assert tx.scaling(relative_excess, [0.2, 0.1, 0.05, 0.025], correction=1.0).contains(1.0)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 4])
def test_linear_units_in_closed_form(batch):
    # One linear unit: R relaxes at rate η, the error at rate 2η - η²/B towards its floor.
    eta, sigma = 0.5, 0.2
    model, teacher = committees(
        0.4 * jnp.eye(1), 0.1 * jnp.eye(1), jnp.eye(1), size=10, key=jax.random.key(0), activation=Linear()
    )
    task, rule = CommitteeTask(teacher, sigma), OnlineSGD(eta, 10, batch_size=batch)
    solution = SoftCommitteeFlow.from_model(model, task, rule, t1=5.0)
    rate = 2 * eta - eta**2 / batch
    floor = eta**2 * sigma**2 / (2 * batch) / rate
    for t in (1.0, 5.0):
        assert float(solution.evaluate(t).cross[0, 0]) == pytest.approx(1 - 0.9 * np.exp(-eta * t), rel=1e-9)
        expected = floor + (0.6 - floor) * np.exp(-rate * t)
        assert float(solution.generalisation_error(t)) == pytest.approx(expected, rel=1e-9)
        if batch == 1:
            assert expected == pytest.approx({1.0: 0.28693748795967, 5.0: 0.02062052920790}[t], rel=1e-12)


@pytest.mark.slow
def test_linear_units_at_finite_size():
    # The mean error of N = 10, in closed form for every step, against single steps averaged over examples.
    n, eta, sigma = 10, 0.5, 0.2
    model, teacher = committees(
        0.4 * jnp.eye(1), 0.1 * jnp.eye(1), jnp.eye(1), size=n, key=jax.random.key(0), activation=Linear()
    )
    task, rule = CommitteeTask(teacher, sigma), OnlineSGD(eta, n)

    def run(key):
        return tx.train(model, task, rule, jnp.asarray([1.0, 5.0]), observe=task.generalisation_error, key=key).observed

    errors = tx.ensemble(run, jax.random.split(jax.random.key(1), 4000))
    expected = jnp.asarray([0.29407522497058, 0.02288621924224])
    scatter = jnp.std(errors, axis=0) / 4000**0.5
    assert jnp.all(jnp.abs(jnp.mean(errors, axis=0) - expected) < 4 * scatter)
    assert jnp.all(scatter < 0.02 * expected)


@pytest.mark.slow
@pytest.mark.parametrize("activation", [ReLU(), Custom(jnp.tanh, 8)])
def test_other_activations_against_simulation(activation):
    model, teacher = overlapping([[0.3, 0.1], [0.1, 0.3]], [[0.1], [0.2]], size=400, activation=activation)
    task, rule = CommitteeTask(teacher, 0.1), OnlineSGD(0.3, 400)
    solution = SoftCommitteeFlow.from_model(model, task, rule, t1=2.0)

    def run(key):
        return tx.train(model, task, rule, jnp.asarray([2.0]), observe=solution.reduce, key=key).observed

    observed = tx.ensemble(run, jax.random.split(jax.random.key(1), 40))
    limit = solution.evaluate(2.0)
    for found, expected in ((observed.student[:, 0], limit.student), (observed.cross[:, 0], limit.cross)):
        # A mean of 40 runs: its scatter and a bias of 1/N.
        allowed = 4 * jnp.std(found, axis=0) / 40**0.5 + 1 / 400
        assert jnp.all(jnp.abs(jnp.mean(found, axis=0) - expected) < allowed)
        assert jnp.all(allowed < 0.03)


@pytest.mark.slow
def test_bias_of_the_mean_falls_as_one_over_n():
    def bias(size):
        model, task, rule = noisy_case(int(size))
        solution = SoftCommitteeFlow.from_model(model, task, rule, t1=3.0)
        limit = solution.evaluate(3.0)

        def run(key):
            return tx.train(model, task, rule, jnp.asarray([3.0]), observe=solution.reduce, key=key).observed

        observed = tx.ensemble(run, jax.random.split(jax.random.key(int(size)), 20000), chunk_size=2000)
        mean = jax.tree.map(lambda x: jnp.mean(x[:, 0], axis=0), observed)
        off = jax.tree.map(lambda x, y: jnp.sum((x - y) ** 2), mean, limit)
        return float(jnp.sqrt(sum(jax.tree.leaves(off))))

    assert float(tx.scaling(bias, [10, 20, 40]).exponent) == pytest.approx(-1.0, abs=0.2)


@pytest.mark.slow
def test_gradient_with_respect_to_the_learning_rate():
    model, task, _ = noisy_case(8)

    def error(eta):
        return SoftCommitteeFlow.from_model(model, task, OnlineSGD(eta, 8), t1=2.0).generalisation_error(2.0)

    slope = (error(0.501) - error(0.499)) / 0.002
    assert float(jax.grad(error)(0.5)) == pytest.approx(float(slope), rel=1e-5)


def test_equal_to_scipy():
    solution = noisy()
    model = noisy_case(10)[0]
    flat, unravel = jax.flatten_util.ravel_pytree(solution.reduce(model))
    field = jax.jit(lambda y: jax.flatten_util.ravel_pytree(solution.vector_field(jnp.asarray(0.0), unravel(y)))[0])
    end = scipy.integrate.solve_ivp(
        lambda t, y: np.asarray(field(y)), (0, 20.0), flat, method="LSODA", rtol=1e-11, atol=1e-13
    )
    np.testing.assert_allclose(jax.flatten_util.ravel_pytree(solution.evaluate(20.0))[0], end.y[:, -1], rtol=1e-8)


def test_refusals():
    model, task, rule = noisy_case(10)
    with pytest.raises(ValueError, match="`rule` must be OnlineSGD"):
        SoftCommitteeFlow.from_model(model, task, tx.GradientFlow(), t1=1.0)
    with pytest.raises(ValueError, match="`model` must be a SoftCommittee"):
        SoftCommitteeFlow.from_model(DeepLinear((jnp.ones((1, 10)),)), task, rule, t1=1.0)
    with pytest.raises(ValueError, match="`model` must have 10 inputs"):
        SoftCommitteeFlow.from_model(SoftCommittee(jnp.ones((2, 9))), task, rule, t1=1.0)
    with pytest.raises(ValueError, match="`model` must have the teacher's activation"):
        SoftCommitteeFlow.from_model(SoftCommittee(jnp.ones((2, 10)), activation=ReLU()), task, rule, t1=1.0)
    with pytest.raises(ValueError, match="positive semi-definite"):
        overlapping([[0.3]], [[0.9]], size=4)
    with pytest.raises(ValueError, match="`size` must be at least 2"):
        overlapping([[0.3]], [[0.1]], size=1)
    with pytest.raises(ValueError, match="`cross` must have shape"):
        committees(jnp.zeros((0, 0)), jnp.zeros((0, 1)), jnp.eye(1), size=4, key=jax.random.key(0))
    with pytest.raises(ValueError, match="`activation` must know its Gaussian averages"):
        SoftCommittee(jnp.ones((2, 3)), activation=jnp.tanh)
    with pytest.raises(ValueError, match="`noise_scale` must be non-negative"):
        CommitteeTask(model, -0.1)
    with pytest.raises(ValueError, match=r"`noise_scale` must have shape \(\) .* got \(2,\)"):
        CommitteeTask(model, jnp.asarray([0.1, 0.2]))
    with pytest.raises(ValueError, match="`teacher` must be a SoftCommittee"):
        CommitteeTask(None)
    with pytest.raises(ValueError, match="`learning_rate` must be positive"):
        OnlineSGD(-0.1, 10)
    with pytest.raises(ValueError, match="`batch_size` must be a whole number of at least 1; got 0"):
        OnlineSGD(0.1, 10, batch_size=0)
    with pytest.raises(ValueError, match="`student` must be at least `teacher`"):
        noise_floor(0.1, 0.1, student=1, teacher=2)
    with pytest.raises(ValueError, match="`units` must be a whole number of at least 2"):
        specialisation_rate(1)
    with pytest.raises(ValueError, match="`units` must be a whole number"):
        symmetric_plateau(True)
    with pytest.raises(ValueError, match="`size` must be a whole number"):
        overlapping([[0.3]], [[0.1]], size=True)
    with pytest.raises(ValueError, match="a step takes the time 1/N: FAILS"):
        SoftCommitteeFlow.from_model(model, task, OnlineSGD(0.5, 11), t1=1.0)
    with pytest.raises(ValueError, match="`model` must have 10 inputs"):
        noisy().reduce(SoftCommittee(jnp.ones((2, 9))))
    with pytest.raises(ValueError, match="`units` must be a whole number of at least 1"):
        symmetric_plateau(0)
    with pytest.raises(ValueError, match="could not be integrated"):
        model, teacher = overlapping([[0.4]], [[0.1]], size=4, activation=Linear())
        SoftCommitteeFlow.from_model(model, CommitteeTask(teacher), OnlineSGD(3.0, 4), t1=1e3)


@pytest.mark.slow
def test_float32_and_units_that_equal_the_teacher():
    single = jnp.float32
    model, teacher = committees(
        jnp.eye(2, dtype=single), jnp.eye(2, dtype=single), jnp.eye(2, dtype=single), size=4, key=jax.random.key(0)
    )
    solution = SoftCommitteeFlow.from_model(model, CommitteeTask(teacher, 0.1), OnlineSGD(0.1, 4), t1=10.0)
    state = solution.evaluate(10.0)
    assert state.student.dtype == single and Erf() == model.activation
    assert abs(float(solution.error_of(solution.evaluate(0.0)))) < 1e-6
    assert 0 < float(solution.generalisation_error(10.0)) < 1e-3
