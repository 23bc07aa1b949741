"""Perturbation learning: reference values, averages over all noise of the rules themselves, simulations, refusals."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from toys import MODEL, TASK

import tractax as tx
from tractax.deep_linear import DeepLinear, GaussianMapTask, PerturbationLearning, RegressionTask, gaussian
from tractax.rules import SPSA, NodePerturbation, WeightPerturbation
from tractax.two_layer import TwoLayerNetwork


def layer(outputs, inputs):
    return DeepLinear((jnp.zeros((outputs, inputs)),))


def theory(rule, outputs=3, inputs=4):
    task = GaussianMapTask(jnp.ones((outputs, inputs)))
    return PerturbationLearning.from_model(layer(outputs, inputs), task, rule)


def grid(points, dimensions):
    """Nodes and weights for averages over a standard normal vector."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(points)
    products = np.prod(list(itertools.product(weights / weights.sum(), repeat=dimensions)), axis=1)
    return jnp.asarray(list(itertools.product(nodes, repeat=dimensions))), jnp.asarray(products)


@pytest.mark.parametrize(
    ("rule", "factor", "offset"),
    [
        (tx.GradientDescent(0.01, batch_size=1), 0.9806, 0.0),
        (NodePerturbation(0.01, 0.1, batch_size=1), 0.983, 1.05e-4),
        (WeightPerturbation(0.01, 0.1, batch_size=1), 0.9884, 1.44e-3),
    ],
)
def test_reference_values(rule, factor, offset):
    solution = theory(rule)
    assert float(solution.factor) == pytest.approx(factor, rel=1e-13)
    assert float(1e-4 * solution.agitation) == pytest.approx(offset, rel=1e-12)
    q = 12.0
    for k in range(4):
        assert float(solution.evaluate(0.01 * k).square) == pytest.approx(q, rel=1e-12)
        q = factor * q + offset
    assert float(solution.limit().square) == pytest.approx(offset / (1 - factor), rel=1e-11)
    assert float(solution.limit().loss) == pytest.approx(float(solution.evaluate(1e12).square / 2), rel=1e-12)


def test_speeds_and_thresholds():
    # 1 : 1/(M + 2) : 1/(MN + 2), and 1/MN for pairs of signs.
    descent, *others = (
        theory(rule).best_learning_rate
        for rule in (
            tx.GradientDescent(0.1, batch_size=1),
            NodePerturbation(0.1, 0.1, batch_size=1),
            WeightPerturbation(0.1, 0.1, batch_size=1),
            SPSA(0.1, 0.1, batch_size=1),
        )
    )
    np.testing.assert_allclose([descent / x for x in others], [5.0, 14.0, 12.0], rtol=1e-13)
    at_threshold = theory(SPSA(2 / 72, 0.1, batch_size=1))
    assert float(at_threshold.threshold) == pytest.approx(2 / 72, rel=1e-13)
    assert float(at_threshold.evaluate(5.0).square) == pytest.approx(12.0, rel=1e-12)
    for rate in (0.03, 0.1):
        with pytest.raises(ValueError, match="PerturbationLearning has no limit"):
            theory(SPSA(rate, 0.1, batch_size=1)).limit()
    assert theory(SPSA(0.03, 0.1, batch_size=1)).evaluate(1e6).square == jnp.inf


@pytest.mark.slow
@pytest.mark.parametrize("make", [WeightPerturbation, SPSA, NodePerturbation])
def test_batches_by_quadrature(make):
    # Two examples a step, and the full loss; the rule itself is averaged.
    outputs, inputs, rate, scale = 2, 1, 0.07, 0.4
    teacher = jnp.asarray([[0.8], [-0.5]])
    task, model = GaussianMapTask(teacher), layer(outputs, inputs)
    params, static = eqx.partition(model, eqx.is_inexact_array)
    objective = tx.Objective(task, static)
    examples, weights = grid(4, 2)
    if make is SPSA:
        noise, chances = jnp.asarray(list(itertools.product((-1.0, 1.0), repeat=2))), jnp.full(4, 0.25)
    else:
        noise, chances = grid(5, 4 if make is NodePerturbation else 2)

    def after(loss, noise):
        rule = make(rate, scale, batch_size=2)
        if make is NodePerturbation:
            batch = loss
            estimate = rule.estimate(params, objective, batch, lambda source, _: source, noise.reshape(2, 2))
        else:
            estimate = rule.estimate(params, loss, jax.tree.map(lambda w: noise.reshape(w.shape), params))
        return jnp.sum((params.weights[0] - rate * estimate.weights[0] - teacher) ** 2)

    def on_batch(batch, noise):
        batch = batch.reshape(2, inputs)
        return after(batch if make is NodePerturbation else lambda p: task.batch_loss(objective.model(p), batch), noise)

    squares = jax.jit(jax.vmap(jax.vmap(on_batch, in_axes=(None, 0)), in_axes=(0, None)))(examples, noise)
    predicted = PerturbationLearning.from_model(model, task, make(rate, scale, batch_size=2)).evaluate(rate).square
    assert float(weights @ squares @ chances) == pytest.approx(float(predicted), rel=1e-12)
    if make is NodePerturbation:
        return
    squares = jax.vmap(lambda noise: after(objective.loss, noise))(noise)
    predicted = PerturbationLearning.from_model(model, task, make(rate, scale)).evaluate(rate).square
    assert float(squares @ chances) == pytest.approx(float(predicted), rel=1e-12)


