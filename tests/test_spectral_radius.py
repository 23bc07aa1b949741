"""Power iteration for the spectral radius: from below, for any matrix, and on to the mode that overtakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tractax.solvers import spectral_radius


def dominant(matrix, direction=None, previous=0.0, max_products=100):
    direction = jnp.zeros(matrix.shape[0]) if direction is None else direction
    return spectral_radius(lambda v: matrix @ v, direction, jnp.asarray(previous), max_products)


def test_spectral_radius():
    # Symmetric, far from it, and a rotation.
    keys = jax.random.split(jax.random.key(2), 2)
    square = jax.random.normal(keys[0], (30, 30))
    for matrix in (-square @ square.T, square, jnp.asarray([[0.0, -3.0], [3.0, 0.0]])):
        radius, _, count = dominant(matrix)
        exact = np.abs(np.linalg.eigvals(matrix)).max()
        assert 0.85 * exact < radius <= np.linalg.norm(matrix, 2) * (1 + 1e-12)
        assert count < 100


def test_spectral_radius_follows_another_mode():
    # Decoupled modes: iteration that ended at the first one must still find the second when it has overtaken.
    direction = jnp.asarray([1.0, 0.0, 0.0])
    radius = jnp.asarray(2.0)
    for _ in range(10):
        radius, direction, _ = dominant(jnp.diag(jnp.asarray([-2.0, -6.0, -1.0])), direction, radius)
    assert float(radius) == pytest.approx(6.0, rel=0.05)


def test_spectral_radius_of_nothing():
    radius, direction, count = dominant(jnp.zeros((3, 3)))
    assert radius == 0.0
    assert count == 1
    assert jnp.all(jnp.isfinite(direction))
    radius, direction, count = dominant(jnp.full((3, 3), jnp.nan))
    assert count == 1
    assert jnp.all(jnp.isfinite(direction))
    # No product, no change.
    radius, _, count = dominant(jnp.eye(3), previous=4.0, max_products=0)
    assert radius == 4.0
    assert count == 0
