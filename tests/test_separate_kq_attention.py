"""Separate keys and queries: plateaus, aligned heads in closed form, steps in order, what is conserved, refusals."""

import itertools
import math

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

import tractax as tx
from tractax.transformers import (
    AlignedAttention,
    InContextRegression,
    LinearAttention,
    SeparateAttention,
    SeparateAttentionFlow,
    aligned_attention,
    gaussian_separate_attention,
    plateau_losses,
    plateau_map,
)

TASK = InContextRegression(jnp.diag(jnp.asarray([0.2, 0.5, 0.3])), 20)
LEVELS = np.asarray([1.0, 0.5652173913043478, 0.31864204883859437, 0.16479589499244052]) / 2


@eqx.filter_jit
def over_time(function, ts):
    return eqx.filter_vmap(function)(ts)


@eqx.filter_jit
def loss_and_gradient(task, model):
    return eqx.filter_value_and_grad(task.loss)(model)


def test_reference_values():
    np.testing.assert_allclose(plateau_losses(TASK), LEVELS, rtol=1e-14)
    np.testing.assert_allclose(plateau_losses(TASK, rank=1), LEVELS[:2], rtol=1e-14)
    solution = AlignedAttention.from_model(aligned_attention(TASK, np.asarray([0.1])), TASK)
    expected = [0.133293608474948, 0.393353128845518, 1.164950975663123, 1.202570976721613]
    found = over_time(solution.evaluate, jnp.asarray([10.0, 30.0, 40.0, 60.0]))
    np.testing.assert_allclose(found.value[:, 0], expected, rtol=1e-13)
    np.testing.assert_allclose(found.key[:, 0, 0, 1] ** 2, np.square(expected), rtol=1e-13)
    assert float(solution.loss(1e6)) == pytest.approx(LEVELS[1], rel=1e-14)
    assert float(solution.escape_times[0]) == pytest.approx(1 / (0.25 * 0.1))


@pytest.mark.slow
def test_every_set_of_components_is_a_fixed_point():
    # One head on each component of the set, one at zero; automatic differentiation of the whole layer.
    vectors = np.eye(3)[[1, 2, 0]]
    for size in range(4):
        for chosen in itertools.combinations(range(3), size):
            gains = np.asarray([vectors[i] @ np.asarray(plateau_map(TASK, chosen)) @ vectors[i] for i in range(3)])
            x = np.cbrt(gains)
            rows = (x[:, None] * vectors)[:, None, :]
            loss, gradient = loss_and_gradient(TASK, SeparateAttention.embed(x, rows, rows))
            assert all(jnp.all(jnp.abs(g) < 1e-15) for g in jax.tree.leaves(gradient))
            expected = LEVELS[0] - sum(LEVELS[i] - LEVELS[i + 1] for i in chosen)
            assert float(loss) == pytest.approx(expected, rel=1e-13)
    # Half-way between components nothing stops.
    tilted = np.asarray([[0.0, 1.0, 1.0]]) / 2**0.5
    model = SeparateAttention.embed(np.ones(1), tilted[None], tilted[None])
    assert any(jnp.any(jnp.abs(g) > 1e-2) for g in jax.tree.leaves(loss_and_gradient(TASK, model)[1]))


def test_long_prompts_are_principal_component_regression():
    covariance = np.asarray([[1.0, 0.3, 0.0], [0.3, 0.8, 0.1], [0.0, 0.1, 0.5]])
    task = InContextRegression(covariance, math.inf, noise_variance=2.0)
    values, vectors = np.linalg.eigh(covariance)
    projector = vectors[:, 1:] @ vectors[:, 1:].T
    np.testing.assert_allclose(covariance @ plateau_map(task, (0, 1)), projector, atol=1e-14)
    np.testing.assert_allclose(2 * plateau_losses(task), [sum(values), *np.cumsum(values)[1::-1], 0.0], atol=1e-14)


