"""Balance matrices: the exact step, the drift, rates, frozen and broken laws, refusals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jaxtyping import Array

import tractax as tx
from tractax.deep_linear import (
    ConservationLaws,
    DeepLinear,
    LinearTask,
    balance_after_step,
    balance_drift,
    balance_matrices,
    gaussian,
)

MODEL = DeepLinear((jnp.asarray([[0.5, -0.2], [0.1, 0.3]]), jnp.asarray([[0.4, 0.2]])))
TASK = LinearTask(jnp.asarray([[1.0, -1.0]]))


class Classification(tx.AbstractSampledTask):
    """Cross-entropy of labelled examples, seen by the network one at a time."""

    inputs: Array
    labels: Array

    def loss(self, model):
        return self.batch_loss(model, (self.inputs, self.labels))

    def sample(self, key, batch):
        index = jax.random.randint(key, (batch,), 0, self.labels.shape[0])
        return self.inputs[index], self.labels[index]

    def batch_loss(self, model, batch):
        inputs, labels = batch
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(jax.vmap(model)(inputs), labels))


@pytest.fixture
def classification(getkey):
    return Classification(jax.random.normal(getkey(), (12, 4)), jax.random.randint(getkey(), (12,), 0, 3))


def test_reference_values():
    np.testing.assert_allclose(
        ConservationLaws.from_model(MODEL, TASK).initial.matrices[0], [[-0.13, 0.09], [0.09, -0.06]]
    )
    after = balance_after_step(MODEL, jax.grad(TASK.loss)(MODEL), 0.1).matrices[0]
    np.testing.assert_allclose(after, [[-0.12907612, 0.0874792], [0.0874792, -0.06016096]], rtol=1e-14)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_step_of_gradient_descent(decay, classification, getkey):
    model = gaussian((4, 5, 2, 3), scale=0.7, key=getkey())
    optimiser = optax.chain(optax.add_decayed_weights(decay), optax.sgd(0.2))
    rule = tx.GradientDescent(0.2, optimiser)
    observed = tx.train(model, classification, rule, jnp.asarray([0.2]), observe=balance_matrices).observed
    predicted = balance_after_step(model, jax.grad(classification.loss)(model), 0.2, decay)
    for found, expected in zip(observed, predicted.matrices, strict=True):
        np.testing.assert_allclose(found[0], expected, atol=1e-15)


@pytest.mark.slow
def test_step_on_a_mini_batch(classification, getkey):
    model, key = gaussian((4, 5, 3), scale=0.7, key=getkey()), getkey()
    rule = tx.GradientDescent(0.3, batch_size=4)
    params, static = eqx.partition(model, eqx.is_inexact_array)
    objective = tx.Objective(classification, static)
    stepped, _ = rule.step(params, rule.init(params), objective, key=key)
    gradient = jax.grad(classification.batch_loss)(model, classification.sample(key, 4))
    expected = balance_after_step(model, gradient, 0.3).matrices[0]
    np.testing.assert_allclose(balance_matrices(objective.model(stepped))[0], expected, atol=1e-15)


@pytest.mark.slow
def test_drift_is_the_first_order():
    start = balance_matrices(MODEL)[0]
    first = balance_drift(MODEL, TASK, 4.0).matrices[0]
    assert float(jnp.linalg.norm(first)) == pytest.approx(0.2014, abs=2e-4)

    def remainder(rate):
        run = tx.train(MODEL, TASK, tx.GradientDescent(rate), jnp.asarray([4.0]), observe=balance_matrices)
        return jnp.linalg.norm(run.observed[0][-1] - start - rate * first)

    assert tx.scaling(remainder, [0.02, 0.01, 0.005, 0.0025], correction=1.0).contains(2.0)


def test_other_optimisers_break_the_law():
    solution = ConservationLaws.from_model(MODEL, TASK)
    ts = jnp.asarray([0.0, 4.0])

    def broken(optimiser, rate):
        run = tx.train(MODEL, TASK, tx.GradientDescent(rate, optimiser), ts, observe=solution.reduce)
        return float(tx.compare(solution, run).worst)

    # With smaller steps plain descent obeys the law; sign descent does not.
    assert broken(optax.sgd, 0.001) < 2e-3
    assert broken(optax.sign_sgd, 0.001) > 0.1


def test_a_minimum_and_zero_weights_are_covered(classification):
    at_minimum = DeepLinear((jnp.eye(2), TASK.optimum))
    assert all(bool(a.holds) for a in ConservationLaws.assumptions(at_minimum, TASK))
    zero = DeepLinear((jnp.zeros((5, 4)), jnp.zeros((3, 5))))
    assert all(bool(a.holds) for a in ConservationLaws.assumptions(zero, classification))


def test_long_times_and_decay():
    rule = tx.GradientFlow(2.0, weight_decay=0.1)
    solution = ConservationLaws.from_model(MODEL, TASK, rule)
    np.testing.assert_allclose(solution.evaluate(5.0).matrices[0], np.exp(-0.5) * balance_matrices(MODEL)[0], rtol=1e-14)
    assert jnp.all(solution.evaluate(1e300).matrices[0] == 0.0)
    conserved = ConservationLaws.from_model(MODEL, TASK)
    assert jnp.all(conserved.limit().matrices[0] == conserved.initial.matrices[0])


class Penalised(tx.AbstractTask):
    """A loss that sees the first layer by itself."""

    def loss(self, model):
        return TASK.loss(model) + jnp.sum(model.weights[0] ** 4)


def test_refuses_what_it_does_not_cover(getkey):
    with pytest.raises(ValueError, match=r"loss of the product of the layers.*FAILS \(violation"):
        ConservationLaws.from_model(MODEL, Penalised())
    with pytest.raises(ValueError, match="two layers or more; got 1 layer"):
        ConservationLaws.from_model(DeepLinear((jnp.ones((1, 2)),)), TASK)
    with pytest.raises(ValueError, match=r"tx\.GradientFlow for ConservationLaws; got GradientDescent"):
        ConservationLaws.from_model(MODEL, TASK, tx.GradientDescent(0.1))
    with pytest.raises(ValueError, match="let every layer learn"):
        ConservationLaws.from_model(MODEL, TASK, tx.GradientFlow(rates=jnp.asarray([0.0, 1.0])))
    with pytest.raises(ValueError, match="one rate for each of the 2 layers"):
        ConservationLaws.from_model(MODEL, TASK, tx.GradientFlow(rates=jnp.ones(3)))
    with pytest.raises(ValueError, match="equal rates for all layers where weights decay: FAILS"):
        ConservationLaws.from_model(MODEL, TASK, tx.GradientFlow(weight_decay=0.1, rates=jnp.asarray([0.5, 1.0])))
    with pytest.raises(ValueError, match="`learning_rate` must be non-negative"):
        balance_after_step(MODEL, MODEL, -0.1)
