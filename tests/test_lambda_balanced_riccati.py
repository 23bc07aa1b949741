"""LambdaBalancedRiccati: reference values, saddles, limits, kernels, degenerate spectra, refusals."""

import functools
import warnings

import equinox as eqx
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg

import tractax as tx
from tractax.deep_linear import (
    DeepLinear,
    LambdaBalancedRiccati,
    LinearTask,
    aligned,
    balanced,
    gaussian,
    haar,
    lambda_balanced,
    low_rank,
)

SIGMA = jnp.asarray([[1.0, 0.5], [0.0, -0.8]])


def rotation(angle):
    c, s = np.cos(angle), np.sin(angle)
    return jnp.asarray([[c, -s], [s, c]])


def scipy_flow(model, task, t):
    """The weights at time t, by SciPy on the host."""
    shapes = [w.shape for w in model.weights]
    sigma = np.asarray(task.optimum)

    def unpack(y):
        cut = shapes[0][0] * shapes[0][1]
        return y[:cut].reshape(shapes[0]), y[cut:].reshape(shapes[1])

    def field(_, y):
        w1, w2 = unpack(y)
        error = sigma - w2 @ w1
        return np.concatenate([(w2.T @ error).ravel(), (error @ w1.T).ravel()])

    start = np.concatenate([np.ravel(w) for w in model.weights])
    end = scipy.integrate.solve_ivp(field, (0, t), start, method="DOP853", rtol=1e-12, atol=1e-14).y[:, -1]
    return DeepLinear(unpack(end))


def assert_close(state, expected, tolerance):
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
        assert float(jnp.linalg.norm(a - b)) <= tolerance * max(float(jnp.linalg.norm(b)), 1e-3)


def test_reference_values():
    model = DeepLinear(
        (0.4 * jnp.diag(jnp.asarray([1.0, 0.5])) @ rotation(0.3), jnp.diag(jnp.sqrt(jnp.asarray([0.66, 0.54]))))
    )
    solution = LambdaBalancedRiccati.from_model(model, LinearTask(SIGMA))
    assert float(solution.lam) == pytest.approx(0.5, rel=1e-14)
    expected = [[0.8214365689365, 0.2847712511283], [-0.0131692881950, -0.2761444038952]]
    np.testing.assert_allclose(solution.evaluate(1.0).product, expected, atol=1e-13)
    assert float(solution.loss(1.0)) == pytest.approx(0.1764032144879, rel=1e-12)
    expected = [[0.9981741718017, 0.5024194201286], [-0.0054399592903, -0.7914922995655]]
    np.testing.assert_allclose(solution.evaluate(4.0).product, expected, atol=1e-13)


def test_reference_value_with_one_hidden_unit():
    model = DeepLinear((jnp.asarray([[0.3, -0.2]]), jnp.asarray([[0.5], [0.1]])))
    solution = LambdaBalancedRiccati.from_model(model, LinearTask(SIGMA))
    expected = [[0.8921649315674, 0.6691531176766], [-0.3447426725647, -0.2585683722600]]
    np.testing.assert_allclose(solution.evaluate(5.0).product, expected, rtol=1e-12)


@functools.lru_cache
def solve(sizes, lam):
    """A compiled function from a spectrum and a key to the weights, the task and the solution."""
    n_in, _hidden, n_out = sizes
    k = min(n_in, n_out)

    @eqx.filter_jit
    def build(spectrum, key):
        keys = jax.random.split(key, 3)
        u, v = haar(keys[0], n_out, k, spectrum.dtype), haar(keys[1], n_in, k, spectrum.dtype)
        task = LinearTask((u * jnp.sort(spectrum)[::-1][None, :k]) @ v.T)
        if lam:
            model = lambda_balanced(sizes, lam=lam, scale=0.3, key=keys[2])
        else:
            model = balanced(sizes, scale=0.3, key=keys[2])
        return model, task, LambdaBalancedRiccati.from_model(model, task)

    return build


evaluate = eqx.filter_jit(lambda solution, t: solution.evaluate(t))


