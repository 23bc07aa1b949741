"""diffGrad, SPAM, LANTON and layers with momentum: written out by hand, properties, training, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import MODEL, TASK

import tractax as tx
from tractax.rules import MomentumLayers, diffgrad, lanton, momentum_layer_matrix, momentum_layer_threshold, spam


def _updates(optimiser, gradients):
    """The updates for a sequence of gradients, a PyTree with a leading axis of steps."""

    def step(state, gradient):
        update, state = optimiser.update(gradient, state)
        return state, update

    return jax.lax.scan(step, optimiser.init(jax.tree.map(lambda g: g[0], gradients)), gradients)[1]


def _noise(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def test_diffgrad_by_hand():
    gradients = _noise(0, 12)
    m = v = before = 0.0
    expected = []
    for t, g in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        friction = 1 / (1 + np.exp(-abs(g - before)))
        expected.append(-0.1 * friction * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8))
        before = g
    np.testing.assert_allclose(_updates(diffgrad(0.1), jnp.asarray(gradients)), expected, rtol=1e-12)


def test_diffgrad_on_a_constant_gradient():
    found = _updates(diffgrad(0.1, eps=0.0), jnp.full((6, 2), jnp.asarray([-2.0, 0.0])))
    np.testing.assert_allclose(found[:, 0], [0.1 / (1 + np.exp(-2.0)), *[0.05] * 5], rtol=1e-12)
    np.testing.assert_array_equal(found[:, 1], 0.0)


def _spam_by_hand(gradients, threshold, interval, warmup, unclipped):
    m = v = 0.0
    for count, g in enumerate(gradients):
        since = count % interval
        if count and since == 0:
            m = v = 0.0
        if since >= unclipped and g * g > threshold * v:
            g = np.sign(g) * np.sqrt(threshold * v)
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
        scale = 1 - 0.99 * (1 + np.cos(np.pi * since / warmup)) / 2 if count >= interval and since < warmup else 1.0
        t = count + 1
        yield -0.1 * scale * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)


def test_spam_by_hand():
    gradients = _noise(1, 40)
    gradients[[8, 17, 29]] *= 1000
    optimiser = spam(0.1, b2=0.99, threshold=9.0, interval=15, warmup=6, unclipped=3)
    expected = list(_spam_by_hand(gradients, 9.0, 15, 6, 3))
    np.testing.assert_allclose(_updates(optimiser, jnp.asarray(gradients)), expected, rtol=1e-11)


def test_spam_hides_the_bias_after_a_reset():
    found = -_updates(spam(1.0, eps=0.0, interval=8000), jnp.full(8002, 0.7))
    # (1 - β₁)/√(1 - β₂) = 3.16, times the 0.01 with which the step begins to grow.
    assert float(found[8000]) == pytest.approx(0.01 * 0.1 / np.sqrt(0.001), rel=1e-3)
    np.testing.assert_allclose(found[100:8000], 1.0, rtol=1e-9)


def test_lanton_shortens_the_steps_of_noisy_layers():
    noise = _noise(2, 30, 3, 2)
    layers = {"a": 1 + 0.1 * noise, "b": 1 + 0.1 * noise, "c": 1 + noise, "bias": 1 + 0.1 * noise[:, 0]}
    steps = _updates(lanton(0.1, alpha=0.5), jax.tree.map(jnp.asarray, layers))
    norms = {name: np.linalg.norm(steps[name][-1], 2 if steps[name].ndim == 3 else np.inf) for name in layers}
    assert norms["a"] == norms["b"] and max(norms.values()) == pytest.approx(0.1, rel=1e-12)
    # The noise by hand, from nuclear norms.
    sizes = {name: np.zeros(()) for name in "ac"}
    for t in range(1, 30):
        for name in sizes:
            change = np.linalg.norm(layers[name][t] - layers[name][t - 1], "nuc") ** 2
            sizes[name] = 0.9 * sizes[name] + 0.1 * change
    trust = {name: 0.5 / np.sqrt(0.25 + h) for name, h in sizes.items()}
    assert norms["c"] / norms["a"] == pytest.approx(np.sqrt(trust["c"] / trust["a"]), rel=1e-12)
    assert norms["c"] < 0.6 * norms["a"]


def test_lanton_without_noise_is_steepest_descent_in_the_spectral_norm():
    gradient = jnp.asarray([[3.0, 0.0], [0.0, 0.0]])
    found = _updates(lanton(0.1), jnp.stack([gradient] * 3))
    np.testing.assert_allclose(found[-1], [[-0.1, 0.0], [0.0, 0.0]], atol=1e-15)


@pytest.mark.slow
@pytest.mark.parametrize("optimiser", [diffgrad, spam, lanton])
def test_training_over_learning_rates_and_in_float32(optimiser):
    def losses(rate):
        return tx.train(MODEL, TASK, tx.GradientDescent(rate, optimiser, time_per_step=1.0), [0.0, 60.0]).observed

    found = jax.jit(jax.vmap(losses))(jnp.asarray([0.005, 0.02]))
    assert jnp.all(found[:, 1] < found[:, 0]) and found[1, 1] < found[0, 1]
    single = jax.tree.map(lambda x: x.astype(jnp.float32), (MODEL, TASK))
    run = tx.train(*single, tx.GradientDescent(0.02, optimiser, time_per_step=1.0), [60.0])
    assert run.observed.dtype == jnp.float32
    np.testing.assert_allclose(run.observed[0], found[1, 1], rtol=1e-2)


@pytest.mark.parametrize("mu", [0.0, 0.5, 0.9, -0.5])
def test_threshold_of_layers_with_momentum(mu):
    threshold = momentum_layer_threshold(mu)
    assert float(threshold) == pytest.approx(2 * (1 + mu), rel=1e-15)
    for factor, stable in ((1 - 1e-3, True), (1 + 1e-3, False)):
        matrix = np.asarray(momentum_layer_matrix(factor * threshold, mu))
        assert (np.max(np.abs(np.linalg.eigvals(matrix))) < 1) == stable


def test_layers_with_momentum_are_powers_of_a_matrix():
    step, stiffness, mu, x = 0.7, 1.3, 0.6, jnp.asarray([1.0, -2.0])
    layers = MomentumLayers(lambda x: stiffness * x, step, mu, 9)
    matrix = np.asarray(momentum_layer_matrix(step * stiffness, mu))
    signals = [np.linalg.matrix_power(matrix, n)[0, 0] * np.asarray(x) for n in range(10)]
    np.testing.assert_allclose(layers.signals(x), signals, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(layers(x), signals[-1], rtol=1e-12, atol=1e-14)
    # Heavy-ball descent on the potential of the experts.
    ball = optax.sgd(step, momentum=mu)
    state, y = ball.init(x), x
    for _ in range(9):
        update, state = ball.update(stiffness * y, state)
        y = y + update
    np.testing.assert_allclose(layers(x), y, rtol=1e-12)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: diffgrad(0.1, b1=1.0), "`b1` must be below 1; got 1.0"),
        (lambda: diffgrad(0.1, b2=-0.1), "`b2` must be a non-negative Python number; got -0.1"),
        (lambda: diffgrad(0.1, eps=-1.0), "`eps` must be a non-negative Python number"),
        (lambda: spam(0.1, threshold=0.0), "`threshold` must be a positive Python number"),
        (lambda: spam(0.1, interval=0), "`interval` must be a whole number of at least 1; got 0"),
        (lambda: spam(0.1, warmup=1.5), "`warmup` must be a whole number of at least 0; got 1.5"),
        (lambda: spam(0.1, unclipped=0), "`unclipped` must be a whole number of at least 1; got 0"),
        (lambda: lanton(0.1, alpha=0.0), "`alpha` must be a positive Python number"),
        (lambda: momentum_layer_threshold(1.0), "`momentum` must lie between -1 and 1; got 1.0"),
        (lambda: MomentumLayers(jnp.tanh, 0.0, 0.5, 3), "`step` must be positive"),
        (lambda: MomentumLayers(jnp.tanh, 1.0, 0.5, -1), "`depth` must be a whole number of at least 0; got -1"),
    ],
)
def test_refuses(build, message):
    with pytest.raises(ValueError, match=message):
        build()
