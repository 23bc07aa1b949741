"""Merged linear attention with several heads: reference values, collapse to one head, one drop and its time."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tractax as tx
from tractax.special import logistic
from tractax.transformers import (
    InContextRegression,
    IsotropicAttention,
    LinearAttention,
    LinearAttentionFlow,
    balanced_attention,
    drop_time,
    gaussian_attention,
)

WHITE = InContextRegression(jnp.eye(4) / 4, 31)
GRADED = InContextRegression(jnp.diag(jnp.asarray([0.4, 0.3, 0.2, 0.1])), 31)


@eqx.filter_jit
def over_time(function, ts):
    return eqx.filter_vmap(function)(ts)


def test_reference_values():
    # Papers without the ½ in the loss have twice these.
    shares = np.asarray([0.6, 0.0, -0.8])
    model = LinearAttention.embed(1e-3 * shares, np.multiply.outer(1e-3 * shares, np.eye(4) / 2))
    closed = IsotropicAttention.from_model(model, WHITE)
    flow = LinearAttentionFlow.from_model(model, WHITE, t1=80.0)
    for t, g, error in (
        (40.0, 0.010978133115808, 0.994519680818389),
        (60.0, 1.108491213265685, 0.534938062149295),
        (80.0, 3.396221307145773, 0.139057673072263),
    ):
        np.testing.assert_allclose(closed.effective_map(t), g * np.eye(4), rtol=2e-13, atol=1e-16)
        # λ = 1/4, rate 2 λ² √d, end 1/γ.
        assert float(logistic(t, 5e-7, 4 / (1 + 5 / 31), 0.25)) == pytest.approx(g, rel=1e-12)
        assert float(2 * closed.loss(t)) == pytest.approx(error, rel=1e-13)
        assert float(closed.risk(t)) == pytest.approx(error, rel=1e-13)
        assert float(2 * flow.loss(t)) == pytest.approx(error, rel=1e-8)


@pytest.mark.slow
def test_best_loss():
    values = np.asarray([0.4, 0.3, 0.2, 0.1])
    best = 1.0 - np.sum(values / (1 + (1 + 1 / values) / 31))
    assert float(GRADED.risk_of_map(GRADED.optimum)) == pytest.approx(best, rel=1e-13)
    assert float(GRADED.risk(gaussian_attention(4, 2, scale=1e-9, key=jax.random.key(0)))) == pytest.approx(1.0)


@pytest.mark.slow
def test_balanced_heads_are_one_head():
    several = balanced_attention(4, 3, scale=0.1, key=jax.random.key(1))
    value = several.value[:, -1, -1]
    one = LinearAttention.embed(0.1 * np.ones(1), several.key_query[:1, :4, :4] * (0.1 / value[0]))
    flows = [LinearAttentionFlow.from_model(model, GRADED, t1=60.0) for model in (several, one)]
    for t in (5.0, 20.0, 60.0):
        np.testing.assert_allclose(*(flow.effective_map(t) for flow in flows), rtol=1e-8, atol=1e-10)
        assert float(jnp.linalg.norm(flows[0].evaluate(t).value)) == pytest.approx(
            float(flows[1].evaluate(t).value[0]), rel=1e-9
        )


@pytest.mark.slow
def test_random_heads_conserve_and_drop_once():
    model = gaussian_attention(4, 3, scale=1e-3, key=jax.random.key(0))
    solution = LinearAttentionFlow.from_model(model, GRADED, t1=60.0)
    ts = jnp.linspace(0.0, 60.0, 61)
    states = over_time(solution.evaluate, ts)
    start = solution.reduce(model).imbalance
    assert start.shape == (3, 3)
    np.testing.assert_allclose(states.imbalance, jnp.broadcast_to(start, (61, 3, 3)), rtol=0, atol=1e-10)
    # Between the loss of zero weights and the best one there is no second plateau: the descent slows down once only.
    speeds = -over_time(eqx.filter_grad(solution.loss), ts)
    fastest = int(jnp.argmax(speeds))
    assert jnp.all(jnp.diff(speeds[: fastest + 1]) > 0) and jnp.all(jnp.diff(speeds[fastest:]) < 0)
    # The heads have become multiples of one.
    flat = states.key_query[-1].reshape(3, -1)
    assert float(jnp.linalg.svd(flat, compute_uv=False)[1]) < 2e-2 * float(jnp.linalg.norm(flat))


def _one_white_head():
    """A head, the rate of its growth and its drop time."""
    # Here the orbit is logistic: with γg = q = 1 - 1/√2 at half of the drop, e^(2st) = q √d / ((1 - q) γ α²).
    s, gamma, q = 0.0625 * 2, 0.25 * (1 + 5 / 31), 1 - 0.5**0.5
    alpha = (1e-4 + 3e-4 * 2) / 2
    expected = np.log(q * 2 / ((1 - q) * gamma * alpha**2)) / (2 * s)
    return LinearAttention.embed(1e-4 * np.ones(1), 3e-4 * np.eye(4)[None]), s, expected


@pytest.mark.slow
def test_drop_time_of_one_white_head():
    model, _, expected = _one_white_head()
    assert float(drop_time(model, WHITE)) == pytest.approx(expected, rel=1e-7)
    assert float(drop_time(model, WHITE, tx.GradientFlow(3.0))) == pytest.approx(3 * expected, rel=1e-7)


@pytest.mark.slow
def test_drop_time_has_a_gradient():
    # With the variance λ, the rate is s ∝ λ² and γ ∝ λ.
    model, s, expected = _one_white_head()
    slope = jax.grad(lambda scale: drop_time(model, InContextRegression(scale * jnp.eye(4) / 4, 31)))(1.0)
    assert float(slope) == pytest.approx(-2 * expected - 1 / (2 * s), rel=1e-7)


@pytest.mark.slow
def test_drop_time_grows_with_the_logarithm_of_the_scale():
    draw = gaussian_attention(4, 3, scale=1.0, key=jax.random.key(2))

    @jax.jit
    def predicted(scale):
        return drop_time(jax.tree.map(lambda w: scale * w, draw), GRADED)

    speed = float(jnp.linalg.norm(GRADED.drive))
    offsets = [float(predicted(scale)) - np.log(1 / scale) / speed for scale in (1e-2, 1e-4, 1e-6)]
    np.testing.assert_allclose(offsets, offsets[0], rtol=1e-10)
    assert float(jax.grad(predicted)(1e-3)) == pytest.approx(-1e3 / speed, rel=1e-6)
    # The simulated network is where the prediction says, and the nearer, the smaller its weights.
    for scale, tolerance in ((1e-2, 5e-2), (1e-4, 5e-4)):
        model = jax.tree.map(lambda w, scale=scale: scale * w, draw)
        solution = LinearAttentionFlow.from_model(model, GRADED, t1=60.0)
        ts = jnp.linspace(0.0, 60.0, 121)
        middle = (0.5 + float(GRADED.loss_of_map(GRADED.optimum))) / 2
        found = tx.analysis.crossing_times(ts, over_time(solution.loss, ts)[:, None], middle)[0]
        assert float(found) == pytest.approx(float(predicted(scale)), abs=tolerance)


def test_refusals():
    model = gaussian_attention(4, 2, scale=0.1, key=jax.random.key(0))
    with pytest.raises(ValueError, match="`rule` must have no weight decay for drop_time"):
        drop_time(model, WHITE, tx.GradientFlow(weight_decay=0.1))
    with pytest.raises(ValueError, match="`model` must be a LinearAttention network"):
        drop_time(None, WHITE)
    with pytest.raises(ValueError, match="`task` must be an InContextRegression"):
        drop_time(model, None)
    with pytest.raises(ValueError, match="`model` must have small weights for drop_time"):
        drop_time(jax.tree.map(lambda w: 100 * w, model), WHITE)
    assert float(drop_time(LinearAttention.embed(np.zeros(1), np.zeros((1, 4, 4))), WHITE)) == jnp.inf