@pytest.mark.slow
@hypothesis.given(
    case=st.sampled_from([((3, 2, 4), 0.0), ((2, 4, 3), 0.0), ((4, 3, 3), -0.5), ((3, 3, 3), 2.0)]),
    spectrum=st.lists(st.sampled_from([0.0, 1e-6, 0.5, 1.0, 2.0]), min_size=4, max_size=4),
    seed=st.integers(0, 100),
)
@hypothesis.settings(deadline=None, max_examples=25)
def test_degenerate_spectra_against_scipy(case, spectrum, seed):
    model, task, solution = solve(*case)(jnp.asarray(spectrum), jax.random.key(seed))
    for t in (0.0, 1e-7, 0.8, 6.0):
        reached = scipy_flow(model, task, t) if t else model
        assert_close(evaluate(solution, jnp.asarray(t)), solution.reduce(reached), 1e-8)
    for t in (1e3, 1e15):
        assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(evaluate(solution, jnp.asarray(t))))


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "lam"), [((4, 2, 3), 0.0), ((3, 3, 3), 0.7), ((5, 4, 3), -0.6), ((3, 4, 5), 0.6)])
def test_weak_small_start_against_many_digits(sizes, lam, getkey):
    # Where e^{Ft} spans twenty orders of magnitude, only more digits tell whether the evaluation is stable.
    import mpmath

    task = LinearTask(jax.random.normal(getkey(), (sizes[2], sizes[0])))
    if lam:
        model = lambda_balanced(sizes, lam=lam, scale=1e-7, key=getkey())
    else:
        model = balanced(sizes, scale=1e-7, key=getkey())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        solution = LambdaBalancedRiccati.from_model(model, task)
    with mpmath.workdps(250):
        w1, w2 = (mpmath.matrix(np.asarray(w).tolist()) for w in model.weights)
        sigma, n_in = mpmath.matrix(np.asarray(task.optimum).tolist()), sizes[0]
        n = n_in + sizes[2]
        # λ and the balance hold to rounding only; the exact solution needs them as the weights have them.
        half = mpmath.mpf(float(solution.lam)) / 2
        f, q = mpmath.zeros(n), mpmath.zeros(n, sizes[1])
        for i in range(n):
            f[i, i] = -half if i < n_in else half
            for j in range(sizes[1]):
                q[i, j] = w1[j, i] if i < n_in else w2[i - n_in, j]
        for i in range(sizes[2]):
            for j in range(n_in):
                f[n_in + i, j] = f[j, n_in + i] = sigma[i, j]
        values, vectors = mpmath.eigsy(f)
        for t in (2.0, 9.0, 15.0, 40.0):
            a = vectors.T * q
            gram = mpmath.eye(sizes[1])
            for k in range(n):
                delta = mpmath.expm1(2 * values[k] * t) / (2 * values[k]) if abs(values[k]) > 1e-40 else mpmath.mpf(t)
                gram += delta * a[k, :].T * a[k, :]
            grown = vectors * mpmath.diag([mpmath.exp(v * t) for v in values]) * a
            r = grown * mpmath.inverse(gram) * grown.T
            expected = np.array([[float(r[n_in + i, j]) for j in range(n_in)] for i in range(sizes[2])])
            product = np.asarray(solution.evaluate(t).product)
            assert np.linalg.norm(product - expected) <= 1e-9 * np.linalg.norm(expected)


def test_half_of_square_starts_end_at_a_saddle(getkey):
    on_the_way = []
    for _ in range(16):
        task = LinearTask(jax.random.normal(getkey(), (3, 3)))
        model = balanced((3, 4, 3), scale=0.1, key=getkey())
        blocked = float(jnp.linalg.det(model.product) * jnp.linalg.det(task.optimum)) < 0
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            solution = LambdaBalancedRiccati.from_model(model, task)
        assert (float(solution.generic) == 0.0) == blocked == bool(caught)
        rank = int(jnp.linalg.matrix_rank(solution.limit().product, rtol=1e-8))
        assert rank == (2 if blocked else 3)
        on_the_way.append(blocked)
    assert 3 <= sum(on_the_way) <= 13


def test_saddle_is_followed_as_long_as_arithmetic_allows():
    task = LinearTask(jnp.diag(jnp.asarray([2.0, 1.0])))
    model = DeepLinear((0.3 * rotation(0.4), 0.3 * rotation(0.2) @ jnp.diag(jnp.asarray([1.0, -1.0]))))
    with pytest.warns(UserWarning, match="saddle"):
        solution = LambdaBalancedRiccati.from_model(model, task)
    assert_close(solution.evaluate(8.0), solution.reduce(scipy_flow(model, task, 8.0)), 1e-8)
    assert_close(solution.evaluate(1e6), solution.limit(), 1e-12)


@pytest.mark.slow
def test_low_rank_start_stays_low_rank(getkey):
    task = LinearTask(jax.random.normal(getkey(), (4, 5)))
    model = tx.deep_linear.balanced_factors(low_rank((5, 4), rank=2, scale=0.1, key=getkey()).product, (3,))
    with pytest.warns(UserWarning, match="saddle"):
        solution = LambdaBalancedRiccati.from_model(model, task)
    assert int(jnp.linalg.matrix_rank(solution.limit().product, rtol=1e-8)) == 2
    assert_close(solution.evaluate(3.0), solution.reduce(scipy_flow(model, task, 3.0)), 1e-8)


def test_limit_is_the_best_map_of_the_hidden_rank(getkey):
    task = LinearTask(jax.random.normal(getkey(), (5, 6)))
    solution = LambdaBalancedRiccati.from_model(balanced((6, 2, 5), scale=1e-3, key=getkey()), task)
    u, s, vt = np.linalg.svd(task.optimum)
    np.testing.assert_allclose(solution.limit().product, (u[:, :2] * s[:2]) @ vt[:2], atol=1e-12)


@pytest.mark.parametrize("lam", [0.0, 0.4])
def test_nothing_to_learn_in_some_directions(lam, getkey):
    task = LinearTask(jnp.diag(jnp.asarray([2.0, 1.0, 0.0])))
    solution = LambdaBalancedRiccati.from_model(lambda_balanced((3, 3, 3), lam=lam, scale=0.1, key=getkey()), task)
    for t in (1e15, jnp.inf):
        assert_close(solution.evaluate(t), solution.limit(), 1e-12)


