"""The energy of group features: reference values, its maxima, the gradient that reaches features, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tractax.analysis import inverse_participation_ratio
from tractax.two_layer import (
    FiniteGroup,
    Li2Energy,
    cyclic_group,
    dihedral_group,
    feature_gradient,
    ridge_readout,
)


def test_reference_values():
    energy = Li2Energy(cyclic_group(3))
    w = jnp.asarray([1.0, 0, 0, 0, 2, 0]) / 5**0.5
    assert float(energy(w)) == pytest.approx(0.2133333333333334, rel=1e-14)
    expected = [0.9540556703999105, -0.4770278352, -0.4770278352, -0.2385139176, 0.4770278352, -0.2385139176]
    np.testing.assert_allclose(jax.grad(energy)(w), expected, rtol=1e-9)
    # The gradient on the way back from ỸỸᵀφ, by matrices.
    x, y = np.asarray(energy.inputs), np.asarray(energy.targets)
    centred = y - y.mean(axis=0)
    by_hand = x.T @ (2 * (x @ w) * (centred @ centred.T @ (x @ w) ** 2))
    np.testing.assert_allclose(jax.grad(energy)(w), by_hand, rtol=1e-13)
    part = Li2Energy(cyclic_group(3), np.asarray([[0, 1], [2, 2], [1, 1], [0, 0]]), jnp.tanh)
    x, y = np.asarray(part.inputs), np.asarray(part.targets)
    assert float(part(w)) == pytest.approx(np.sum(((y - y.mean(axis=0)).T @ np.tanh(x @ w)) ** 2) / 2, rel=1e-13)


@pytest.mark.parametrize(
    ("group", "maxima"),
    [
        (cyclic_group(5), [1.25]),
        (cyclic_group(6), [1.5, 3.0]),
        (dihedral_group(3), [1.5, 3.0]),
        pytest.param(cyclic_group(7), [1.75], marks=pytest.mark.slow),
        pytest.param(dihedral_group(4), [2.0, 4.0], marks=pytest.mark.slow),
        pytest.param(dihedral_group(5), [2.5, 5.0], marks=pytest.mark.slow),
    ],
    ids=["Z5", "Z6", "S3", "Z7", "D4", "D5"],
)
def test_maxima(group, maxima):
    energy = Li2Energy(group)
    np.testing.assert_allclose(energy.maxima, maxima)
    starts = jax.random.normal(jax.random.key(1), (40, 2 * group.order))
    weights = jax.vmap(lambda w: energy.ascend(w, 300))(starts)
    np.testing.assert_allclose(jnp.linalg.norm(weights, axis=1), 1.0, rtol=1e-13)
    found = np.asarray(jax.vmap(energy)(weights))
    np.testing.assert_allclose(np.unique(found.round(9)), maxima, rtol=1e-12)
    if len(maxima) == 1:
        # A single frequency in both halves.
        ratios = inverse_participation_ratio(weights.reshape(40, 2, group.order))
        np.testing.assert_allclose(ratios, 1.0, atol=1e-6)


@pytest.mark.slow
def test_what_a_converged_readout_sends_back():
    keys = jax.random.split(jax.random.key(0), 2)
    energy = Li2Energy(cyclic_group(4))
    features = energy.inputs @ jax.random.normal(keys[0], (8, 6)) ** 2
    targets, penalty = energy.targets, 0.3

    def loss(features, readout):
        error = (targets - features @ readout) - jnp.mean(targets - features @ readout, axis=0)[None]
        return jnp.sum(error**2) / 2 + penalty / 2 * jnp.sum(readout**2)

    readout = ridge_readout(features, targets, penalty)
    by_features, by_readout = jax.grad(loss, argnums=(0, 1))(features, readout)
    np.testing.assert_allclose(by_readout, 0.0, atol=1e-10)
    np.testing.assert_allclose(feature_gradient(features, targets, penalty), -by_features, atol=1e-12)


@pytest.mark.slow
def test_too_few_pairs_leave_no_single_frequency():
    def mean_ratio(pairs):
        chosen = np.random.default_rng(0).permutation(121)[:pairs]
        energy = Li2Energy(cyclic_group(11), np.stack(np.divmod(chosen, 11), axis=1))
        weights = jax.vmap(lambda w: energy.ascend(w, 500))(jax.random.normal(jax.random.key(0), (10, 22)))
        return float(jnp.mean(inverse_participation_ratio(weights.reshape(10, 2, 11))))

    assert mean_ratio(52) < 0.4 < 0.85 < mean_ratio(105)


def test_groups():
    assert cyclic_group(4).table.tolist() == [[0, 1, 2, 3], [1, 2, 3, 0], [2, 3, 0, 1], [3, 0, 1, 2]]
    assert (cyclic_group(8).real_dimensions, cyclic_group(8).complex_dimensions) == ((1,), (1, 1, 1))
    for corners in (3, 4, 7):
        group = dihedral_group(corners)
        assert 1 + sum(d**2 for d in group.real_dimensions) == group.order == 2 * corners
        table = np.asarray(group.table)
        assert not np.array_equal(table, table.T)
        # A reflection is its own inverse.
        assert np.all(np.diagonal(table)[corners:] == 0)


def test_refusals():
    energy = Li2Energy(cyclic_group(5))
    for call, message in (
        (lambda: cyclic_group(1), "`order` must be a whole number of at least 2"),
        (lambda: dihedral_group(2), "`corners` must be a whole number of at least 3"),
        (lambda: FiniteGroup(np.zeros((2, 3), int)), "`table` must be a square table"),
        (lambda: FiniteGroup(np.eye(2)), "`table` must be a square table of whole numbers"),
        (lambda: FiniteGroup(np.zeros((2, 2), int)), "no group"),
        # A Latin square that is not associative.
        (lambda: FiniteGroup((np.arange(3)[:, None] - np.arange(3)[None, :]) % 3), "no group"),
        (lambda: FiniteGroup([[0, 1], [1, 0]], (2,)), "must have squares that add up"),
        (lambda: Li2Energy("Z5"), "`group` must be a FiniteGroup"),
        (lambda: Li2Energy(cyclic_group(5), np.asarray([[0, 5]])), "`pairs` must be elements of the group"),
        (lambda: Li2Energy(cyclic_group(5), np.zeros((0, 2), int)), "`pairs` must be whole numbers of shape"),
        (lambda: Li2Energy(cyclic_group(5), activation="square"), "`activation` must be a function"),
        (lambda: energy(jnp.ones(5)), "`weights` must have shape"),
        (lambda: energy.ascend(jnp.zeros(10)), "`weights` must not all be zero"),
        (lambda: energy.ascend(jnp.ones(10), 0), "`steps` must be"),
        (lambda: Li2Energy(cyclic_group(5), np.asarray([[0, 1]])).maxima, "`pairs` must be all 25 pairs"),
        (lambda: Li2Energy(cyclic_group(5), activation=jnp.tanh).maxima, "`activation` must be jnp.square"),
        (lambda: Li2Energy(FiniteGroup(cyclic_group(3).table)).maxima, "`group` must know the dimensions"),
        (lambda: ridge_readout(jnp.ones((3, 2)), jnp.ones((4, 1)), 0.1), "`targets` must have shape"),
        (lambda: feature_gradient(jnp.ones((3, 2)), jnp.ones((3, 1)), 0.0), "`penalty` must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