@pytest.mark.slow
def test_flow_is_that_of_all_weights():
    task = InContextRegression(
        np.asarray([[1.3, 0.4], [0.4, 0.7]]),
        3,
        task_covariance=np.asarray([[0.8, -0.3], [-0.3, 1.1]]),
        query_covariance=np.asarray([[0.5, 0.2], [0.2, 1.9]]),
        noise_variance=0.3,
    )
    model = gaussian_separate_attention(2, 3, 2, scale=0.7, key=jax.random.key(0))
    _, gradient = loss_and_gradient(task, model)
    solution = SeparateAttentionFlow.from_model(model, task, t1=5.0)
    velocity = solution.vector_field(0.0, solution.reduce(model))
    np.testing.assert_allclose(velocity.value, -gradient.value[:, -1, -1], rtol=1e-12)
    np.testing.assert_allclose(velocity.key, -gradient.key[:, :, :2], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(velocity.query, -gradient.query[:, :, :2], rtol=1e-12, atol=1e-15)
    assert all(jnp.all(jnp.abs(x) < 1e-14) for x in gradient.couplings)
    states = over_time(solution.evaluate, jnp.linspace(0.0, 5.0, 11))
    for conserved in (states.value_imbalance, states.key_query_imbalance):
        np.testing.assert_allclose(conserved, jnp.broadcast_to(conserved[0], conserved.shape), atol=1e-11)
    assert states.key_query_imbalance.shape == (11, 3, 2, 2)


@pytest.mark.slow
def test_unbalanced_aligned_heads():
    # Two heads on one component: six scalars, by SciPy.
    drive, cost = 0.25, 0.5 * (1 + 3 / 20)
    start = np.asarray([[0.3, 0.2, -0.25], [0.1, 0.5, 0.4]])
    axis = np.asarray([0.0, 1.0, 0.0])
    model = SeparateAttention.embed(start[:, 0], start[:, 1, None, None] * axis, start[:, 2, None, None] * axis)
    solution = SeparateAttentionFlow.from_model(model, TASK, t1=60.0)

    def velocity(t, flat):
        del t
        v, k, q = flat.reshape(2, 3).T
        gain = drive * (1 - cost * np.sum(v * k * q))
        return (gain * np.stack([k * q, v * q, v * k], axis=1)).ravel()

    end = scipy.integrate.solve_ivp(velocity, (0, 60), start.ravel(), method="DOP853", rtol=1e-12, atol=1e-14).y[:, -1]
    state = solution.evaluate(60.0)
    found = np.stack([state.value, state.key[:, 0, 1], state.query[:, 0, 1]], axis=1)
    np.testing.assert_allclose(found, end.reshape(2, 3), rtol=1e-9)
    with pytest.raises(ValueError, match="balanced heads"):
        AlignedAttention.from_model(model, TASK)


def plateau_deviations(scale):
    """How far from each plateau the loss is where it falls slowest between two drops; and the last effective map."""
    model = gaussian_separate_attention(3, 4, scale=scale, key=jax.random.key(0))
    horizon = 80 / scale
    solution = SeparateAttentionFlow.from_model(model, TASK, t1=horizon)
    ts = jnp.geomspace(1e-3, 0.999, 3000) * horizon
    losses, speeds = (np.asarray(x) for x in over_time(eqx.filter_value_and_grad(solution.loss), ts))
    middles = np.concatenate([[np.inf], (LEVELS[1:] + LEVELS[:-1]) / 2, [0.0]])
    deviations = []
    for level, above, below in zip(LEVELS, middles[:-1], middles[1:], strict=True):
        inside = np.flatnonzero((losses < above) & (losses > below))
        deviations.append(abs(losses[inside[np.argmin(-speeds[inside])]] - level))
    return np.asarray(deviations), solution


@pytest.mark.slow
def test_random_heads_visit_the_plateaus_in_order():
    deviations, solution = plateau_deviations(1e-2)
    assert np.all(deviations < 1e-4)
    np.testing.assert_allclose(solution.effective_map(4000.0), TASK.optimum, atol=1e-6)
    with pytest.raises(ValueError, match="no closed form"):
        solution.limit()


@pytest.mark.slow
def test_plateaus_are_missed_by_the_cube_of_the_scale():
    assert tx.scaling(lambda scale: plateau_deviations(scale)[0][0], [0.1, 0.05, 0.02, 0.01], correction=1.0).contains(
        3.0
    )


@pytest.mark.slow
def test_too_few_heads_end_on_a_plateau():
    model = gaussian_separate_attention(3, 2, scale=0.05, key=jax.random.key(1))
    solution = SeparateAttentionFlow.from_model(model, TASK, t1=3000.0)
    assert float(solution.loss(3000.0)) == pytest.approx(LEVELS[2], rel=1e-8)
    np.testing.assert_allclose(solution.effective_map(3000.0), plateau_map(TASK, (0, 1)), atol=1e-7)


def _dwell(model, horizon, index, **options):
    """How long the loss is next to a plateau."""
    solution = SeparateAttentionFlow.from_model(model, TASK, t1=horizon, **options)
    ts = jnp.geomspace(1e-3, 0.999, 4000) * horizon
    inside = ts[np.flatnonzero(np.abs(over_time(solution.loss, ts) - LEVELS[index]) < 2e-3)]
    return float(inside[-1] - inside[0])


@pytest.mark.slow
def test_dwell_times_by_rank():
    # Heads of rank two fill two slots; the second follows exponentially, so that its plateau is short.
    def dwell(scale, rank, index):
        model = gaussian_separate_attention(3, 3, rank, scale=scale, key=jax.random.key(2))
        return _dwell(model, 100.0 / scale, index, max_steps=16384)

    for rank, index, grows in ((1, 1, True), (2, 1, False), (2, 2, True)):
        ratio = dwell(0.005, rank, index) / dwell(0.02, rank, index)
        assert (ratio > 3) if grows else (ratio < 2)


@pytest.mark.slow
def test_stabilised_solver_on_long_plateaus():
    model = gaussian_separate_attention(3, 4, scale=1e-4, key=jax.random.key(0))
    options = {"solver": tx.solvers.RKC4(), "stepsize_controller": diffrax.PIDController(rtol=1e-8, atol=1e-12)}
    long = _dwell(model, 5e5, 0, **options)
    short = _dwell(jax.tree.map(lambda w: 10 * w, model), 5e4, 0, **options)
    assert long / short == pytest.approx(10.0, rel=0.02)


@pytest.mark.slow
def test_aligned_with_tied_variances_and_limits():
    # Any orthonormal basis is one of principal components then; signs may be any with a positive product.
    angle = 0.4
    basis = np.asarray([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    task = InContextRegression(0.5 * jnp.eye(2), 6)
    x = np.asarray([0.2, 0.3])
    rows = (x[:, None] * basis)[:, None, :]
    solution = AlignedAttention.from_model(SeparateAttention.embed(-x, -rows, rows), task)
    np.testing.assert_allclose(solution.limit().effective_map, task.optimum, atol=1e-13)
    np.testing.assert_allclose(solution.limit().value, -(np.cbrt(0.5 * (1 + 3 / 6)) ** -1) * np.ones(2), rtol=1e-13)
    assert float(tx.residual(solution, jnp.asarray([0.0, 10.0, 20.0, 30.0])).worst) < 1e-13
    single = InContextRegression(jnp.diag(jnp.asarray([0.2, 0.5, 0.3], jnp.float32)), 20)
    assert plateau_losses(single).dtype == jnp.float32 == aligned_attention(single, np.ones(1)).key.dtype
    np.testing.assert_allclose(plateau_losses(single), LEVELS, rtol=1e-6)
    tiny = AlignedAttention.from_model(aligned_attention(TASK, np.asarray([1e-12, 1e-12])), TASK)
    assert float(tiny.evaluate(2e12).value[0]) == pytest.approx(2e-12, rel=1e-10)
    assert float(tiny.loss(jnp.inf)) == pytest.approx(LEVELS[2], rel=1e-13)


def test_refusals():
    def aligned(v, k, q, task=TASK):
        return AlignedAttention.from_model(SeparateAttention.embed(*(np.asarray(x) for x in (v, k, q))), task)

    e = 0.1 * np.eye(3)[:, None, :]
    for arguments, message in (
        (([0.1, 0.2], e[:2], e[:2]), "balanced heads"),
        (([0.1, 1e-10], e[:2], np.asarray([[[0.1, 0, 0]], [[0, 2e-10, 0]]])), "balanced heads"),
        (([0.1], -e[:1], e[:1]), "signs that lead away from zero"),
        (([0.1, 0.1], e[[0, 0]], e[[0, 0]]), "a principal component of its own"),
        (([0.1], e[:1] * 0 + 0.1 / 3**0.5, e[:1] * 0 + 0.1 / 3**0.5), "along a principal component"),
        (([0.1], e[:1], e[1:2]), "along a principal component"),
        (([2.0], 20 * e[:1], 20 * e[:1]), "below their fixed point"),
        (([0.0], 0 * e[:1], 0 * e[:1]), "heads that are not zero"),
    ):
        with pytest.raises(ValueError, match=message):
            aligned(*arguments)
    skewed = InContextRegression(np.diag([0.2, 0.5, 0.3]), 20, task_covariance=np.diag([1.0, 2.0, 1.0]))
    with pytest.raises(ValueError, match="isotropic tasks"):
        aligned([0.1], e[:1], e[:1], skewed)
    for call in (lambda: plateau_losses(skewed), lambda: plateau_map(skewed, (0,))):
        with pytest.raises(ValueError, match="`task` must have isotropic tasks"):
            call()
    with pytest.raises(ValueError, match="heads of rank 1"):
        AlignedAttention.from_model(gaussian_separate_attention(3, 2, 2, scale=0.1, key=jax.random.key(0)), TASK)
    with pytest.raises(ValueError, match="not the saddle at zero"):
        SeparateAttentionFlow.from_model(SeparateAttention.embed(np.ones(1), 0 * e[:1], 0 * e[:1]), TASK, t1=1.0)
    with pytest.raises(ValueError, match="`model` must be a SeparateAttention network"):
        SeparateAttentionFlow.from_model(LinearAttention.embed(np.ones(1), np.eye(3)[None]), TASK, t1=1.0)
    with pytest.raises(ValueError, match="`components` must be different"):
        plateau_map(TASK, (0, 3))
    with pytest.raises(ValueError, match="`rank` must be a whole number"):
        plateau_losses(TASK, rank=-1)
    with pytest.raises(ValueError, match="`strengths` must be for at most 3 heads"):
        aligned_attention(TASK, 0.1 * np.ones(4))
    with pytest.raises(ValueError, match="`strengths` must be positive"):
        aligned_attention(TASK, np.asarray([0.1, -0.1]))
    with pytest.raises(ValueError, match="`key` must have shape"):
        SeparateAttention.embed(np.ones(2), e[:1], e[:1])
    with pytest.raises(ValueError, match="`rank` must be a whole number of at least 1"):
        gaussian_separate_attention(3, 2, 0, scale=0.1, key=jax.random.key(0))
