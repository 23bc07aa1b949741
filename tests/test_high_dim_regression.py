"""HighDimRegression: reference values, quadrature at every load and time, simulations, stopping, ridge, refusals."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.optimize

import tractax as tx
from tractax.deep_linear import (
    DeepLinear,
    HighDimRegression,
    LinearRegressionFlow,
    TeacherRegression,
    empirical_spectrum,
    gaussian,
    marchenko_pastur,
)


def _theory(load, **options):
    return HighDimRegression(marchenko_pastur(load), noise_variance=0.2, **options)


@pytest.mark.parametrize(
    ("load", "generalisation", "train"),
    [
        (0.5, 0.8666968039642, 0.002256674947218),
        (1.0, 0.6495969442868, 0.02827621324370),
        (2.0, 0.3909090409398, 0.1001116460862),
    ],
)
def test_reference_errors(load, generalisation, train):
    errors = _theory(load).evaluate(10.0)
    assert float(errors.generalisation) == pytest.approx(generalisation, rel=1e-12)
    assert float(errors.train) == pytest.approx(train, rel=1e-11)


def test_reference_late_errors():
    late = [float(_theory(load).evaluate(1e4).generalisation) for load in (0.5, 0.8, 1.0, 1.25, 2.0)]
    np.testing.assert_allclose(late, [0.9, 1.2, 13.32, 1.0, 0.4], rtol=5e-4)


def test_reference_stopping_and_ridge():
    for load, stopped, ridge in ((0.5, 0.82607, 0.8217), (1.0, 0.56752, 0.55826), (2.0, 0.35407, 0.34833)):
        solution = _theory(load)
        best = solution.evaluate(solution.optimal_stopping_time()).generalisation
        assert float(best) == pytest.approx(stopped, abs=5e-6)
        decayed = solution.with_weight_decay(solution.optimal_weight_decay())
        assert float(decayed.limit().generalisation) == pytest.approx(ridge, abs=5e-5)


@pytest.mark.parametrize("load", [0.02, 0.5, 0.9999, 1.0, 1 + 1e-7, 3.0, 200.0])
def test_moments_of_the_spectrum(load):
    spectrum = marchenko_pastur(load)
    one = jnp.ones_like(spectrum.eigenvalues)
    assert float(spectrum.mean(one, 1.0)) == pytest.approx(1.0, rel=1e-13)
    assert float(spectrum.mean(spectrum.eigenvalues, 0.0)) == pytest.approx(load, rel=1e-13)
    assert float(spectrum.mean(spectrum.eigenvalues**2, 0.0)) == pytest.approx(load + load**2, rel=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("load", [0.5, 0.999, 1.0, 1.2])
def test_quadrature_resolves_every_time(load):
    spectrum = marchenko_pastur(load)

    def density(l):
        low, high = (1 - mpmath.sqrt(load)) ** 2, (1 + mpmath.sqrt(load)) ** 2
        return mpmath.sqrt((high - l) * (l - low)) / (2 * mpmath.pi * l)

    for t in (1.0, 1e2, 1e6):
        with mpmath.workdps(20):
            low, high = (1 - mpmath.sqrt(load)) ** 2, (1 + mpmath.sqrt(load)) ** 2
            cuts = [low + (high - low) * mpmath.mpf(10) ** -k for k in range(24, 0, -1)]
            expected = mpmath.quad(lambda l, t=t: density(l) * mpmath.expm1(-l * t) ** 2 / l, [low, *cuts, high])
        found = spectrum.mean(jnp.expm1(-spectrum.eigenvalues * t) ** 2 / spectrum.eigenvalues, 0.0)
        assert float(found) == pytest.approx(float(expected), rel=1e-10)


def test_limits_are_the_known_ones():
    start, noise = 1.5, 0.2
    for load in (0.3, 0.999, 1.001, 4.0):
        limit = _theory(load, initial_variance=0.5).limit()
        if load < 1:
            generalisation, train = (1 - load) * start + noise * (1 + load / (1 - load)), 0.0
        else:
            generalisation, train = noise * (1 + 1 / (load - 1)), noise * (1 - 1 / load)
        assert float(limit.generalisation) == pytest.approx(generalisation, rel=1e-12)
        assert float(limit.train) == pytest.approx(train, rel=1e-12, abs=1e-15)
    assert float(_theory(1.0).limit().generalisation) == jnp.inf
    assert float(_theory(1.0).limit().train) == pytest.approx(0.0, abs=1e-15)
    noiseless = HighDimRegression(marchenko_pastur(1.0)).limit()
    assert float(noiseless.generalisation) == pytest.approx(0.0, abs=1e-15)


@pytest.mark.slow
def test_exact_limit_of_wishart_averages(getkey):
    # E[1/N tr (XXᵀ)⁻¹] = N/(P - N - 1) at any size.
    n, p = 10, 40
    inputs = jax.random.normal(getkey(), (2000, n, p)) / jnp.sqrt(1.0 * n)
    limits = jax.vmap(lambda x: HighDimRegression(empirical_spectrum(x), noise_variance=0.2).limit().generalisation)(
        inputs
    )
    assert float(jnp.mean(limits)) == pytest.approx(0.2 * (1 + n / (p - n - 1)), rel=3e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("n_in", "examples", "decay"), [(4, 6, 0.0), (6, 4, 0.3)])
def test_exact_average_at_given_inputs(n_in, examples, decay, getkey):
    # Against many exact runs with their own teacher, noise and start.
    inputs = jax.random.normal(getkey(), (n_in, examples)) / jnp.sqrt(1.0 * n_in)
    ts = jnp.asarray([0.0, 0.5, 3.0, 30.0])

    def one(key):
        teacher_key, noise_key, start_key = jax.random.split(key, 3)
        teacher = 1.5 * jax.random.normal(teacher_key, (n_in,))
        targets = teacher @ inputs + 0.5 * jax.random.normal(noise_key, (examples,))
        task = TeacherRegression(inputs, targets, teacher, 0.25)
        model = gaussian((n_in, 1), scale=0.7, key=start_key)
        solution = LinearRegressionFlow.from_model(model, task, tx.GradientFlow(2.0, decay))
        return jax.vmap(solution.evaluate)(ts).errors

    runs = jax.jit(jax.vmap(one))(jax.random.split(getkey(), 4_000))
    average = HighDimRegression(
        empirical_spectrum(inputs),
        teacher_variance=2.25,
        initial_variance=0.49,
        noise_variance=0.25,
        weight_decay=decay,
        time_constant=2.0,
    )
    expected = jax.vmap(average.evaluate)(ts)
    for name in ("train", "generalisation"):
        found = np.asarray(getattr(runs, name))
        margin = 4.5 * found.std(axis=0) / np.sqrt(found.shape[0])
        assert np.all(np.abs(found.mean(axis=0) - np.asarray(getattr(expected, name))) < margin + 1e-12), name


@pytest.mark.slow
def test_one_trained_network_is_near_the_limit(getkey):
    task = TeacherRegression.draw(200, 300, noise_scale=0.4, key=getkey())
    model = gaussian((200, 1), scale=0.5, key=getkey())
    solution = HighDimRegression.from_model(model, task)
    trained = tx.train(model, task, tx.GradientFlow(), jnp.linspace(0.0, 20.0, 5), observe=solution.reduce)
    assert float(tx.compare(solution, trained).worst) < 4 / 200**0.5


@pytest.mark.slow
def test_catalogue_entry_measures_the_rate():
    found = tx.verify("high_dim_regression")
    assert found.passed and found.interval is not None
    assert found.interval[1] - found.interval[0] < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("load", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("noise", [1e-6, 0.2, 1e4])
@pytest.mark.parametrize("initial", [0.0, 2.0])
def test_stopping_time_is_the_minimum(load, noise, initial):
    solution = HighDimRegression(marchenko_pastur(load), noise_variance=noise, initial_variance=initial)
    t = float(solution.optimal_stopping_time())
    modes = solution.mode_stopping_times()
    assert float(jnp.min(modes)) <= t <= float(jnp.max(modes))
    nearby = jax.vmap(lambda x: solution.evaluate(x).generalisation)(t * jnp.asarray([0.9, 1.0, 1.1]))
    assert float(nearby[1]) <= float(nearby[0]) and float(nearby[1]) <= float(nearby[2])


def test_stopping_time_against_scipy():
    solution = _theory(0.8, initial_variance=0.3, time_constant=2.0)
    t = float(solution.optimal_stopping_time())
    found = scipy.optimize.minimize_scalar(
        lambda x: float(solution.evaluate(np.exp(x)).generalisation), bounds=(-3, 5), method="bounded"
    )
    assert np.log(t) == pytest.approx(found.x, abs=1e-4)
    slope = jax.jit(jax.grad(lambda s: solution.evaluate(s).generalisation))(t)
    assert abs(float(slope)) < 1e-13


def test_mode_stopping_time_is_the_minimum_for_its_mode():
    # One eigenvalue only, so the stopping time of the mode is that of the average.
    solution = HighDimRegression(empirical_spectrum(jnp.asarray([[1.3]])), noise_variance=0.2, initial_variance=0.5)
    assert float(solution.optimal_stopping_time()) == pytest.approx(np.log1p(1.69 * 1.5 / 0.2) / 1.69, rel=1e-12)
    slow = HighDimRegression(empirical_spectrum(jnp.asarray([[0.0]])), noise_variance=0.2)
    assert float(slow.mode_stopping_times()[0]) == pytest.approx(5.0)


@pytest.mark.slow
def test_stopping_time_is_differentiable():
    def stop(noise):
        return HighDimRegression(marchenko_pastur(0.7), noise_variance=noise).optimal_stopping_time()

    slope = (stop(0.2 + 1e-4) - stop(0.2 - 1e-4)) / 2e-4
    assert float(jax.jit(jax.grad(stop))(0.2)) == pytest.approx(float(slope), rel=1e-5)
    loads = jnp.asarray([0.5, 1.0, 2.0])
    together = jax.jit(jax.vmap(lambda load: _theory(load).optimal_stopping_time()))(loads)
    np.testing.assert_allclose(together, [float(_theory(load).optimal_stopping_time()) for load in loads], rtol=1e-12)


def test_stopping_without_noise_or_signal():
    assert float(HighDimRegression(marchenko_pastur(0.5)).optimal_stopping_time()) == jnp.inf
    nothing = HighDimRegression(marchenko_pastur(0.5), teacher_variance=0.0, noise_variance=0.2)
    assert float(nothing.optimal_stopping_time()) == 0.0


def test_no_ridge_is_better_than_the_optimal_one():
    for load in (1.0, 2.5):
        solution = _theory(load, teacher_variance=1.7)
        best = float(solution.optimal_weight_decay())
        found = scipy.optimize.minimize_scalar(
            lambda x, solution=solution: float(solution.with_weight_decay(np.exp(x)).limit().generalisation),
            bounds=(-6, 3),
            method="bounded",
        )
        assert best == pytest.approx(np.exp(found.x), rel=1e-3)


@pytest.mark.slow
def test_float32_at_the_critical_load():
    single = HighDimRegression(marchenko_pastur(jnp.float32(1)), noise_variance=0.2)
    for t in (0.0, 10.0, 1e4, 1e12):
        errors = single.evaluate(jnp.float32(t))
        expected = _theory(1.0).evaluate(t)
        assert errors.generalisation.dtype == jnp.float32
        np.testing.assert_allclose(errors.generalisation, expected.generalisation, rtol=1e-4)
        np.testing.assert_allclose(errors.train, expected.train, rtol=1e-4, atol=1e-6)
    expected = float(_theory(1.0).optimal_stopping_time())
    assert float(single.optimal_stopping_time()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_gradient_in_the_load():
    def error(load):
        return _theory(load).evaluate(10.0).generalisation

    for load in (1.0,):
        slope = (error(load + 1e-5) - error(load - 1e-5)) / 2e-5
        assert float(jax.grad(error)(load)) == pytest.approx(float(slope), rel=1e-6)


def test_refuses_what_it_does_not_cover(getkey):
    task = TeacherRegression.draw(100, 150, noise_scale=0.4, key=getkey())
    model = DeepLinear((jnp.zeros((1, 100)),))
    assert all(bool(a.holds) for a in HighDimRegression.assumptions(model, task))
    scaled = TeacherRegression(3 * task.inputs, task.targets, task.teacher)
    with pytest.raises(ValueError, match=r"variance 1/N.*FAILS"):
        HighDimRegression.from_model(model, scaled)
    spread = jnp.concatenate([jnp.full(50, 1.4), jnp.full(50, 0.2)])
    correlated = TeacherRegression(spread[:, None] * task.inputs, task.targets, task.teacher)
    with pytest.raises(ValueError, match=r"independent inputs.*FAILS"):
        HighDimRegression.from_model(model, correlated)
    with pytest.raises(ValueError, match=r"independent of the teacher.*FAILS"):
        HighDimRegression.from_model(DeepLinear((task.teacher[None, :],)), task)
    with pytest.raises(ValueError, match="`weight_decay` must be zero"):
        _theory(0.5, weight_decay=0.1).optimal_stopping_time()
    with pytest.raises(ValueError, match="`load` must be positive"):
        marchenko_pastur(0.0)
    with pytest.raises(ValueError, match="`noise_variance` must be non-negative"):
        HighDimRegression(marchenko_pastur(1.0), noise_variance=-1.0)
    with pytest.raises(ValueError, match="`task` must be given"):
        _theory(1.0).reduce(model)
