"""Scan and snap: the network on real contexts, reference values, the law and its rate, bounds, refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tractax as tx
from tractax.special import softplus_lambert
from tractax.transformers import (
    LinearAttention,
    NextTokenTask,
    ScanAndSnap,
    ScanAndSnapLaw,
    TokenAttention,
    TokenAttentionFlow,
    relative_gain,
    winner_bounds,
)

TWO = NextTokenTask.symmetric(np.asarray([0.3]), np.asarray([0.4, 0.3]), 2)
ZEROS = TokenAttention.zeros(5, 2, 2)


@functools.cache
def solved(ratio):
    """Two classes, from zero weights, up to t = 500."""
    return ScanAndSnap.from_model(ZEROS, TWO, rates(1.0, ratio), t1=500.0)


def rates(decoder, attention):
    return tx.GradientFlow(rates=np.asarray([decoder, attention]))


def random_network(tokens, outputs, last, seed=0):
    draw = np.random.default_rng(seed)
    return TokenAttention(draw.normal(size=(tokens, outputs)), draw.normal(size=(last, tokens)))


@pytest.mark.slow
def test_network_is_softmax_attention_over_a_context():
    model, context = random_network(5, 3, 2), np.asarray([0, 3, 3, 1, 0, 3])
    weights = np.exp(np.asarray(model.logits)[1, context])
    weights /= weights.sum()
    values = weights @ np.eye(5)[context]
    frequencies = np.bincount(context, minlength=5)
    np.testing.assert_allclose(model.attention(frequencies, 1), values, rtol=1e-14)
    expected = values / np.linalg.norm(values) @ np.asarray(model.decoder)
    np.testing.assert_allclose(model(frequencies, 1), expected, rtol=1e-13)
    # Tokens that do not occur count for nothing, and large logits do not overflow.
    steep = TokenAttention(np.asarray(model.decoder, np.float32), np.asarray([[1e4, 2e4, 0, 0, 1e5]], np.float32))
    np.testing.assert_array_equal(steep.attention(np.asarray([1.0, 1.0, 1.0, 1.0, 0.0]), 0), [0, 1, 0, 0, 0])
    assert steep(np.ones(5), 0).dtype == jnp.float32
    assert jnp.all(jnp.isfinite(jax.jacobian(lambda z: TokenAttention(steep.decoder, z)(np.ones(5), 0))(steep.logits)))


@pytest.mark.slow
def test_loss_and_samples(getkey):
    rows = np.asarray([[3.0, 5.0, 0.0, 2.0], [2.0, 0.0, 3.0, 0.0], [0.0, 1.0, 3.0, 6.0]])
    task = NextTokenTask(rows, (0, 1, 0), probabilities=np.asarray([5.0, 2.0, 3.0]))
    np.testing.assert_array_equal(task.distinct, np.zeros((3, 4), bool))
    model, p, share = random_network(4, 4, 2), rows / rows.sum(axis=1, keepdims=True), (0.5, 0.2, 0.3)
    expected = 0.0
    for n, m in enumerate((0, 1, 0)):
        f = p[n] * np.exp(np.asarray(model.logits)[m])
        scores = f / np.linalg.norm(f) @ np.asarray(model.decoder)
        expected += share[n] * (np.log(np.sum(np.exp(scores))) - scores[n])
    assert float(task.loss(model)) == pytest.approx(expected, rel=1e-13)
    # Exact frequencies: only the next token is random.
    batch = task.sample(getkey(), 20_000)
    assert float(task.batch_loss(model, batch)) == pytest.approx(expected, abs=0.03)


@pytest.mark.slow
def test_finite_contexts():
    # The loss of a context scatters as T^(-1/2), and its mean is off by 1/T.
    model, row = random_network(4, 3, 1), np.asarray([[3.0, 5.0, 0.0, 2.0]])

    def losses(length):
        task = NextTokenTask(row, length=length)
        keys = jax.random.split(jax.random.key(length), 200_000)
        found = jax.jit(jax.vmap(lambda key: task.batch_loss(model, task.sample(key, 1))))(keys)
        return np.asarray(found) - float(task.loss(model))

    short, long = losses(20), losses(80)
    assert short.std() / long.std() == pytest.approx(2.0, rel=0.1)
    error = long.std() / 200_000**0.5
    assert abs(long.mean()) > 10 * error
    assert short.mean() / long.mean() == pytest.approx(4.0, rel=0.2)


@pytest.mark.slow
def test_general_equations():
    # Automatic differentiation of the whole network moves it as they say.
    rows = np.asarray([[0.3, 0.5, 0.0, 0.2], [0.4, 0.0, 0.6, 0.0], [0.0, 0.1, 0.3, 0.6]])
    task = NextTokenTask(rows, (0, 1, 0), probabilities=np.asarray([0.5, 0.2, 0.3]))
    model = random_network(4, 5, 3)
    flow = TokenAttentionFlow.from_model(model, task, rates(1.0, 0.7), t1=3.0)
    final = flow.evaluate(3.0)
    slopes, found = jax.grad(task.loss)(final), flow.vector_field(0.0, final)
    np.testing.assert_allclose(found.decoder, -slopes.decoder, atol=1e-14)
    np.testing.assert_allclose(found.logits, -0.7 * slopes.logits, atol=1e-14)
    np.testing.assert_allclose(jnp.sum(final.logits, axis=1), jnp.sum(model.logits, axis=1), atol=1e-12)
    np.testing.assert_array_equal(final.logits[2], model.logits[2])
    assert float(flow.loss(3.0)) < float(task.loss(model))
    assert flow.attention_map(3.0).shape == (3, 4)
    assert TokenAttentionFlow.assumptions(model, task) == ()


def test_reference_values():
    solution = solved(0.5)
    for t, gap, logits in (
        (10.0, 1.952980082128, (-0.1332125301127, 0.0846890479027, 0.0485234822)),
        (100.0, 4.498236222758, (-0.4180877252418, 0.2554431627516, 0.1626445624902)),
    ):
        assert float(solution.gap(t)) == pytest.approx(gap, rel=1e-11)
        found = solution.evaluate(t).logits
        np.testing.assert_allclose(found[:3], logits, atol=1e-11)
        np.testing.assert_array_equal(found[3:], 0.0)
        assert float(jnp.sum(found)) == pytest.approx(0.0, abs=1e-12)
    # The whole network, with both classes.
    ts = jnp.asarray([0.0, 10.0, 100.0])
    observe = {"state": solution.reduce, "loss": TWO.loss, "map": TWO.attention_map}
    observed = tx.train(ZEROS, TWO, solution.rule, ts, observe=observe).observed
    for i, t in enumerate(ts):
        np.testing.assert_allclose(observed["state"].logits[i], solution.evaluate(t).logits, atol=1e-7)
        np.testing.assert_allclose(observed["state"].decoder[i], solution.evaluate(t).decoder, atol=1e-7)
        np.testing.assert_allclose(observed["map"][i, 0], solution.attention(t), atol=1e-7)
        assert float(observed["loss"][i]) == pytest.approx(float(solution.loss(t)), rel=1e-6)
    # Shared tokens lose and distinct ones gain, all the time.
    logits = jax.vmap(solution.evaluate)(jnp.linspace(0.0, 500.0, 101)).logits
    assert jnp.all(jnp.diff(logits[:, 0]) < 0) and jnp.all(jnp.diff(logits[:, 1:3], axis=0) > 0)


@pytest.mark.slow
def test_law_and_its_gap():
    # ρ = 1/(1 + 2²) = 0.2.
    task = NextTokenTask.symmetric(np.ones(1), 2 * np.ones(1), 3)
    model = TokenAttention.zeros(4, 3, 3)
    law = ScanAndSnapLaw.from_model(model, task, rates(1.0, 0.1))
    for t, gap in ((1.0, 0.2548597055291123), (10.0, 1.7167621314439927), (100.0, 4.28268451338856)):
        assert float(law.gap(t)) == pytest.approx(gap, rel=1e-14)
        assert float(law.loss(t)) == pytest.approx(np.log1p(2 * np.exp(-gap)), rel=1e-13)
        # ε (K-1) ρ f² h² / (2K (1-ρ)²) and -ε (K-1) f² h² / (2K (1-ρ)), with f² = 0.2 and 0.8.
        expected = [-0.1 * 2 * 0.2 * gap**2 / (6 * 0.8), 0.1 * 2 * 0.2 * 0.8 * gap**2 / (6 * 0.64), 0.0, 0.0]
        np.testing.assert_allclose(law.evaluate(t).logits, expected, rtol=1e-13, atol=1e-15)
    assert float(law.snap_time) == pytest.approx(3 * np.log(3) / 0.8, rel=1e-13)
    assert float(ScanAndSnapLaw.from_model(model, task, tx.GradientFlow(2.0)).snap_time) == pytest.approx(
        2 * float(law.snap_time)
    )
    # Early, attention moves as t², late as ln² t.
    early, later = (law.evaluate(t).logits[1] for t in (1e-4, 2e-4))
    assert float(later / early) == pytest.approx(4.0, rel=1e-3)
    assert float(law.gap(1e12)) == pytest.approx(np.log(0.8e12), rel=1e-2)
    assert float(law.gap(jnp.inf)) == jnp.inf and not jnp.any(jnp.isnan(law.evaluate(jnp.inf).logits))
    single = ScanAndSnapLaw.from_model(
        TokenAttention.zeros(4, 3, 3, jnp.float32), NextTokenTask(task.distribution.astype(jnp.float32))
    )
    assert single.gap(10.0).dtype == jnp.float32
    assert float(single.gap(10.0)) == pytest.approx(1.7167621314439927, rel=1e-6)
    # The slope in time of the gap, by automatic differentiation, is that of its own equation.
    slope = jax.jit(jax.grad(law.gap))(10.0)
    assert float(slope) == pytest.approx(0.8 / (2 + np.exp(1.7167621314439927)), rel=1e-12)
    assert float(law.gap(10.0)) == pytest.approx(float(softplus_lambert(2.0, 9.0)), rel=1e-14)


def test_law_starts_from_any_attention():
    # Logits at the start act like frequencies.
    shifted = TokenAttention(ZEROS.decoder, np.asarray([[0.5, 0, -0.2, 0, 0], [0.5, 0, 0, 0, -0.2]]))
    law = ScanAndSnapLaw.from_model(shifted, TWO)
    other = NextTokenTask.symmetric(0.3 * np.exp([0.5]), np.asarray([0.4, 0.3 * np.exp(-0.2)]), 2)
    expected = ScanAndSnapLaw.from_model(ZEROS, other)
    assert float(law.gap(20.0)) == pytest.approx(float(expected.gap(20.0)), rel=1e-13)
    change = law.evaluate(20.0).logits - shifted.logits[0]
    np.testing.assert_allclose(change, expected.evaluate(20.0).logits, atol=1e-14)


@pytest.mark.slow
def test_winners_and_their_bounds():
    ts, errors = jnp.asarray([0.0, 10.0, 500.0]), []
    for ratio in (0.1, 0.01):
        solution = solved(ratio)
        bounds = winner_bounds(solution, ts)
        states = jax.vmap(solution.evaluate)(ts)
        np.testing.assert_allclose(bounds.growth, 2 * states.logits[:, 1], atol=1e-15)
        assert jnp.all(bounds.lower <= bounds.growth) and jnp.all(bounds.growth <= bounds.upper)
        # The relative gain of the frequent token over the other grows like χ, up to O(ε).
        gain = relative_gain(jax.vmap(solution.alike.attention)(states.logits), 1, 2)
        assert float(gain[0]) == pytest.approx((0.4 / 0.3) ** 2 - 1, rel=1e-12)
        errors.append(float(gain[0] * jnp.exp(bounds.growth[1]) - gain[1]) / float(gain[1] - gain[0]))
    assert errors[0] / errors[1] == pytest.approx(10.0, rel=0.05)


@pytest.mark.slow
def test_lower_bound_fails_where_shared_tokens_are_rare():
    task, model = NextTokenTask.symmetric(0.1 * np.ones(1), 0.9 * np.asarray([0.6, 0.4]), 2), ZEROS
    ts, short = jnp.asarray([500.0]), []
    for ratio in (0.1, 0.01):
        bounds = winner_bounds(ScanAndSnap.from_model(model, task, rates(1.0, ratio), t1=500.0), ts)
        assert float(bounds.growth[0]) < float(bounds.upper[0])
        short.append(1 - float(bounds.growth[0] / bounds.lower[0]))
    assert short[0] > 0.01 and short[0] / short[1] == pytest.approx(10.0, rel=0.3)


@pytest.mark.slow
def test_a_fast_decoder_leaves_attention_flat():
    from tractax.systems.transformers._scan_and_snap import headline_run

    entropies = [float(headline_run(ratio).solution.entropy(1000.0)) for ratio in (0.5, 1.0, 2.0, 5.0, 10.0, 50.0)]
    assert np.all(np.diff(entropies) > 0)


def test_refusals():
    with pytest.raises(ValueError, match="classes equally likely"):
        uneven = NextTokenTask(TWO.distribution, probabilities=np.asarray([0.4, 0.6]))
        ScanAndSnap.from_model(ZEROS, uneven, t1=1.0)
    with pytest.raises(ValueError, match="a last token of its own"):
        ScanAndSnapLaw.from_model(ZEROS, NextTokenTask(TWO.distribution, (0, 0)))
    for rows in ([[0.3, 0.4, 0.3, 0, 0], [0.3, 0, 0, 0.5, 0.2]], [[0.3, 0.4, 0.3, 0, 0], [0.2, 0, 0, 0.4, 0.4]]):
        with pytest.raises(ValueError, match="the same frequencies of tokens"):
            ScanAndSnapLaw.from_model(ZEROS, NextTokenTask(np.asarray(rows)))
    decoder, logits = np.zeros((5, 2)), np.zeros((2, 5))
    decoder[1], decoder[3] = [0.5, -0.5], [-0.4, 0.4]
    logits[0, 1] = 0.1
    with pytest.raises(ValueError, match=r"the same logits of attention.*the same decoder.*starts at zero"):
        ScanAndSnapLaw.from_model(TokenAttention(decoder, logits), TWO)
    with pytest.raises(ValueError, match="zero for shared tokens"):
        ScanAndSnapLaw.from_model(TokenAttention(np.asarray([[1.0, -1.0], *[[0.0, 0.0]] * 4]), 0 * logits), TWO)
    with pytest.raises(ValueError, match="distinct tokens in every class"):
        ScanAndSnapLaw.from_model(TokenAttention.zeros(2, 2, 2), NextTokenTask(np.ones((2, 2))))
    with pytest.raises(ValueError, match="no weight decay"):
        ScanAndSnapLaw.from_model(ZEROS, TWO, tx.GradientFlow(weight_decay=0.1))
    with pytest.raises(ValueError, match="`model` must have 2 outputs, as `task` has classes"):
        ScanAndSnap.from_model(TokenAttention.zeros(5, 3, 2), TWO, t1=1.0)
    with pytest.raises(ValueError, match="`task` must have at least two classes"):
        ScanAndSnapLaw.from_model(TokenAttention.zeros(5, 1, 1), NextTokenTask(np.ones((1, 5))))
    with pytest.raises(ValueError, match=r"`rule.rates` must have shape \(2,\)"):
        ScanAndSnapLaw.from_model(ZEROS, TWO, tx.GradientFlow(rates=np.ones(3))).evaluate(1.0)
    for model, message in (
        (TokenAttention.zeros(4, 2, 2), "know 5 tokens"),
        (TokenAttention.zeros(5, 1, 2), "at least 2 outputs"),
        (TokenAttention.zeros(5, 2, 1), "logits for 2 last tokens"),
        (LinearAttention.embed(np.ones(1), np.eye(3)[None]), "be a TokenAttention network"),
    ):
        with pytest.raises(ValueError, match=f"`model` must (have )?{message}"):
            TokenAttentionFlow.from_model(model, TWO, t1=1.0)
    with pytest.raises(ValueError, match="`solution` must be a ScanAndSnap"):
        winner_bounds(ScanAndSnapLaw.from_model(ZEROS, TWO), np.ones(1))
    for arguments, options, message in (
        (([[0.5, -0.1]],), {}, "`distribution` must be non-negative"),
        (([[0.5, 0.1], [0.0, 0.0]],), {}, "`distribution` must have a positive entry in every row"),
        (([[0.5, np.nan]],), {}, "`distribution` must be finite"),
        (([[0.5, 0.1]], (0, 1)), {}, "`last` must hold 1 whole numbers"),
        (([[0.5, 0.1]], (-1,)), {}, "`last` must hold 1 whole numbers"),
        (([[0.5, 0.1]],), {"probabilities": np.ones(2)}, "`probabilities` must have shape"),
        (([[0.5, 0.1]],), {"length": 0}, "`length` must be a whole number"),
    ):
        with pytest.raises(ValueError, match=message):
            NextTokenTask(np.asarray(arguments[0]), *arguments[1:], **options)
    for arguments, message in (
        ((np.ones(1), np.ones(0), 2), "`own` must have shape"),
        ((np.ones((1, 1)), np.ones(1), 2), "`shared` must have shape"),
        ((np.ones(1), np.ones(1), 1), "`classes` must be a whole number of at least 2"),
    ):
        with pytest.raises(ValueError, match=message):
            NextTokenTask.symmetric(*arguments)
    np.testing.assert_array_equal(NextTokenTask.symmetric(np.ones(0), np.ones(1), 2).distinct, np.eye(2, dtype=bool))