def test_limit_where_the_cut_falls_into_a_repeated_singular_value(getkey):
    u, v = haar(getkey(), 4, 4, jnp.float64), haar(getkey(), 5, 4, jnp.float64)
    task = LinearTask((u * jnp.asarray([2.0, 1.0, 1.0, 1.0])[None, :]) @ v.T)
    for lam in (0.0, 0.8):
        model = lambda_balanced((5, 2, 4), lam=lam, scale=0.2, key=getkey())
        solution = LambdaBalancedRiccati.from_model(model, task)
        assert_close(solution.limit(), solution.reduce(scipy_flow(model, task, 60.0)), 1e-8)


@pytest.mark.slow
def test_agrees_with_two_layer_modes_where_aligned(getkey):
    task = LinearTask(jax.random.normal(getkey(), (3, 4)))
    model = aligned(task, (5,), strength=jnp.asarray([1e-2, 3e-3, 2e-2]), key=getkey())
    riccati = LambdaBalancedRiccati.from_model(model, task)
    modes = tx.deep_linear.TwoLayerModes.from_model(model, task)
    for t in (0.0, 1.0, 3.0, 10.0):
        np.testing.assert_allclose(riccati.product(t), modes.product(t), atol=1e-12)


def test_kernel_and_similarity_against_the_network(getkey):
    task = LinearTask(jax.random.normal(getkey(), (3, 4)))
    model = balanced((4, 5, 3), scale=0.4, key=getkey())
    inputs = jax.random.normal(getkey(), (6, 4))
    state = LambdaBalancedRiccati.from_model(model, task).evaluate(0.0)
    np.testing.assert_allclose(state.tangent_kernel(inputs), tx.analysis.tangent_kernel(model, inputs), atol=1e-12)
    hidden = inputs @ model.weights[0].T
    np.testing.assert_allclose(
        state.representation_similarity(inputs), tx.analysis.representation_similarity(hidden), atol=1e-13
    )


@pytest.mark.slow
def test_lazy_and_rich_by_lambda_and_shape():
    # 1 - cosine of the tangent kernel at start and end, mean of 300 draws (their standard error is below 0.02).
    def distance(lam, sizes):
        def one(key):
            task_key, key = jax.random.split(key)
            task = LinearTask(jax.random.normal(task_key, (sizes[2], sizes[0])))
            model = lambda_balanced(sizes, lam=lam, scale=0.1, key=key)
            solution = LambdaBalancedRiccati.from_model(model, task, check=False)
            inputs = jnp.eye(sizes[0])
            first, last = (solution.evaluate(t).tangent_kernel(inputs) for t in (0.0, 30.0))
            return 1 - tx.analysis.cosine_similarity(first, last)

        return float(jnp.mean(tx.ensemble(one, jax.random.split(jax.random.key(0), 300))))

    expected = {
        (4, 4, 4): {-10.0: 0.001, -1.0: 0.071, 1.0: 0.069, 10.0: 0.001},
        (6, 3, 3): {-10.0: 0.43, -1.0: 0.365, 0.0: 0.25, 1.0: 0.067, 10.0: 0.001},
        (3, 3, 6): {-10.0: 0.001, -1.0: 0.066, 0.0: 0.31, 1.0: 0.375, 10.0: 0.45},
    }
    for sizes, by_lambda in expected.items():
        for lam, value in by_lambda.items():
            assert distance(lam, sizes) == pytest.approx(value, abs=0.025)


def test_refuses_what_it_does_not_cover(getkey):
    task = LinearTask(SIGMA)
    with pytest.raises(ValueError, match=r"λ-balanced.*FAILS"):
        LambdaBalancedRiccati.from_model(gaussian((2, 3, 2), scale=0.1, key=getkey()), task)
    skewed = LinearTask(SIGMA, jnp.asarray([[1.0, 0.3], [0.3, 2.0]]))
    with pytest.raises(ValueError, match="whitened inputs"):
        LambdaBalancedRiccati.from_model(balanced((2, 1, 2), scale=0.1, key=getkey()), skewed)
    with pytest.raises(ValueError, match="2 inputs and 2 outputs"):
        LambdaBalancedRiccati.from_model(balanced((3, 2, 2), scale=0.1, key=getkey()), task)
    with pytest.raises(ValueError, match="2 layers"):
        LambdaBalancedRiccati.assumptions(balanced((2, 2), scale=0.1, key=getkey()), task)


@pytest.mark.slow
def test_gradient_with_respect_to_the_task(getkey):
    model = balanced((3, 2, 4), scale=0.3, key=getkey())
    direction = jax.random.normal(getkey(), (4, 3))
    sigma = jax.random.normal(getkey(), (4, 3))

    def loss(x):
        task = LinearTask(sigma + x * direction)
        return jnp.sum(LambdaBalancedRiccati.from_model(model, task).evaluate(1.5).product ** 2)

    slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
    assert float(jax.grad(loss)(0.0)) == pytest.approx(float(slope), rel=1e-7)
