"""Initial weights have the invariants they are named after."""

import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tractax.core import standard_normal
from tractax.deep_linear import (
    DeepLinear,
    LinearTask,
    aligned,
    balance_matrices,
    balanced,
    balanced_factors,
    gaussian,
    haar,
    lambda_balanced,
    low_rank,
    orthogonal,
)

SIZES = (4, 6, 3, 5)
KEY = jax.random.key(7)


def _singular_values(w):
    return np.linalg.svd(np.asarray(w), compute_uv=False)


def test_gaussian_and_reproducibility():
    model = gaussian((50, 80, 40), scale=0.3, key=KEY)
    entries = np.concatenate([np.asarray(w).ravel() for w in model.weights])
    assert abs(entries.std() - 0.3) < 4 * 0.3 / np.sqrt(2 * entries.size) and abs(entries.mean()) < 4 * 0.3 / 80
    np.testing.assert_array_equal(model.product, gaussian((50, 80, 40), scale=0.3, key=KEY).product)
    assert not jnp.any(model.product == gaussian((50, 80, 40), scale=0.3, key=jax.random.key(8)).product)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_normal_numbers_are_those_of_jax(dtype):
    drawn = standard_normal(KEY, (3, 4, 5), dtype)
    np.testing.assert_array_equal(drawn, jax.random.normal(KEY, (3, 4, 5), dtype))
    assert drawn.dtype == dtype and standard_normal(KEY, (0, 2)).shape == (0, 2)


def test_orthogonal():
    model = orthogonal(SIZES, gain=1.7, key=KEY)
    assert model.sizes == SIZES
    for w in model.weights:
        np.testing.assert_allclose(_singular_values(w), 1.7, rtol=1e-12)


def test_haar_is_uniform():
    # Of a uniform rotation every entry has mean 0 and variance 1/n, the trace mean 0 and variance 1.
    q = jax.vmap(lambda key: haar(key, 3, 3, jnp.float64))(jax.random.split(KEY, 4000))
    np.testing.assert_allclose(q.mean(axis=0), 0.0, atol=4 / np.sqrt(3 * 4000))
    np.testing.assert_allclose((q**2).mean(axis=0), 1 / 3, atol=4 * 0.3 / np.sqrt(4000))
    traces = jnp.trace(q, axis1=1, axis2=2)
    assert float(jnp.var(traces)) == pytest.approx(1.0, abs=0.1)


def test_low_rank():
    for w in low_rank((6, 7, 2), rank=3, scale=0.4, key=KEY).weights:
        values = _singular_values(w)
        assert np.sum(values > 1e-12) == min(3, *w.shape)
        assert np.linalg.norm(values) == pytest.approx(0.4, rel=1e-12)


@pytest.mark.parametrize("sizes", [(4, 6, 3, 5), (2, 2), (3, 1, 4), (5, 5, 5, 5, 5)])
def test_balanced(sizes):
    model = balanced(sizes, scale=0.2, key=KEY)
    assert model.sizes == sizes
    for difference in balance_matrices(model):
        np.testing.assert_allclose(difference, 0.0, atol=1e-15)
    for w in model.weights:
        values = _singular_values(w)[: min(sizes)]
        assert np.all((values > 0.1) & (values < 0.3))


@pytest.mark.parametrize("key", [None, KEY])
def test_balanced_factors(key):
    product = jax.random.normal(jax.random.key(1), (3, 4))
    model = balanced_factors(product, (3, 7), key=key)
    assert model.sizes == (4, 3, 7, 3)
    np.testing.assert_allclose(model.product, product, rtol=1e-12)
    for difference in balance_matrices(model):
        np.testing.assert_allclose(difference, 0.0, atol=1e-13)
    rank_one = jnp.outer(jnp.arange(1.0, 4.0), jnp.arange(1.0, 3.0))
    np.testing.assert_allclose(balanced_factors(rank_one, (1,), key=key).product, rank_one, rtol=1e-13)
    with pytest.raises(ValueError, match="`hidden` must be at least the rank of `product`; got a smallest layer of 2"):
        balanced_factors(product, (2, 7), key=key)


@pytest.mark.parametrize("hidden", [(3,), (2,), (1, 5), (6, 4, 3)])
@pytest.mark.parametrize("key", [None, KEY])
def test_aligned(hidden, key):
    task = LinearTask(jax.random.normal(jax.random.key(2), (3, 4)))
    strengths = jnp.asarray([0.5, 0.1, 0.2])
    model = aligned(task, hidden, strength=strengths, key=key)
    u, _, vt = np.linalg.svd(np.asarray(task.cross_covariance), full_matrices=False)
    kept = np.where(np.arange(3) < min(3, *hidden), strengths, 0.0)
    np.testing.assert_allclose(u.T @ np.asarray(model.product) @ vt.T, np.diag(kept), atol=1e-14)
    for difference in balance_matrices(model):
        np.testing.assert_allclose(difference, 0.0, atol=1e-14)


