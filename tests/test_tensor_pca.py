"""Tensor PCA: partial traces, moments of Langevin dynamics and their corrections, the rule, refusals."""

import itertools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.linalg

import tractax as tx
from tractax.teacher_student import (
    AveragedLangevin,
    HermiteLink,
    SingleIndex,
    SingleIndexTask,
    SphericalDiffusion,
    SphericalFlow,
    SphericalLangevin,
    TensorPCATask,
    UnitVector,
    diffusion_average_square,
    leading_direction,
    overlap_of_order,
    partial_trace,
    partial_trace_overlap,
    partial_trace_variance,
    random_direction,
    spiked_tensor,
)


def symmetric(order, size, seed=0):
    """A random symmetric tensor."""
    return average_over_orders(np.random.default_rng(seed).normal(size=(size,) * order))


def average_over_orders(tensor):
    orders = list(itertools.permutations(range(tensor.ndim)))
    return sum(np.transpose(tensor, axes) for axes in orders) / len(orders)


def quadrature():
    """Points and weights on the sphere in three dimensions, exact for polynomials of degree below 60."""
    z, w = np.polynomial.legendre.leggauss(30)
    angle = np.arange(60) * 2 * np.pi / 60
    z, w, angle = np.repeat(z, 60), np.repeat(w, 60) / 120, np.tile(angle, 30)
    across = np.sqrt(1 - z**2)
    return np.stack([across * np.cos(angle), across * np.sin(angle), z], axis=1), w


POINTS, WEIGHTS = quadrature()


def energies(tensor):
    values = np.broadcast_to(tensor, (len(POINTS), *tensor.shape))
    for _ in range(tensor.ndim):
        values = np.einsum("a...i,ai->a...", values, POINTS)
    return -values


def gibbs(tensor, temperature):
    """The moments of Gibbs' law."""
    weights = WEIGHTS * np.exp(-energies(tensor) / temperature)
    weights = weights / weights.sum()
    return weights @ POINTS, np.einsum("a,ai,aj->ij", weights, POINTS, POINTS)


def theory(tensor, temperature=1.0, check=True):
    model = UnitVector(np.eye(len(tensor))[0])
    return AveragedLangevin.from_model(model, TensorPCATask(tensor), SphericalLangevin(temperature, 0.01), check=check)


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5, 6])
def test_first_order_of_gibbs_averages(order):
    tensor = symmetric(order, 3, seed=order)
    errors = []
    for temperature in (1e3, 1e4):
        limit = theory(tensor, temperature).limit()
        mean, second = gibbs(tensor, temperature)
        if order % 2 == 1:
            error, size = limit.mean - mean, mean
            np.testing.assert_allclose(limit.second, second, atol=1.0 / temperature**2)
        else:
            error, size = limit.second - second, second - np.eye(3) / 3
            np.testing.assert_allclose(mean, 0.0, atol=1e-15)
            np.testing.assert_array_equal(limit.mean, 0.0)
            assert float(jnp.trace(limit.second)) == pytest.approx(1.0, abs=1e-15)
        errors.append(np.linalg.norm(error) / np.linalg.norm(size))
    assert errors[0] < 1e-2
    # Odd orders have no second power of the energy.
    assert np.log10(errors[0] / errors[1]) == pytest.approx(2 if order % 2 else 1, abs=0.05)


def test_third_moment_is_exact():
    tensor = symmetric(3, 3)
    expected = np.einsum("a,ai,a->i", WEIGHTS, POINTS, -energies(tensor))
    np.testing.assert_allclose(theory(tensor, 10.0).limit().mean * 10.0, expected, rtol=1e-14, atol=1e-16)


