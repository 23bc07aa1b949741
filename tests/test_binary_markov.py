"""A binary Markov chain: baselines, exact loss, samples, and the threshold that weight tying sets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tractax as tx
from tractax.transformers import BinaryMarkovTask, TiedBigram, learns_bigram


def second_order(tokens):
    """Log-odds that depend on two tokens."""
    tokens = tokens.astype(float)
    before = jnp.concatenate([jnp.zeros_like(tokens[:1]), tokens[:-1]])
    return 0.7 * tokens - 0.4 * before * tokens - 0.2


@pytest.mark.slow
def test_baselines():
    task = BinaryMarkovTask(0.2, 0.3)
    assert float(task.stationary) == pytest.approx(0.4, rel=1e-15)
    assert float(task.unigram_loss) == pytest.approx(0.6730116670092565, rel=1e-15)
    assert float(task.bigram_loss) == pytest.approx(0.5445871749448701, rel=1e-15)
    # They are the losses of the networks that predict so, on sequences of any length.
    low, high = np.log(0.2 / 0.8), np.log(0.7 / 0.3)
    for length in (2, 6):
        task = BinaryMarkovTask(0.2, 0.3, length)
        bigram = TiedBigram(1.0, (high - low) / 2 - 1, (high + low) / 2)
        assert float(task.loss(TiedBigram(0.0, 0.0, np.log(0.4 / 0.6)))) == pytest.approx(0.6730116670092565, rel=1e-14)
        assert float(task.loss(bigram)) == pytest.approx(0.5445871749448701, rel=1e-14)
        np.testing.assert_allclose(jax.tree.leaves(jax.grad(task.loss)(bigram)), 0.0, atol=1e-15)
    # Tokens that are independent, or certain.
    free, certain = BinaryMarkovTask(0.3, 0.7), BinaryMarkovTask(1.0, 1.0)
    assert float(free.bigram_loss) == pytest.approx(float(free.unigram_loss), rel=1e-15)
    assert float(certain.bigram_loss) == 0.0 and float(certain.unigram_loss) == pytest.approx(np.log(2))
    assert BinaryMarkovTask(np.float32(0.2), 0.3).bigram_loss.dtype == jnp.float32
    np.testing.assert_array_less(
        jax.vmap(lambda p: BinaryMarkovTask(p, 0.3).bigram_loss)(jnp.linspace(0.0, 0.6, 4)),
        jax.vmap(lambda p: BinaryMarkovTask(p, 0.3).unigram_loss)(jnp.linspace(0.0, 0.6, 4)) + 1e-12,
    )


def test_exact_loss_is_that_of_samples():
    task = BinaryMarkovTask(0.8, 0.4, 5)
    tokens = task.sample(jax.random.key(0), 40_000)
    assert tokens.shape == (40_000, 5) and set(np.unique(tokens)) == {0, 1}
    zeros = np.asarray(tokens[:, :-1]) == 0
    flips = np.asarray(tokens[:, 1:] != tokens[:, :-1])
    assert flips[zeros].mean() == pytest.approx(0.8, abs=0.01) and flips[~zeros].mean() == pytest.approx(0.4, abs=0.01)
    np.testing.assert_allclose(np.mean(tokens, axis=0), 2 / 3, atol=0.01)
    assert float(task.batch_loss(second_order, tokens)) == pytest.approx(float(task.loss(second_order)), abs=0.01)


@pytest.mark.slow
def test_tied_weights_have_a_threshold():
    alternating, repeating = BinaryMarkovTask(0.8, 0.7), BinaryMarkovTask(0.3, 0.2)
    ts = jnp.asarray([1.0, 10.0, 1000.0])

    @jax.jit
    def run(embedding, weight, up, down):
        task = BinaryMarkovTask(up, down)
        model = TiedBigram(embedding, weight, 0.5)
        observe = {"loss": task.loss, "balance": lambda network: network.balance}
        observed = tx.train(model, task, tx.GradientFlow(), ts, observe=observe).observed
        return observed["loss"], observed["balance"], learns_bigram(model, task)

    for task, embedding, weight, learns in (
        (alternating, 1.4, 0.0, False),
        (alternating, 1.43, 0.0, True),
        (alternating, 0.3, -1.5, True),
        (repeating, 0.3, 0.0, True),
        (repeating, -0.6, -1.5, False),
        (repeating, -0.8, -1.5, True),
    ):
        losses, balance, predicted = run(embedding, weight, task.up, task.down)
        assert bool(predicted) is learns
        np.testing.assert_allclose(balance, embedding**2 - 2 * (1 + weight) ** 2, atol=1e-7)
        final = task.bigram_loss if learns else task.unigram_loss
        assert float(losses[-1]) == pytest.approx(float(final), abs=1e-6)
        if not learns:
            assert jnp.all(losses >= task.unigram_loss - 1e-12)
    assert not learns_bigram(TiedBigram(0.0, -1.5), alternating)
    assert learns_bigram(TiedBigram(0.1, -1.0), alternating)


def test_refusals():
    for arguments, message in (
        ((1.2, 0.3), "`up` must be a probability"),
        ((0.2, -0.1), "`down` must be non-negative"),
        ((np.ones(2), 0.1), "`up` must be one number"),
        ((0.0, 0.0), "must not both be zero"),
        ((0.2, 0.1, 1), "`length` must be a whole number of at least 2"),
        ((0.2, 0.1, 2.0), "`length` must be a whole number of at least 2"),
    ):
        with pytest.raises(ValueError, match=message):
            BinaryMarkovTask(*arguments)
    with pytest.raises(ValueError, match="`length` must be at most 16 for the exact loss; got 17"):
        BinaryMarkovTask(0.2, 0.3, 17).loss(TiedBigram(1.0, 0.0))
    with pytest.raises(ValueError, match="`embedding` must be one number"):
        TiedBigram(np.ones(2), 0.0)
    with pytest.raises(ValueError, match="`embedding` must be finite"):
        TiedBigram(np.nan, 0.0)
    with pytest.raises(ValueError, match="`model` must be a TiedBigram"):
        learns_bigram(None, BinaryMarkovTask(0.2, 0.3))
    with pytest.raises(ValueError, match="`task` must be a BinaryMarkovTask"):
        learns_bigram(TiedBigram(1.0, 0.0), None)