def test_mean_of_weight_perturbation_is_the_gradient():
    # Every sign pattern of five weights; exact on a quadratic loss, for any scale.
    task = RegressionTask(jax.random.normal(jax.random.key(0), (4, 5)), jnp.asarray([1.0, -0.5, 0.3, 0.8]))
    params = DeepLinear((jnp.asarray([[0.3, -0.2, 0.5, 0.1, 0.9]]),))
    signs = jnp.asarray(list(itertools.product((-1.0, 1.0), repeat=5)))
    estimates = jax.vmap(lambda s: SPSA(0.1, 0.7).estimate(params, task.loss, DeepLinear((s[None, :],))))(signs)
    expected = jax.grad(task.loss)(params).weights[0]
    np.testing.assert_allclose(jnp.mean(estimates.weights[0], axis=0), expected, rtol=1e-13)
    square = np.sum(np.asarray(expected) ** 2)
    second = np.mean(np.asarray(estimates.weights[0][:, 0, :, None] * estimates.weights[0][:, 0, None, :]), axis=0)
    products = np.outer(expected, expected)
    np.testing.assert_allclose(second, square * np.eye(5) + 2 * products - 2 * np.diag(np.diag(products)), atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("activation", "scale", "error"), [("identity", 0.6, 1e-11), ("tanh", 1e-4, 1e-6)])
def test_noise_on_every_layer(activation, scale, error):
    # Two hidden units and an output, one example: noise on each of them by quadrature, exact on a linear network.
    function = {"identity": lambda x: x, "tanh": jnp.tanh}[activation]
    model = eqx.nn.MLP(2, 1, 2, 1, function, key=jax.random.key(0), dtype=jnp.float64)
    task = RegressionTask(jnp.asarray([[1.5, 0.4]]), jnp.asarray([[2.0]]))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    objective, (noise, weights) = tx.Objective(task, static), grid(3, 3)

    def estimate(noise, layers=lambda model: model.layers):
        rule, sources = NodePerturbation(0.1, scale, layers=layers), (noise[None, :2], noise[None, 2:])
        shaken = sources[: len(layers(model))]
        return rule.estimate(params, objective, jnp.arange(1), lambda source, _: source, shaken)

    @jax.jit
    def mean(noise):
        return jax.tree.map(lambda x: jnp.tensordot(weights, x, 1), jax.vmap(estimate)(noise))

    found, expected = ravel_pytree(mean(noise))[0], ravel_pytree(objective.gradient(params))[0]
    np.testing.assert_allclose(found, expected, rtol=error, atol=error)
    # Local: each layer's step is the product of its own noise and its own input.
    single = estimate(noise[0]).layers
    inputs = task.inputs[0], function(model.layers[0](task.inputs[0]))
    for layer, x in zip(single, inputs, strict=True):
        np.testing.assert_allclose(layer.weight, layer.bias[:, None] * x[None, :], rtol=1e-12)
    # Beyond the layers that are shaken nothing learns.
    first = estimate(noise[0], lambda model: model.layers[:1]).layers
    assert jnp.all(first[0].weight != 0) and jnp.all(first[1].weight == 0)


@pytest.mark.slow
def test_training_with_noise_on_every_layer():
    model = eqx.nn.MLP(2, 1, 8, 1, jnp.tanh, key=jax.random.key(0), dtype=jnp.float64)
    inputs = jax.random.normal(jax.random.key(1), (6, 2))
    task = RegressionTask(inputs, inputs[:, :1] * inputs[:, 1:])
    rule = NodePerturbation(0.02, 0.01, layers=lambda model: model.layers)
    run = tx.train(model, task, rule, [0.0, 60.0], key=jax.random.key(2))
    assert float(run.observed[1]) < 0.3 * float(run.observed[0])


