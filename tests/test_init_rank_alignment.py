"""Initial rank and kernel alignment: reference values, trained networks, the exact exception, refusals."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tractax as tx
from tractax.analysis import cosine_similarity, tangent_kernel
from tractax.deep_linear import (
    DeepLinear,
    LinearTask,
    aligned,
    alignment_assumptions,
    expected_alignment,
    final_alignment,
    gaussian,
    haar,
    input_kernel,
    low_rank,
    participation_ratio,
    target_alignment,
)


def _isotropic(d, rank, key):
    basis = haar(key, d, rank, float)
    return basis @ basis.T


@pytest.mark.parametrize(
    ("d", "rank", "expected", "digits"),
    [
        (4, 1, 0.4724555912613, 1e-12),
        (4, 2, 0.6681531047811, 1e-12),
        (4, 4, 0.9449111825231, 1e-12),
        (20, 1, 0.2189, 2.5e-4),
        (20, 10, 0.6923, 1e-4),
        (20, 20, 0.9791, 1e-4),
    ],
)
def test_reference_values(d, rank, expected, digits, getkey):
    kernel = 0.37 * _isotropic(d, rank, getkey())
    assert float(participation_ratio(kernel)) == pytest.approx(rank, rel=1e-12)
    assert float(expected_alignment(kernel)) == pytest.approx(expected, rel=digits)


def test_input_kernel_is_the_tangent_kernel(getkey):
    model = gaussian((4, 3, 1), scale=0.7, key=getkey())
    inputs = jax.random.normal(getkey(), (5, 4))
    kernel = tangent_kernel(model, inputs)[:, 0, :, 0]
    np.testing.assert_allclose(inputs @ input_kernel(model) @ inputs.T, kernel, rtol=1e-12, atol=1e-13)


def test_expectation_is_the_average_over_targets(getkey):
    kernel = input_kernel(gaussian((5, 4, 1), scale=1.0, key=getkey()))
    targets = jax.random.normal(getkey(), (20_000, 5))
    drawn = np.asarray(jax.jit(jax.vmap(target_alignment, in_axes=(None, 0)))(kernel, targets))
    margin = 4.5 * drawn.std() / len(drawn) ** 0.5
    assert drawn.mean() == pytest.approx(float(expected_alignment(kernel)), abs=margin)


def test_target_alignment_is_a_cosine(getkey):
    kernel = input_kernel(gaussian((5, 4, 1), scale=1.0, key=getkey()))
    target = jax.random.normal(getkey(), (5,))
    final = jnp.outer(target, target) / jnp.sum(target**2) + jnp.eye(5)
    assert float(target_alignment(kernel, target)) == pytest.approx(float(cosine_similarity(kernel, final)), rel=1e-13)
    assert float(target_alignment(kernel, 1e9 * target)) == pytest.approx(float(target_alignment(kernel, target)))


def _trained_alignments(model, task, ts):
    tight = diffrax.PIDController(rtol=1e-10, atol=1e-14)
    trained = tx.train(model, task, tx.GradientFlow(), ts, observe=input_kernel, stepsize_controller=tight)
    return jax.vmap(cosine_similarity, in_axes=(0, None))(trained.observed, input_kernel(model))


@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, 4])
def test_trained_networks_end_where_predicted(rank, getkey):
    # A target of length two sets another time scale and final size, not another alignment.
    task = LinearTask(2.0 * haar(getkey(), 6, 1, float).T)
    model = low_rank((6, 5, 1), rank=rank, scale=0.01, key=getkey())
    found = _trained_alignments(model, task, jnp.asarray([0.0, 20.0]))
    assert float(found[0]) == pytest.approx(1.0)
    assert float(found[-1]) == pytest.approx(float(final_alignment(model, task)), abs=3e-5)


@pytest.mark.slow
def test_catalogue_entry_measures_the_rate():
    found = tx.verify("init_rank_alignment")
    assert found.passed and found.interval is not None
    assert found.interval[1] - found.interval[0] < 0.01


@pytest.mark.slow
def test_lower_rank_learns_more_richly(getkey):
    task = LinearTask(haar(getkey(), 8, 1, float).T)
    draws = jax.random.split(getkey(), 200)

    def mean_alignment(rank):
        models = jax.vmap(lambda key: low_rank((8, 8, 1), rank=rank, scale=0.01, key=key).weights[0])(draws)
        silent = jnp.zeros((1, 8))
        found = jax.vmap(lambda w: final_alignment(DeepLinear((w, silent)), task, check=False))(models)
        return float(jnp.mean(found)), float(jnp.std(found)) / 200**0.5

    (one, error), (two, _), (full, _) = (mean_alignment(rank) for rank in (1, 2, 8))
    assert one == pytest.approx(9 / (8 * 11**0.5), abs=4 * error)
    assert one + 0.05 < two < full - 0.05


@pytest.mark.slow
@pytest.mark.parametrize("strength", [1e-4, 0.3])
def test_an_aligned_start_never_turns(strength, getkey):
    # Exact at every time and scale, although the weights have rank one.
    task = LinearTask(1.7 * haar(getkey(), 5, 1, float).T)
    model = aligned(task, (4,), strength=strength, key=getkey())
    found = _trained_alignments(model, task, jnp.linspace(0.0, 15.0, 31))
    np.testing.assert_allclose(found, 1.0, rtol=0, atol=1e-12)
    assert float(target_alignment(input_kernel(model), task.optimum[0])) == pytest.approx(1.0, abs=1e-12)


def test_one_input_has_nothing_to_turn():
    assert float(expected_alignment(jnp.asarray([[0.3]]))) == pytest.approx(1.0, rel=1e-15)


@pytest.mark.slow
def test_gradient_and_float32(getkey):
    task = LinearTask(jnp.asarray([[1.0, -0.5, 0.3]]))
    w1, w2 = low_rank((3, 4, 1), rank=2, scale=0.1, key=getkey()).weights
    turn = jax.random.normal(getkey(), w1.shape)

    def alignment(h):
        return final_alignment(DeepLinear((w1 + h * turn, w2)), task)

    slope = (alignment(1e-5) - alignment(-1e-5)) / 2e-5
    assert float(jax.jit(jax.grad(alignment))(0.0)) == pytest.approx(float(slope), rel=1e-7)
    single = DeepLinear((w1.astype(jnp.float32), w2.astype(jnp.float32)))
    found = final_alignment(single, LinearTask(task.optimum.astype(jnp.float32)))
    assert found.dtype == jnp.float32
    assert float(found) == pytest.approx(float(alignment(0.0)), rel=1e-5)


def test_refuses_what_it_does_not_cover(getkey):
    task = LinearTask(jnp.asarray([[1.0, -0.5, 0.3]]))
    model = low_rank((3, 4, 1), rank=2, scale=0.1, key=getkey())
    assert all(bool(a.holds) for a in alignment_assumptions(model, task))
    with pytest.raises(ValueError, match=r"small initial weights.*FAILS"):
        final_alignment(low_rank((3, 4, 1), rank=2, scale=1.0, key=getkey()), task)
    v = jnp.asarray([[0.1, 0.0, 0.0, 0.0]])
    stuck = DeepLinear((v.T @ task.optimum / jnp.linalg.norm(task.optimum), -v))
    with pytest.raises(ValueError, match=r"leaves the saddle.*FAILS"):
        final_alignment(stuck, task)
    with pytest.raises(ValueError, match=r"whitened inputs.*FAILS"):
        final_alignment(model, LinearTask(task.optimum, jnp.diag(jnp.asarray([1.0, 2.0, 1.0]))))
    with pytest.raises(ValueError, match="no weight decay"):
        final_alignment(model, task, tx.GradientFlow(weight_decay=0.1))
    with pytest.raises(ValueError, match="2 layers"):
        final_alignment(gaussian((3, 2, 2, 1), scale=0.1, key=getkey()), task)
    with pytest.raises(ValueError, match="one output"):
        final_alignment(gaussian((3, 2, 2), scale=0.1, key=getkey()), LinearTask(jnp.ones((2, 3))))
    with pytest.raises(ValueError, match="`target` must not vanish"):
        target_alignment(jnp.eye(2), jnp.zeros(2))
    with pytest.raises(ValueError, match="`kernel` must not vanish"):
        expected_alignment(jnp.zeros((2, 2)))
    with pytest.raises(ValueError, match="`kernel` must be positive semi-definite"):
        participation_ratio(jnp.diag(jnp.asarray([1.0, -1.0])))