def test_typical_energy():
    for order in (1, 2, 3, 4, 5):
        tensor = symmetric(order, 3, seed=order)
        expected = np.sqrt(WEIGHTS @ energies(tensor) ** 2)
        assert float(TensorPCATask(tensor).typical_energy()) == pytest.approx(expected, rel=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("order", [3, 4])
def test_relaxation_against_the_fokker_planck_equation_on_a_circle(order):
    """In two dimensions the angle diffuses in a trigonometric polynomial; its Fourier modes obey linear equations."""
    tensor, modes, grid = symmetric(order, 2, seed=3), np.arange(-20, 21), np.arange(64) * 2 * np.pi / 64
    circle = np.stack([np.cos(grid), np.sin(grid)], axis=1)
    task, model = TensorPCATask(tensor), UnitVector([1.0, 0.0])
    # The torque, from the task's own gradient.
    gradients = np.asarray(jax.jit(jax.vmap(jax.grad(lambda x: task.loss(_at(model, x)))))(jnp.asarray(circle)))
    torque = np.fft.fft(-gradients[:, 1] * circle[:, 0] + gradients[:, 0] * circle[:, 1]) / 64
    errors = []
    for temperature in (30.0, 60.0):
        generator = np.diag(-temperature * modes**2.0).astype(complex)
        for i, m in enumerate(modes):
            for j, n in enumerate(modes):
                generator[i, j] -= 1j * m * torque[m - n]
        solution, worst = theory(tensor, temperature), 0.0
        for t in (0.2 / temperature, 2.0 / temperature):
            density = scipy.linalg.expm(generator * t)[:, 20]
            state, k = solution.evaluate(t), 1 if order % 2 else 2
            # The mean of e^{ik angle} is the conjugate of a mode of the density.
            found = density[20 - k]
            mean, second = np.asarray(state.mean), np.asarray(state.second)
            expected = mean[0] + 1j * mean[1] if k == 1 else second[0, 0] - second[1, 1] + 2j * second[0, 1]
            worst = max(worst, abs(found - expected) / abs(found))
        errors.append(worst)
    assert errors[0] < 0.02
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2 if order % 2 else 1, abs=0.15)


def _at(model, direction):
    return jax.tree.unflatten(jax.tree.structure(model), [direction])


def test_solutions_satisfy_their_equation_and_limits():
    solution = theory(symmetric(3, 3), 4.0)
    diffusion = SphericalDiffusion.from_model(
        UnitVector([0.6, 0.0, 0.8]), TensorPCATask(np.zeros((3, 3))), SphericalLangevin(0.7, 0.01)
    )
    for path in (solution, diffusion):
        assert float(tx.residual(path, jnp.asarray([0.0, 0.3, 5.0])).worst) < 1e-13
        for t, expected in ((0.0, path.initial), (jnp.inf, path.limit()), (1e300, path.limit())):
            jax.tree.map(_same, path.evaluate(t), expected)
        jax.tree.map(_same, path.time_average(0.0), path.initial)
        jax.tree.map(_same, path.time_average(jnp.inf), path.limit())
        nodes, weights = np.polynomial.legendre.leggauss(60)
        means = jax.vmap(path.evaluate)(jnp.asarray(1.0 + nodes)).mean
        np.testing.assert_allclose(path.time_average(2.0).mean, weights @ means / 2, rtol=1e-12, atol=1e-15)


def _same(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-16)


@pytest.mark.slow
def test_rule_follows_free_diffusion_and_drifts_to_the_average():
    """Means over many runs within four standard errors; one step is exact in two dimensions without energy."""
    points, weights = np.polynomial.hermite_e.hermegauss(40)
    assert np.cos(np.sqrt(2 * 0.3 * 0.1) * points) @ weights / weights.sum() == pytest.approx(np.exp(-0.03), rel=1e-13)
    start, ts, runs = jnp.asarray([0.6, 0.8]), jnp.asarray([0.0, 0.4, 0.8]), 8000
    starts, noises = jax.random.split(jax.random.key(0), (2, runs))

    @jax.jit
    def simulate(tensor, temperature, directions):
        task, rule = TensorPCATask(tensor), SphericalLangevin(temperature, 0.01)

        def run(direction, key):
            model = UnitVector(direction)
            return tx.train(model, task, rule, ts, observe=lambda model: model.direction, key=key).observed

        return jax.vmap(run)(directions, noises)

    uniform = jax.vmap(lambda key: random_direction(2, key=key).direction)(starts)
    fixed = jnp.broadcast_to(start, (runs, 2))
    for theory, tensor, temperature, directions in (
        (SphericalDiffusion, np.zeros((2, 2, 2)), 0.7, fixed),
        (AveragedLangevin, symmetric(3, 2, seed=3), 5.2, uniform),
    ):
        found = simulate(jnp.asarray(tensor), temperature, directions)
        np.testing.assert_allclose(jnp.linalg.norm(found, axis=-1), 1.0, rtol=1e-13)
        rule = SphericalLangevin(temperature, 0.01)
        solution = theory.from_model(UnitVector(start), TensorPCATask(tensor), rule)
        expected = jax.vmap(solution.evaluate)(ts).mean
        error = jnp.std(found, axis=0) / runs**0.5
        assert np.all(np.abs(np.mean(found, axis=0) - expected) <= 4.5 * error + 1e-15)
        # What there is to see is well above the noise.
        assert float(jnp.linalg.norm(expected[1])) > 8 * float(jnp.max(error))


