"""Facts, their statements and questions; the network by hand; and what fine-tuning reaches."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tractax as tx
from tractax.transformers import (
    Facts,
    LowRankRecall,
    RecallTask,
    RecallTransformer,
    extract_facts,
    learn_facts,
)


def small(relations=2):
    return Facts.draw(6, relations, choices=4, templates=3, key=jax.random.key(0))


def test_statements_and_questions():
    facts = small()
    assert (facts.subjects, facts.relations, facts.vocabulary) == (6, 2, 6 + 2 * 4)
    for multiplicity in (1, 2, 3):
        task = facts.statements(multiplicity, key=jax.random.key(1))
        seen = set()
        for (subject, token), answer in zip(task.prompts.tolist(), task.answers.tolist(), strict=True):
            relation, template = divmod(token - 6, 3)
            assert 0 <= subject < 6 and 0 <= relation < 2 and 0 <= template < 3
            assert answer == int(facts.answers[subject, relation])
            seen.add((subject, relation, template))
        assert len(seen) == len(task.answers) == 12 * multiplicity
        counts = np.unique([(s, r) for s, r, _ in seen], axis=0, return_counts=True)[1]
        assert set(counts.tolist()) == {multiplicity}
    questions = facts.questions(4)
    np.testing.assert_array_equal(questions.prompts, [[4, 12], [4, 13], [5, 12], [5, 13]])
    np.testing.assert_array_equal(questions.answers, np.ravel(facts.answers[4:]))
    assert facts.questions().answers.shape == (12,) and facts.questions(1, 3).answers.shape == (4,)
    # Which templates are used depends on the fact and on the key.
    tokens = {tuple(facts.statements(1, key=jax.random.key(i)).prompts[:, 1].tolist()) for i in range(4)}
    assert len(tokens) == 4 and all(len(set(row)) > 2 for row in tokens)


@pytest.mark.slow
def test_network_by_hand():
    model = RecallTransformer.gaussian(14, 4, 5, scale=0.7, key=jax.random.key(2))
    attention = jax.random.normal(jax.random.key(3), (14, 14))
    model = RecallTransformer(attention, model.embedding, model.readout)
    w, v, prompt = np.asarray(model.embedding), np.asarray(model.readout), [3, 9]
    paid = np.exp(np.asarray(attention)[9, prompt])
    paid /= paid.sum()
    logits = np.maximum(2 * (paid[0] * w[3] + paid[1] * w[9]), 0) @ v
    np.testing.assert_allclose(model(jnp.asarray(prompt)), logits, rtol=1e-12)
    np.testing.assert_allclose(model.attend(jnp.asarray(prompt)), paid, rtol=1e-12)
    task = RecallTask([prompt], [2])
    expected = np.log(np.sum(np.exp(logits))) - logits[2]
    assert float(task.loss(model)) == pytest.approx(expected, rel=1e-12)
    assert float(task.batch_loss(model, jnp.asarray([0, 0]))) == pytest.approx(expected, rel=1e-12)
    assert float(task.accuracy(model)) == float(np.argmax(logits) == 2)
    silent = RecallTransformer(attention, model.embedding, jnp.zeros((5, 4)))
    assert float(small().questions().loss(silent)) == pytest.approx(math.log(4), rel=1e-12)


@pytest.mark.slow
def test_low_rank_trains_the_correction_only():
    facts = small()
    base = RecallTransformer.gaussian(facts.vocabulary, 4, 5, scale=0.5, key=jax.random.key(2))
    start, task = LowRankRecall.start(base, 2, key=jax.random.key(4)), facts.questions()
    assert float(task.loss(start)) == pytest.approx(float(task.loss(base)), rel=1e-14)
    tuned = tx.train(start, task, tx.GradientDescent(0.1), [3.0]).model
    for before, after in zip(jax.tree.leaves(base), jax.tree.leaves(tuned.base), strict=True):
        np.testing.assert_array_equal(before, after)
    assert float(task.loss(tuned)) < float(task.loss(base))
    merged = RecallTransformer(base.attention, base.embedding + tuned.left @ tuned.right, base.readout)
    assert float(task.loss(merged)) == pytest.approx(float(task.loss(tuned)), rel=1e-12)
    # Templates do not occur in questions, so that their vectors stay.
    np.testing.assert_array_equal(tuned.left[6:12], np.zeros((6, 2)))


@pytest.mark.slow
def test_one_relation_needs_no_fine_tuning():
    facts = Facts.draw(30, 1, key=jax.random.key(0))
    model = learn_facts(facts, 1, width=64, time=600.0, key=jax.random.key(1))
    found = extract_facts(model, facts, 0.2, time=50.0)
    assert float(found.before) == float(found.after) == float(found.tuned) == 1.0
    assert 0 < float(found.surprise) < 0.2


@pytest.mark.slow
def test_multiplicity_and_fraction_decide():
    report = tx.verify("knowledge_extraction")
    assert report.passed and 0.3 <= report.measured < 0.8


@pytest.mark.slow
def test_low_rank_correction_of_as_many_directions_as_relations():
    facts = Facts.draw(key=jax.random.key(3))
    model = learn_facts(facts, 6, key=jax.random.key(1))
    after = [float(extract_facts(model, facts, 0.2, rank=k, key=jax.random.key(2)).after) for k in (1, 3, 8)]
    full = extract_facts(model, facts, 0.2)
    # Before, the subject alone answers: one of its three relations, or by luck.
    assert float(full.before) == pytest.approx(1 / 3 + 2 / 3 / 10, abs=4 * (0.4 * 0.6 / 96) ** 0.5)
    assert after[0] < after[1] - 0.1 and float(full.after) > 0.9
    assert min(after[1:]) > float(full.after) - 0.1


def test_refusals():
    facts, key = small(), jax.random.key(0)
    model = RecallTransformer.gaussian(facts.vocabulary, 4, 5, key=key)
    with pytest.raises(ValueError, match="`answers` must be whole numbers from 0 to 3, in an array of 2 axes; got"):
        Facts(np.ones((2, 2)), choices=4, templates=3)
    with pytest.raises(ValueError, match="`answers` must be whole numbers from 0 to 3; got"):
        Facts(np.full((2, 2), 4), choices=4, templates=3)
    with pytest.raises(ValueError, match="`templates` must be a whole number of at least 1"):
        Facts(np.ones((2, 2), int), choices=4, templates=0)
    with pytest.raises(ValueError, match="`subjects` must be a whole number"):
        Facts.draw(0, key=key)
    with pytest.raises(ValueError, match="`multiplicity` must be at most the 3 templates; got 4"):
        facts.statements(4, key=key)
    with pytest.raises(ValueError, match="`start` and `stop` must span some of the 6 subjects; got 3, 3"):
        facts.questions(3, 3)
    with pytest.raises(ValueError, match="`answers` must be as many as the 1 prompts; got 2"):
        RecallTask([[1, 2]], [1, 2])
    with pytest.raises(ValueError, match="`prompts` must be whole numbers from 0"):
        RecallTask([[1.0, 2.0]], [1])
    with pytest.raises(ValueError, match="`model` must know 14 tokens and 4 choices to fit `facts`; got 3 and 4"):
        extract_facts(RecallTransformer.gaussian(3, 4, 5, key=key), facts, 0.5)
    with pytest.raises(ValueError, match="`attention` must have shape"):
        RecallTransformer(np.ones((3, 3)), np.ones((4, 2)), np.ones((2, 2)))
    with pytest.raises(ValueError, match="`width` must be a whole number"):
        RecallTransformer.gaussian(4, 2, 0, key=key)
    with pytest.raises(ValueError, match="`base` must be a RecallTransformer"):
        LowRankRecall(facts, np.ones((4, 1)), np.ones((1, 2)))
    with pytest.raises(ValueError, match="`right` must have shape"):
        LowRankRecall(model, np.ones((14, 2)), np.ones((1, 5)))
    with pytest.raises(ValueError, match="`facts` must be Facts; got RecallTransformer"):
        learn_facts(model, 1, key=key)
    for fraction in (0.0, 1.0, 0.01, math.nan):
        with pytest.raises(ValueError, match="`fraction` must leave some of the 6 subjects"):
            extract_facts(model, facts, fraction)
    with pytest.raises(ValueError, match="`key` must be a JAX PRNG key"):
        extract_facts(model, facts, 0.5, rank=1)
