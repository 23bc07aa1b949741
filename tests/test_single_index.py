"""Single-index models: reference values, every order and sign, Hermite links, times, online SGD, refusals."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.integrate
import scipy.special

import tractax as tx
from tractax.teacher_student import (
    HermiteLink,
    MixedSingleIndexFlow,
    OnlineSingleIndex,
    SingleIndex,
    SingleIndexFlow,
    SingleIndexTask,
    SphericalFlow,
    SphericalSGD,
    escape_time,
    flow_exponent,
    gradient_noise,
    information_exponent,
    overlap_of_order,
    passage_time,
    sample_exponent,
    single_indices,
)

LINE, SQUARE = HermiteLink([0.0, 1.0]), HermiteLink([1.0], orders=(2,))
MIXED = HermiteLink([0.3, 0.5, -0.4, 0.2]), HermiteLink([0.1, 0.6, 0.7, 0.5])


def case(overlap=0.3, links=(SQUARE, SQUARE), size=6, noise=0.0):
    student, teacher = single_indices(overlap, size=size, student=links[0], teacher=links[1], key=jax.random.key(0))
    return student, SingleIndexTask(teacher, noise)


@jax.jit
def _overlaps(starts, signals, ts):
    """All orders, starts, signals and times at once."""
    orders = []
    for order in (1, 2, 3, 4, 5, 8):
        f = jax.vmap(lambda m, c, t, order=order: overlap_of_order(m, c, t, order=order), (None, None, 0))
        orders.append(jax.vmap(jax.vmap(f, (None, 0, None)), (0, None, None))(starts, signals, ts))
    return jnp.stack(orders)


STARTS, SIGNALS = np.asarray([0.2, -0.3, 0.95, -0.999, 1e-3, 0.0, 1.0, -1.0]), np.asarray([0.7, -0.4, 0.0])


@pytest.fixture(scope="module")
def overlaps():
    ts = jnp.asarray([0.0, 1e-6, 0.5, 3.0, 1e3, 1e9, 1e300, jnp.inf])
    return np.asarray(_overlaps(jnp.asarray(STARTS), jnp.asarray(SIGNALS), ts))


def test_reference_values():
    assert float(passage_time(0.2, 0.5, 0.7, order=3)) == pytest.approx(1.593606471562, abs=6e-13)
    assert float(overlap_of_order(0.2, 0.7, 1.0, order=2)) == pytest.approx(0.637649100324, abs=6e-13)
    assert float(overlap_of_order(0.2, 0.7, 1.593606471562, order=3)) == pytest.approx(0.5, abs=6e-13)


def test_every_order_start_and_sign_against_scipy(overlaps):
    for i, order in enumerate((1, 2, 3, 4, 5, 8)):

        def field(_, m, order=order):
            grid = m.reshape(STARTS.size, SIGNALS.size)
            return ((1 - grid**2) * order * SIGNALS[None, :] * grid ** (order - 1)).ravel()

        start = np.repeat(STARTS, SIGNALS.size)
        run = scipy.integrate.solve_ivp(field, (0, 3.0), start, "DOP853", [0, 1e-6, 0.5, 3.0], rtol=1e-12, atol=1e-15)
        expected = run.y.reshape(STARTS.size, SIGNALS.size, 4)
        np.testing.assert_allclose(overlaps[i, :, :, :4], expected, atol=2e-10, err_msg=f"order {order}")


def test_late_times_and_ends(overlaps):
    assert np.all(np.isfinite(overlaps)) and np.all(np.abs(overlaps) <= 1)
    np.testing.assert_allclose(overlaps[..., 0], np.broadcast_to(STARTS[None, :, None], overlaps.shape[:3]), rtol=1e-15)
    end = dict(zip((1, 2, 3, 4, 5, 8), overlaps[..., -1], strict=True))
    # Columns: c > 0, c < 0, no signal. Rows: starts 0.2, -0.3, 0.95, -0.999, 1e-3, 0, 1, -1.
    np.testing.assert_allclose(end[1][:, :2], [[1, -1]] * 6 + [[1, 1], [-1, -1]], atol=1e-15)
    for order in (2, 4, 8):
        np.testing.assert_allclose(end[order][:, 0], [1, -1, 1, -1, 1, 0, 1, -1], atol=1e-150)
        np.testing.assert_allclose(end[order][:, 1], [0, 0, 0, 0, 0, 0, 1, -1], atol=1e-150)
    for order in (3, 5):
        # A start below zero is stopped at zero, or taken to -1.
        np.testing.assert_allclose(end[order][:, 0], [1, 0, 1, 0, 1, 0, 1, -1], atol=1e-150)
        np.testing.assert_allclose(end[order][:, 1], [0, -1, 0, -1, 0, 0, 1, -1], atol=1e-150)
    np.testing.assert_allclose(overlaps[..., 2, :], np.broadcast_to(STARTS[None, :, None], overlaps[..., 2, :].shape))
    # Decay as a power: F_5 ≈ -1/(3m³).
    assert overlaps[4, 0, 1, 5] == pytest.approx((3 * 5 * 0.4 * 1e9) ** (-1 / 3), rel=1e-5)


def test_inversion_to_many_digits():
    mpmath.mp.dps = 40
    for order, start, signal, t in ((3, 1e-4, 0.7, 4761.0), (6, 0.1, 0.3, 1417.0), (4, 0.9, -2.0, 1e4)):

        def clock(m, order=order):
            time = mpmath.atanh(m) if order % 2 else mpmath.log(m / mpmath.sqrt(1 - m**2))
            return time - mpmath.fsum(1 / (j * m**j) for j in range(order - 2, 0, -2))

        target = clock(mpmath.mpf(start)) + order * mpmath.mpf(signal) * t
        found = mpmath.mpf(float(overlap_of_order(start, signal, t, order=order)))
        slope = 1 / ((1 - found**2) * found ** (order - 1))
        # In units of the rounding of the elapsed time.
        error = (clock(found) - target) / max(slope * found, abs(target - clock(mpmath.mpf(start))))
        assert abs(error) < 1e-14


@pytest.mark.slow
def test_gradients_through_the_inversion():
    def m(x):
        return overlap_of_order(x[0], x[1], x[2], order=3)

    point = jnp.asarray([-0.4, -0.6, 1.2])
    slope = jax.jit(jax.grad(m))(point)
    for i, h in enumerate((1e-5, 1e-5, 1e-5)):
        step = h * jnp.eye(3)[i]
        assert float(slope[i]) == pytest.approx(float(m(point + step) - m(point - step)) / (2 * h), rel=1e-7)
    single = overlap_of_order(jnp.float32(0.2), jnp.float32(0.7), 1.5936065, order=3)
    assert single.dtype == jnp.float32 and float(single) == pytest.approx(0.5, abs=2e-6)


@pytest.mark.slow
def test_hermite_links():
    u = jnp.linspace(-3.0, 3.0, 7)
    link = HermiteLink([0.3, -0.2, 0.7], orders=(0, 2, 5))
    he = [scipy.special.eval_hermitenorm(k, np.asarray(u)) / scipy.special.factorial(k) ** 0.5 for k in range(6)]
    np.testing.assert_allclose(link(u), 0.3 * he[0] - 0.2 * he[2] + 0.7 * he[5], rtol=1e-13, atol=1e-14)
    np.testing.assert_array_equal(link.all_coefficients, [0.3, 0, -0.2, 0, 0, 0.7])
    again = HermiteLink.project(link, 6)
    np.testing.assert_allclose(again.coefficients, [0.3, 0, -0.2, 0, 0, 0.7, 0], atol=1e-13)
    np.testing.assert_allclose(HermiteLink.project(lambda u: u**3, 3).coefficients, [0, 3, 0, 6**0.5], atol=1e-12)
    assert information_exponent(HermiteLink.project(lambda u: u**4 - 6 * u**2, 6)) == 4
    assert information_exponent(HermiteLink.project(jnp.tanh, 5), HermiteLink([0, 0, 1, 1])) == 3


def test_population_loss_is_that_of_samples_and_of_quadrature():
    model, task = case(0.4, MIXED, noise=0.3)
    losses = jax.jit(jax.vmap(lambda key: task.batch_loss(model, task.sample(key, 2000))))(
        jax.random.split(jax.random.key(0), 50)
    )
    error = float(jnp.std(losses)) / 50**0.5
    assert abs(float(jnp.mean(losses)) - float(task.loss(model))) < 4 * error < 0.1 * float(task.loss(model))
    points, weights = np.polynomial.hermite_e.hermegauss(12)
    u, w = points[:, None], points[None, :]
    v = 0.4 * u + (1 - 0.4**2) ** 0.5 * w
    weight = np.outer(weights, weights) / (2 * np.pi)
    square = (np.asarray(MIXED[0](jnp.asarray(u + 0 * w))) - np.asarray(MIXED[1](jnp.asarray(v)))) ** 2
    assert float(task.loss(model)) == pytest.approx(float(np.sum(weight * square)) / 2 + 0.045, rel=1e-12)
    longer = jax.tree.map(lambda x: x, model)
    object.__setattr__(longer, "direction", 2.5 * model.direction)
    assert float(task.loss(longer)) == pytest.approx(float(task.loss(model)), rel=1e-13)


@pytest.mark.slow
def test_gradient_noise_by_quadrature():
    points, weights = np.polynomial.hermite_e.hermegauss(20)
    u, w = (x.ravel() for x in np.meshgrid(points, points, indexing="ij"))
    weight = np.outer(weights, weights).ravel() / (2 * np.pi)
    student, teacher = MIXED
    polynomial = gradient_noise(student, teacher, 0.4)
    slope = np.asarray(jax.jit(jax.vmap(jax.grad(student)))(u))
    answer = jax.jit(lambda u, v: student(u) - teacher(v))
    for m in (-0.9, 0.0, 0.35, 1.0):
        error = np.asarray(answer(u, m * u + (1 - m * m) ** 0.5 * w))
        expected = np.sum(weight * (error**2 + 0.4**2) * slope**2)
        assert float(jnp.polyval(polynomial[::-1], m)) == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(gradient_noise(LINE, LINE, 0.3), [2.09, -2.0], atol=1e-14)
    np.testing.assert_allclose(gradient_noise(SQUARE, SQUARE, 0.3), [12.18, 0, -12], atol=1e-13)


@pytest.mark.slow
def test_online_flow_of_squares_has_its_closed_form():
    eta, sigma = 0.15, 0.8
    model, task = case(0.3, noise=sigma)
    solution = OnlineSingleIndex.from_model(model, task, SphericalSGD(eta, 6), t1=30.0)
    rise, fall = 2 * eta - 6 * eta**2, eta**2 * sigma**2
    # A logistic equation for m².
    rate, top = 2 * (rise - fall), 1 - fall / rise
    for t in (0.0, 1.0, 7.0, 30.0):
        square = top / (1 + (top / 0.3**2 - 1) * np.exp(-rate * t))
        assert float(solution.evaluate(t).overlap) == pytest.approx(square**0.5, rel=1e-10)
    assert float(solution.limit().overlap) == pytest.approx(top**0.5, rel=1e-12)
    halved = OnlineSingleIndex.from_model(model, task, SphericalSGD(eta, 6, batch_size=4), t1=1.0)
    np.testing.assert_allclose(halved.velocity - eta * _drift(SQUARE), (solution.velocity - eta * _drift(SQUARE)) / 4)


def _drift(link):
    return MixedSingleIndexFlow.from_model(*case(0.3, (link, link)), SphericalFlow(), t1=1e-3).velocity


@pytest.mark.slow
def test_limits_of_mixed_links():
    links = HermiteLink([0, 0, 1, 1.0]), HermiteLink([0, 0, 1, -2.0])

    @jax.jit
    @jax.vmap
    def late_and_last(start):
        solution = MixedSingleIndexFlow.from_model(*case(start, links), SphericalFlow(), t1=60.0)
        return solution.evaluate(60.0).overlap, solution.limit().overlap

    late, last = late_and_last(jnp.asarray([0.1, 0.9, -0.1, 1.0]))
    np.testing.assert_allclose(last, [1 / 3, 1 / 3, -1.0, 1.0], atol=1e-12)
    np.testing.assert_allclose(late, last, atol=1e-8)
    cubes = HermiteLink([0, 0, 0, 1.0, 0, 0.5])
    stopped = MixedSingleIndexFlow.from_model(*case(-0.4, (cubes, cubes)), SphericalFlow(), t1=1.0)
    assert float(stopped.limit().overlap) == 0
    apart = MixedSingleIndexFlow.from_model(*case(-0.4, (LINE, SQUARE)), SphericalFlow(), t1=1.0)
    assert float(apart.limit().overlap) == pytest.approx(-0.4, rel=1e-14)
    assert float(SingleIndexFlow.from_model(*case(-0.4, (LINE, SQUARE)), SphericalFlow()).limit().overlap) == (
        pytest.approx(-0.4, rel=1e-14)
    )


@pytest.mark.slow
def test_direction_stays_on_the_sphere_and_links_stay_as_they_are():
    model, task = case(0.3, MIXED, noise=0.2)
    for rule, key in ((SphericalFlow(), None), (SphericalSGD(0.1, 6), jax.random.key(0))):
        trained = tx.train(model, task, rule, [2.0], key=key).model
        assert float(jnp.linalg.norm(trained.direction)) == pytest.approx(1.0, abs=1e-7)
        assert float(task.overlap(trained)) != pytest.approx(0.3, abs=1e-3)
        np.testing.assert_array_equal(trained.link.coefficients, model.link.coefficients)


def test_times_and_exponents():
    for order, start, end, signal in ((1, -0.5, 0.7, 0.3), (2, -0.1, -0.9, 1.5), (5, -0.3, -0.1, 0.4), (4, 0.2, 0.1, -1)):
        time = passage_time(start, end, float(signal), order=order)
        assert float(overlap_of_order(start, float(signal), time, order=order)) == pytest.approx(end, rel=1e-11)
    times = [passage_time(0.2, x, 1.0, order=3) for x in (0.1, -0.3, 1.0, 0.2)]
    np.testing.assert_array_equal(times, [np.inf, np.inf, np.inf, 0.0])
    assert float(passage_time(0.2, 0.3, 0.0, order=2)) == np.inf
    for order in (2, 3, 4, 6):
        ratios = [float(passage_time(x, 0.5, 0.7, order=order) / escape_time(x, 0.7, order=order)) for x in (1e-4, 1e-8)]
        assert abs(ratios[1] - 1) < abs(ratios[0] - 1) < 0.1
        late, later = (float(passage_time(d**-0.5, 0.5, 0.7, order=order)) for d in (1e10, 1e12))
        if order > 2:
            assert np.log(later / late) / np.log(1e2) == pytest.approx(flow_exponent(order), abs=1e-3)
    assert [flow_exponent(k) for k in (1, 2, 3, 4)] == [0, 0, 0.5, 1]
    assert [sample_exponent(k) for k in (1, 2, 3, 4)] == [1, 1, 2, 3]


def test_traced_coefficients_need_orders_or_are_checked_at_run_time():
    model, task = case(0.2, (HermiteLink([0.7], orders=(3,)), HermiteLink([1.0, 0.5, 1.0])))
    solution = SingleIndexFlow.from_model(*case(0.2, (HermiteLink([0, 0, 0, 0.7]),) * 2), SphericalFlow())
    assert solution.order == 3 and float(solution.signal) == pytest.approx(0.49)

    @jax.jit
    def overlap(coefficient):
        link = HermiteLink(coefficient[None], orders=(3,))
        return SingleIndexFlow.from_model(*case(0.2, (link, link)), SphericalFlow()).evaluate(1.0).overlap

    assert float(overlap(jnp.asarray(0.7))) == pytest.approx(float(solution.evaluate(1.0).overlap), rel=1e-14)
    assert SingleIndexFlow.from_model(model, task, SphericalFlow()).order == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["single_index", "online_single_index"])
def test_catalogue(name):
    assert tx.verify(name).passed


def test_refusals():
    model, task = case()
    flow = SphericalFlow()
    with pytest.raises(ValueError, match="one Hermite order in common: FAILS"):
        SingleIndexFlow.from_model(*case(0.3, MIXED), flow)
    with pytest.raises(ValueError, match="`rule` must be SphericalFlow"):
        SingleIndexFlow.from_model(model, task, tx.GradientFlow())
    with pytest.raises(ValueError, match="`rule` must be SphericalSGD"):
        OnlineSingleIndex.from_model(model, task, flow, t1=1.0)
    with pytest.raises(ValueError, match="`rule` must have `size` 6"):
        OnlineSingleIndex.from_model(model, task, SphericalSGD(0.1, 7), t1=1.0)
    with pytest.raises(ValueError, match="`model` must have 6 inputs"):
        SingleIndexFlow.from_model(SingleIndex([1.0, 0.0], SQUARE), task, flow)
    with pytest.raises(ValueError, match="`model` must have 6 inputs"):
        SingleIndexFlow.from_model(model, task, flow).reduce(SingleIndex([1.0, 0.0], SQUARE))
    for start, signal, t in ((1.5, 1.0, 1.0), (0.5, jnp.nan, 1.0), (0.5, 1.0, -1.0), (jnp.nan, 1.0, 1.0)):
        with pytest.raises(ValueError, match=r"`start` must|`signal` must be finite|`t` must be a time"):
            overlap_of_order(start, signal, t, order=3)
    for start, end, signal in ((-2.0, 0.5, 1.0), (0.1, 1.5, 1.0), (0.1, 0.5, jnp.nan)):
        with pytest.raises(ValueError, match=r"must lie between -1 and 1|`signal` must be finite"):
            passage_time(start, end, signal, order=1)
    with pytest.raises(ValueError, match="`start` must lie below 1; got 2"):
        escape_time(2.0, 1.0, order=2)
    with pytest.raises(ValueError, match="`noise_scale` must be non-negative"):
        gradient_noise(SQUARE, SQUARE, -1.0)
    with pytest.raises(ValueError, match="`model` must be a SingleIndex"):
        MixedSingleIndexFlow.from_model(task, task, flow, t1=1.0)
    with pytest.raises(ValueError, match="`direction` must be a unit vector; its length is 2"):
        SingleIndex([2.0, 0.0], SQUARE)
    with pytest.raises(ValueError, match="`link` must be a HermiteLink"):
        SingleIndex([1.0, 0.0], jnp.tanh)
    with pytest.raises(ValueError, match="`orders` must be 2 increasing whole numbers"):
        HermiteLink([1.0, 2.0], orders=(3, 1))
    with pytest.raises(ValueError, match="`overlap` must lie between -1 and 1"):
        case(1.2)
    with pytest.raises(ValueError, match="`size` must be a whole number of at least 2"):
        case(size=1)
    with pytest.raises(ValueError, match="`noise_scale` must be non-negative"):
        SingleIndexTask(task.teacher, -1.0)
    with pytest.raises(ValueError, match="`teacher` must be a SingleIndex"):
        SingleIndexTask(SQUARE)
    with pytest.raises(ValueError, match="no Hermite order above zero in common"):
        information_exponent(LINE, SQUARE)
    with pytest.raises(ValueError, match="`order` must be a whole number of at least 2; got 1"):
        escape_time(0.1, 1.0, order=1)
    with pytest.raises(ValueError, match="`order` must be a whole number of at least 1; got 0"):
        overlap_of_order(0.1, 1.0, 1.0, order=0)
    with pytest.raises(ValueError, match="`learning_rate` must be positive"):
        SphericalSGD(0.0, 5)
    with pytest.raises(ValueError, match="`batch_size` must be a whole number"):
        SphericalSGD(0.1, 5, batch_size=0)
    with pytest.raises(ValueError, match="`time_constant` must be positive"):
        SphericalFlow(-1.0)
    with pytest.raises(ValueError, match="`model` must be a unit vector, such as a SingleIndex"):
        flow.init(tx.deep_linear.DeepLinear((jnp.ones((1, 6)),)))