def test_noise_of_partial_traces_is_the_squared_length_of_what_reads_them():
    for order, size in ((1, 4), (2, 3), (3, 3), (3, 5), (4, 3), (5, 3)):
        reader = np.eye(size)[0] if order % 2 else np.multiply.outer(np.eye(size)[0], np.eye(size)[1])
        for _ in range((order - 1) // 2):
            reader = np.multiply.outer(reader, np.eye(size))
        square = np.sum(average_over_orders(reader) ** 2)
        assert partial_trace_variance(order, size) == pytest.approx(square, rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("order", [3, 4])
def test_spiked_tensors(order):
    direction, draws = jnp.asarray([0.6, 0.0, 0.8]), 4000

    def tensor(samples, key):
        return spiked_tensor(direction, order=order, samples=samples, key=key)

    key = jax.random.key(0)
    silent, once, often = (tensor(samples, key) for samples in (np.inf, 1.0, 4.0))
    np.testing.assert_allclose(once - silent, 2 * (often - silent), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(once, average_over_orders(np.asarray(once)), rtol=1e-13)
    assert abs(float(leading_direction(partial_trace(silent)) @ direction)) == pytest.approx(1.0, rel=1e-12)
    assert float(TensorPCATask(silent).loss(UnitVector(direction))) == pytest.approx(-1.0, rel=1e-13)
    noise = jax.jit(jax.vmap(lambda key: tensor(1.0, key) - silent))(jax.random.split(key, draws))
    traces = jax.vmap(partial_trace)(noise)
    entry = traces[:, 0] if order % 2 else traces[:, 0, 1]
    for found, expected in ((noise[:, *[0] * order], 1.0), (entry, partial_trace_variance(order, 3))):
        assert float(jnp.mean(found**2)) == pytest.approx(expected, rel=4 * (2 / draws) ** 0.5)


def test_predicted_overlaps():
    assert float(partial_trace_overlap(np.inf, order=3, size=10)) == 1.0
    np.testing.assert_allclose(
        partial_trace_overlap(np.asarray([40.0, 1e9]), order=3, size=10), [0.5**0.5, 1.0], rtol=1e-7
    )
    threshold = 20 * partial_trace_variance(4, 20)
    below, above = partial_trace_overlap(np.asarray([0.99, 1.01]) * threshold, order=4, size=20)
    assert float(below) == 0.0 and 0 < float(above) < 0.2
    # At d^(k/2) samples of an odd order an overlap of order d^(-1/4).
    weak = [float(partial_trace_overlap(float(d) ** 1.5, order=3, size=d)) for d in (10**6, 10**8)]
    assert np.log(weak[1] / weak[0]) / np.log(100) == pytest.approx(-0.25, abs=1e-3)


@pytest.mark.slow
def test_without_noise_gradient_flow_is_that_of_one_hermite_order():
    teacher, model = jnp.asarray([1.0, 0.0, 0.0, 0.0]), UnitVector([0.28, 0.96, 0.0, 0.0])
    task = TensorPCATask(spiked_tensor(teacher, order=3, samples=np.inf, key=jax.random.key(0)))
    run = tx.train(model, task, SphericalFlow(), [0.7, 1.5], observe=lambda model: model.direction @ teacher)
    expected = [float(overlap_of_order(0.28, 1.0, t, order=3)) for t in (0.7, 1.5)]
    np.testing.assert_allclose(run.observed, expected, rtol=1e-5)


def test_noise_of_an_averaged_path():
    mpmath.mp.dps = 30
    xs = [mpmath.mpf(x) for x in (1e-9, 0.3, 0.999, 1.001, 40.0, 1e8)]
    expected = [float(2 * (x - 1 + mpmath.exp(-x)) / x**2) for x in xs]
    found = diffusion_average_square(np.asarray([0.0, *map(float, xs)]) / 6, size=4, temperature=2.0)
    np.testing.assert_allclose(found, [1.0, *expected], rtol=1e-13)
    assert float(jax.grad(lambda t: diffusion_average_square(t, size=2))(0.0)) == pytest.approx(-1 / 3)


@pytest.mark.slow
def test_transformations_and_single_precision():
    tensor = jnp.asarray(symmetric(3, 3))
    model = UnitVector([1.0, 0.0, 0.0])

    @jax.jit
    def size(temperature):
        return AveragedLangevin.from_model(model, TensorPCATask(tensor), SphericalLangevin(temperature, 0.1)).evaluate(
            0.1
        )

    one = size(3.0).mean
    np.testing.assert_allclose(jax.vmap(size)(jnp.asarray([3.0, 4.0])).mean[0], one, rtol=1e-14)
    slope = jax.grad(lambda x: size(x).mean[0])(3.0)
    assert float(slope) == pytest.approx(float(size(3.0 + 1e-6).mean[0] - size(3.0 - 1e-6).mean[0]) / 2e-6, rel=1e-6)
    single = AveragedLangevin.from_model(
        UnitVector(jnp.asarray([1.0, 0.0, 0.0], jnp.float32)),
        TensorPCATask(tensor.astype(jnp.float32)),
        SphericalLangevin(jnp.float32(3.0), 0.1),
    ).evaluate(jnp.float32(0.1))
    assert single.mean.dtype == jnp.float32
    np.testing.assert_allclose(single.mean, one, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["averaged_langevin", "tensor_pca"])
def test_catalogue(name):
    assert tx.verify(name).passed


def test_refusals():
    tensor, model, rule = symmetric(3, 3), UnitVector([1.0, 0.0, 0.0]), SphericalLangevin(1e3, 0.1)
    task = TensorPCATask(tensor)
    with pytest.raises(ValueError, match=r"small energies .* FAILS"):
        theory(tensor, 0.1)
    theory(tensor, 0.1, check=False)
    with pytest.raises(ValueError, match=r"no energy .* FAILS"):
        SphericalDiffusion.from_model(model, task, rule)
    with pytest.raises(ValueError, match="`rule` must have a positive `temperature`"):
        AveragedLangevin.from_model(model, task, SphericalLangevin(0.0, 0.1))
    with pytest.raises(ValueError, match="`rule` must be SphericalLangevin"):
        AveragedLangevin.from_model(model, task, SphericalFlow())
    with pytest.raises(ValueError, match="`task` must be a TensorPCATask"):
        AveragedLangevin.from_model(model, SingleIndexTask(SingleIndex([1.0, 0.0, 0.0], HermiteLink([1.0]))), rule)
    with pytest.raises(ValueError, match="`model` must have 3 inputs"):
        AveragedLangevin.from_model(UnitVector([0.0, 1.0]), task, rule)
    with pytest.raises(ValueError, match="`model` must have 3 inputs"):
        AveragedLangevin.from_model(model, task, rule).reduce(UnitVector([0.0, 1.0]))
    with pytest.raises(ValueError, match="`model` must have at least 2 inputs"):
        AveragedLangevin.from_model(UnitVector([1.0]), TensorPCATask([1.0]), rule)
    with pytest.raises(ValueError, match="`model` must be a unit vector"):
        task.loss(task)
    with pytest.raises(ValueError, match="`direction` must be a unit vector; its length is 2"):
        UnitVector([2.0, 0.0])
    with pytest.raises(ValueError, match="`tensor` must be symmetric"):
        TensorPCATask(np.arange(8.0).reshape(2, 2, 2))
    with pytest.raises(ValueError, match="`tensor` must have axes of one length"):
        TensorPCATask(np.ones((2, 3)))
    with pytest.raises(ValueError, match="`tensor` must be finite"):
        TensorPCATask([np.nan, 1.0])
    with pytest.raises(ValueError, match="`temperature` must be non-negative"):
        SphericalLangevin(-1.0, 0.1)
    with pytest.raises(ValueError, match="`time_per_step` must be positive"):
        SphericalLangevin(1.0, 0.0)
    with pytest.raises(ValueError, match="`samples` must be positive"):
        spiked_tensor([1.0, 0.0], order=3, samples=0.0, key=jax.random.key(0))
    with pytest.raises(ValueError, match="`samples` must be positive"):
        partial_trace_overlap(-1.0, order=3, size=4)
    with pytest.raises(ValueError, match="`order` must be a whole number of at least 1; got 0"):
        spiked_tensor([1.0, 0.0], order=0, samples=1.0, key=jax.random.key(0))
    with pytest.raises(ValueError, match="`size` must be a whole number"):
        partial_trace_variance(3, 0)
    with pytest.raises(ValueError, match="`moment` must be a vector or a matrix"):
        leading_direction(tensor)
    with pytest.raises(ValueError, match="`moment` must not be zero"):
        leading_direction(np.zeros(3))
    with pytest.raises(ValueError, match="`moment` must be symmetric"):
        leading_direction(np.asarray([[1.0, 2.0], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="`size` must be a whole number of at least 2"):
        diffusion_average_square(1.0, size=1)
    with pytest.raises(ValueError, match="`t` must be a time"):
        theory(tensor, 1e3).time_average(-1.0)
    with pytest.raises(ValueError, match="`size` must be a whole number of at least 1"):
        random_direction(0, key=jax.random.key(0))