def test_mean_of_node_perturbation_is_the_gradient_of_any_network():
    # Two tanh units with one output, three examples: noise at every example by quadrature; small noise.
    model = TwoLayerNetwork(jnp.asarray([[0.9, -0.4], [-0.3, 0.8]]), jnp.asarray([0.7, -0.9]), "tanh")
    task = RegressionTask(jnp.asarray([[1.5, 0.4], [-0.6, 1.1], [0.9, -0.7]]), jnp.asarray([1.0, -0.5, 0.3]))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    objective, (noise, weights) = tx.Objective(task, static), grid(3, 3)

    def estimate(noise):
        rule = NodePerturbation(0.1, 1e-3)
        found = rule.estimate(params, objective, jnp.arange(3), lambda source, y: source.reshape(y.shape), noise)
        return ravel_pytree(found)[0]

    mean = weights @ jax.jit(jax.vmap(estimate))(noise)
    np.testing.assert_allclose(mean, ravel_pytree(objective.gradient(params))[0], rtol=1e-9, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("make", [WeightPerturbation, SPSA, NodePerturbation])
def test_training(make):
    model, task = layer(2, 3), GaussianMapTask(jnp.ones((2, 3)))
    rule = make(0.01, 0.3, batch_size=2)
    solution = PerturbationLearning.from_model(model, task, rule)
    ts = 0.01 * jnp.asarray([0.0, 1.0, 40.0])
    runs = tx.ensemble(
        lambda key: tx.train(model, task, rule, ts, key=key, observe=solution.reduce).observed,
        jax.random.split(jax.random.key(1), 10_000),
        reduce=tx.Mean(),
    )
    predicted = jax.vmap(solution.evaluate)(ts)
    np.testing.assert_array_less(np.abs(runs.loss.mean - predicted.loss), 4 * runs.loss.standard_error + 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("make", [WeightPerturbation, SPSA, NodePerturbation])
def test_any_network_learns_at_any_rate_in_either_precision(make):
    keys = jax.random.split(jax.random.key(3), 3)
    for dtype in (jnp.float64, jnp.float32):
        inputs = jax.random.normal(keys[0], (8, 3), dtype)
        task = RegressionTask(inputs, jnp.tanh(inputs[:, :2]))
        model = gaussian((3, 4, 2), scale=jnp.asarray(0.5, dtype), key=keys[1])

        def final(rate, model=model, task=task):
            return tx.train(model, task, make(rate, 1e-2), [2.0], key=keys[2]).observed[0]

        rates = jnp.asarray([0.005, 0.01], dtype)
        losses = jax.jit(jax.vmap(final))(rates)
        assert losses.dtype == dtype
        assert jnp.all(losses < 0.7 * task.loss(model))
        np.testing.assert_allclose(losses[0], final(rates[0]), rtol=1e-8 if dtype == jnp.float64 else 1e-3)


@pytest.mark.slow
def test_claim():
    assert tx.verify("perturbation_learning").passed


def test_refuses():
    task, model = GaussianMapTask(jnp.ones((2, 3))), layer(2, 3)
    good = SPSA(0.1, 0.1)
    for case, message in (
        ((MODEL, TASK, good), "`task` must be a GaussianMapTask; got LinearTask"),
        (
            (gaussian((3, 2, 2), scale=0.5, key=jax.random.key(0)), task, good),
            "`model` must be a DeepLinear network of 1 layer",
        ),
        ((layer(2, 2), task, good), "`model` must have 3 inputs and 2 outputs to fit `task`"),
        ((model, task, None), "`rule` must be NodePerturbation of outputs with a `batch_size`"),
        ((model, task, NodePerturbation(0.1, 0.1)), "`rule` must be NodePerturbation of outputs with a `batch_size`"),
        (
            (model, task, NodePerturbation(0.1, 0.1, batch_size=1, layers=lambda m: m.weights)),
            "NodePerturbation of outputs",
        ),
        ((model, task, tx.GradientDescent(0.1, optax.adam)), "`rule` must be NodePerturbation"),
    ):
        with pytest.raises(ValueError, match=message):
            PerturbationLearning.from_model(*case)
    with pytest.raises(ValueError, match="`layers` must be a function"):
        NodePerturbation(0.1, 0.1, layers=[1])
    for nothing in (lambda model: (), lambda model: model.weights):
        rule = NodePerturbation(0.1, 0.1, batch_size=2, layers=nothing)
        with pytest.raises(ValueError, match="`layers` must return the layers of the model"):
            tx.train(model, task, rule, [0.1], key=jax.random.key(0))
    for build, message in (
        (lambda: SPSA(0.0, 0.1), "`learning_rate` must be positive"),
        (lambda: WeightPerturbation(0.1, 0.0), "`noise_scale` must be positive"),
        (lambda: NodePerturbation(0.1, 0.1, batch_size=0), "`batch_size` must be a whole number of at least 1"),
        (lambda: tx.train(model, task, good, [1.0]), "`key` must be a JAX PRNG key"),
        (lambda: tx.train(MODEL, TASK, SPSA(0.1, 0.1, batch_size=2), [1.0], key=jax.random.key(0)), "can be sampled"),
        (lambda: tx.train(model, task, NodePerturbation(0.1, 0.1), [1.0], key=jax.random.key(0)), "`batch_size` must"),
        (lambda: GaussianMapTask(jnp.ones(3)), "`teacher` must have shape"),
    ):
        with pytest.raises(ValueError, match=message):
            build()
