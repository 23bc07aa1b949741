"""Attention that chooses tokens: reference value, the root behind it, the direction of largest margin, refusals."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.optimize

import tractax as tx
from tractax.analysis import largest_margin
from tractax.special import sinh_root
from tractax.transformers import AttentionPooling, TokenSelection, TwoTokenAttention, selection_margin

ONE = TokenSelection(np.asarray([[1.0, 0.0], [0.0, 1.0]]), np.asarray([1.0, 0.0]))


@pytest.mark.parametrize("s", [1e-300, 1e-9, -0.3, 2.0, -50.0, 1e10])
def test_sinh_root(s):
    root = mpmath.findroot(lambda g: g + mpmath.sinh(g) - s, mpmath.asinh(s) if abs(s) > 1 else s / 2)
    assert float(sinh_root(s)) == pytest.approx(float(root), rel=4e-16)
    assert float(jax.grad(sinh_root)(s)) == pytest.approx(float(1 / (1 + mpmath.cosh(root))), rel=1e-14)


def test_sinh_root_at_its_ends():
    assert float(sinh_root(0.0)) == 0.0 and float(jax.grad(sinh_root)(0.0)) == 0.5
    assert float(sinh_root(jnp.inf)) == jnp.inf and float(sinh_root(-jnp.inf)) == -jnp.inf
    huge = np.asarray([1e300, 1.7e308])
    np.testing.assert_allclose(sinh_root(huge), np.log(huge) + np.log(2), rtol=1e-15)
    single = sinh_root(np.asarray([1e-30, 5.0, 3e38], np.float32))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, [5e-31, float(sinh_root(5.0)), np.log(6e38)], rtol=1e-6)


def test_reference_value():
    # ‖u‖² = 2 and a difference of scores of one.
    solution = TwoTokenAttention.from_model(AttentionPooling(np.zeros(2)), ONE)
    state = solution.evaluate(10.0)
    assert float(state.gaps[0]) == pytest.approx(2.687390116968, abs=5e-13)
    np.testing.assert_allclose(state.query, state.gaps[0] * np.asarray([0.5, -0.5]), rtol=1e-14)
    np.testing.assert_allclose(solution.attention(10.0)[0], np.exp([0, -2.687390116968]) / (1 + np.exp(-2.687390116968)))
    assert float(solution.loss(10.0)) == pytest.approx(-1 / (1 + np.exp(-2.687390116968)), rel=1e-12)
    assert float(solution.evaluate(1e12).gaps[0]) == pytest.approx(np.log(2e12), rel=1e-10)
    # A gap beyond all times stays, and the infinite past of none is not a number.
    steep = TwoTokenAttention.from_model(AttentionPooling(np.asarray([900.0, 0.0])), ONE)
    assert float(steep.evaluate(1e12).gaps[0]) == 900.0
    assert jnp.all(steep.evaluate(1e12).query == jnp.asarray([900.0, 0.0]))
    same = TokenSelection(np.ones((2, 2)), np.asarray([1.0, 0.0]))
    still = TwoTokenAttention.from_model(AttentionPooling(np.ones(2)), same)
    np.testing.assert_array_equal(still.evaluate(jnp.inf).query, np.ones(2))
    with pytest.raises(ValueError, match="grows for ever; see `final_direction`"):
        solution.limit()


def test_direction_of_largest_margin():
    # For orthogonal differences it is known.
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    half = np.asarray([2.0, 1.0, 0.7])[:, None] * basis / 2
    task = TokenSelection(np.stack([half, -half], axis=1), np.asarray([[1.0, 0.0], [0.2, 0.5], [1.0, 0.0]]))
    solution, goal = TwoTokenAttention.from_model(AttentionPooling(np.zeros(3)), task), selection_margin(task)
    np.testing.assert_allclose(solution.final_direction(), goal.direction, atol=1e-7)
    assert float(goal.margin) == pytest.approx((1 / 4 + 1 + 1 / 0.49) ** -0.5, rel=1e-7)

    def distance(log_time):
        query = solution.evaluate(10.0**log_time).query
        return jnp.linalg.norm(query / jnp.linalg.norm(query) - solution.final_direction())

    assert tx.scaling(distance, (50.0, 100.0, 150.0, 250.0), correction=-1.0).contains(-1.0)
    # The network attends to tokens as the task's map says, and its loss is theirs.
    model = AttentionPooling(np.asarray([0.3, -0.2, 1.0]))
    weights = np.exp(np.asarray(task.tokens) @ np.asarray(model.query))
    weights /= weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(task.attention_map(model), weights, rtol=1e-13)
    assert float(task.loss(model)) == pytest.approx(
        -np.mean(np.sum(weights * np.asarray(task.scores), axis=1)), rel=1e-13
    )


def test_margin_of_several_tokens():
    draw = np.random.default_rng(3)
    tokens, scores = draw.normal(size=(2, 4, 5)), draw.uniform(size=(2, 4))
    goal = selection_margin(TokenSelection(tokens, scores))
    best = scores.argmax(axis=1)
    z = np.concatenate([tokens[i, b] - np.delete(tokens[i], b, axis=0) for i, b in enumerate(best)])
    found = scipy.optimize.minimize(
        lambda p: p @ p / 2,
        np.zeros(5),
        constraints={"type": "ineq", "fun": lambda p: z @ p - 1},
        options={"ftol": 1e-14},
    )
    np.testing.assert_allclose(goal.direction, found.x / np.linalg.norm(found.x), atol=1e-5)
    assert float(goal.margin) == pytest.approx(1 / np.linalg.norm(found.x), rel=1e-6)
    # No other direction has a larger one.
    others = draw.normal(size=(1000, 5))
    margins = np.min(others @ z.T, axis=1) / np.linalg.norm(others, axis=1)
    assert np.all(margins <= float(goal.margin)) and float(largest_margin(z).margin) == pytest.approx(float(goal.margin))
    # Opposite differences cannot both be chosen.
    torn = TokenSelection(np.asarray([[[1.0], [0.0]], [[0.0], [1.0]]]), np.asarray([[1.0, 0.0], [1.0, 0.0]]))
    assert float(selection_margin(torn).margin) == 0.0


@pytest.mark.slow
def test_several_tokens_turn_to_the_largest_margin():
    from tractax.systems.transformers._two_token_attention import several_case

    task, model = several_case(4)
    ts = jnp.logspace(4.0, 10.0, 4)
    run = tx.train(model, task, tx.GradientFlow(), ts, observe={"query": lambda m: m.query, "loss": task.loss})
    units = run.observed["query"] / jnp.linalg.norm(run.observed["query"], axis=1, keepdims=True)
    distances = jnp.linalg.norm(units - selection_margin(task).direction[None, :], axis=1)
    np.testing.assert_allclose(distances * jnp.log(ts), distances[-1] * np.log(1e10), rtol=0.1)
    assert jnp.all(jnp.diff(run.observed["loss"]) < 0) and float(run.observed["loss"][-1]) > -1.0
    # Next to a token that is better than its neighbours only, the flow never finds the best one.
    trap = TokenSelection(np.asarray([[-1.0], [1.0], [0.9]]), np.asarray([1.0, 0.5, 0.0]))
    late = tx.train(AttentionPooling(np.asarray([4.0])), trap, tx.GradientFlow(), [1e6]).model
    assert float(trap.attention_map(late)[0, 1]) > 0.9 and float(selection_margin(trap).margin) == pytest.approx(1.9)


def test_refusals():
    model = AttentionPooling(np.zeros(2))
    crossed = TokenSelection(np.asarray([[[1.0, 0.0], [0, 0]], [[1.0, 1.0], [0, 0]]]), np.asarray([[1.0, 0], [1, 0]]))
    with pytest.raises(ValueError, match=r"orthogonal differences between tokens.*violation 0.71"):
        TwoTokenAttention.from_model(model, crossed)
    with pytest.raises(ValueError, match="no weight decay"):
        TwoTokenAttention.from_model(model, ONE, tx.GradientFlow(weight_decay=0.1))
    with pytest.raises(ValueError, match="`task` must have two tokens per example for TwoTokenAttention; got 3"):
        TwoTokenAttention.from_model(model, TokenSelection(np.ones((3, 2)), np.arange(3.0)))
    with pytest.raises(ValueError, match="`task` must be a TokenSelection"):
        selection_margin(None)
    with pytest.raises(ValueError, match="one best token in every example"):
        selection_margin(TokenSelection(np.eye(2), np.ones(2)))
    with pytest.raises(ValueError, match="`model` must have 2 inputs"):
        ONE.loss(AttentionPooling(np.zeros(3)))
    with pytest.raises(ValueError, match="`model` must be an AttentionPooling"):
        TwoTokenAttention.from_model(None, ONE)
    with pytest.raises(ValueError, match="at least two tokens"):
        TokenSelection(np.ones((1, 2)), np.ones(1))
    with pytest.raises(ValueError, match="`scores` must have shape"):
        TokenSelection(np.ones((2, 2)), np.ones(3))
    with pytest.raises(ValueError, match="`query` must have shape"):
        AttentionPooling(np.ones((2, 2)))