@pytest.mark.parametrize(
    ("sizes", "lam"),
    [((4, 3, 5), 0.8), ((4, 3, 5), -0.8), ((4, 3, 5), 0.0), ((2, 3, 5), 1.5), ((5, 3, 2), -1.5), ((5, 3, 2), 0.0)],
)
def test_lambda_balanced(sizes, lam):
    model = lambda_balanced(sizes, lam=lam, scale=0.3, key=KEY)
    assert model.sizes == sizes
    (difference,) = balance_matrices(model)
    np.testing.assert_allclose(difference, lam * np.eye(sizes[1]), atol=1e-13)


@pytest.mark.slow
def test_lambda_balanced_is_smooth_in_lambda():
    def size(lam):
        return jnp.sum(lambda_balanced((4, 3, 5), lam=lam, scale=0.3, key=KEY).product ** 2)

    lam = jnp.asarray(0.5)
    finite = (size(lam + 1e-5) - size(lam - 1e-5)) / 2e-5
    assert float(jax.grad(size)(lam)) == pytest.approx(float(finite), rel=1e-6)
    assert jnp.all(jnp.isfinite(jax.vmap(size)(jnp.asarray([-1.0, 0.0, 1.0]))))


@pytest.mark.slow
def test_dtype_follows_the_scale():
    small = jnp.asarray(0.1, jnp.float32)
    for model in (
        gaussian(SIZES, scale=small, key=KEY),
        orthogonal(SIZES, gain=small, key=KEY),
        low_rank(SIZES, rank=2, scale=small, key=KEY),
        balanced(SIZES, scale=small, key=KEY),
        lambda_balanced((4, 3, 5), lam=small, scale=0.1, key=KEY),
        aligned(LinearTask(jnp.eye(3, dtype=jnp.float32)), (3,), strength=0.1, key=KEY),
    ):
        assert all(w.dtype == jnp.float32 for w in model.weights)


def test_sizes_may_come_from_numpy():
    assert inspect.unwrap(gaussian)(np.asarray([2, 3]), scale=0.1, key=KEY).sizes == (2, 3)


@pytest.mark.parametrize("sizes", [(3,), (), (3, 0), (3, 2.5), (3, -1), (3, True), ("a", 2)])
def test_refuses_bad_sizes(sizes):
    with pytest.raises(ValueError, match="`sizes` must be two or more whole layer sizes of at least 1, input first"):
        inspect.unwrap(balanced)(sizes, scale=0.1, key=KEY)


def test_refuses_bad_numbers():
    task = LinearTask(jnp.eye(2))
    with pytest.raises(ValueError, match=r"`scale` must be non-negative; got -1\.0"):
        gaussian((2, 2), scale=-1.0, key=KEY)
    with pytest.raises(ValueError, match="`gain` must be finite"):
        orthogonal((2, 2), gain=jnp.nan, key=KEY)
    with pytest.raises(ValueError, match="`rank` must be at least 1; got 0"):
        low_rank((2, 2), rank=0, scale=1.0, key=KEY)
    with pytest.raises(ValueError, match=r"`strength` must be one number or one per mode, shape \(2,\); got \(3,\)"):
        aligned(task, (2,), strength=jnp.ones(3))
    with pytest.raises(ValueError, match="`lam` > 0 needs hidden <= out"):
        lambda_balanced((5, 3, 2), lam=0.1, scale=0.1, key=KEY)
    with pytest.raises(ValueError, match="`lam` < 0 needs hidden <= in"):
        lambda_balanced((2, 3, 5), lam=-0.1, scale=0.1, key=KEY)
    with pytest.raises(ValueError, match="hidden <= in or hidden <= out"):
        lambda_balanced((2, 3, 2), lam=0.0, scale=0.1, key=KEY)
    with pytest.raises(ValueError, match=r"`sizes` must be \(in, hidden, out\)"):
        lambda_balanced((2, 3), lam=0.0, scale=0.1, key=KEY)


def test_network():
    weights = [np.arange(6.0).reshape(3, 2), np.ones((1, 3)), np.full((2, 1), 2.0)]
    model = DeepLinear(weights)
    assert model.depth == 3 and model.sizes == (2, 3, 1, 2)
    np.testing.assert_allclose(model.product, weights[2] @ weights[1] @ weights[0])
    x = jnp.asarray([1.0, -2.0])
    np.testing.assert_allclose(model(x), model.product @ x)
    for before, after in itertools.pairwise(weights):
        with pytest.raises(ValueError, match="`weights` must chain"):
            DeepLinear([after, before])
    with pytest.raises(ValueError, match="one or more matrices without empty axes"):
        DeepLinear([np.ones(3)])
    with pytest.raises(ValueError, match="one or more matrices"):
        DeepLinear([])
