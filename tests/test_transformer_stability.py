"""Stability diagnostics: reference values, bounds, free logits in closed form and with a z-loss, refusals."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

import tractax as tx
from tractax.special import softplus_lambert
from tractax.transformers import (
    FreeLogits,
    FreeLogitsSolution,
    InContextRegression,
    LabelTask,
    SoftmaxTransformer,
    attention_logits,
    layer_norm,
    learning_rate_sensitivity,
    z_loss,
)


@eqx.filter_jit
def over_time(solution, ts):
    return jax.vmap(solution.evaluate)(ts)


def test_learning_rate_sensitivity():
    assert float(learning_rate_sensitivity(np.asarray([2.0, 1.5, 9.0]), 4.0)) == pytest.approx(1.0, rel=1e-15)
    # What diverged counts as untrained.
    assert float(learning_rate_sensitivity(np.asarray([2.0, 1.5, np.nan]), 4.0)) == pytest.approx(1.0, rel=1e-15)
    assert float(learning_rate_sensitivity(np.asarray([2.0, 1.5, np.inf]), 4.0)) == pytest.approx(1.0, rel=1e-15)
    assert float(learning_rate_sensitivity(np.asarray([0.7, 0.7]), 2.0)) == 0.0
    assert float(learning_rate_sensitivity(np.full(3, np.nan), 2.0)) == 0.0


def test_qk_norm_bounds_attention_logits(getkey):
    queries, keys = (30 * jax.random.normal(getkey(), (2, 5, 8)) for _ in range(2))
    plain, normed = attention_logits(queries, keys), attention_logits(queries, keys, qk_norm=True)
    np.testing.assert_allclose(plain[1, 2, 3], queries[1, 2] @ keys[1, 3] / 8**0.5, rtol=1e-13)
    assert float(jnp.max(jnp.abs(normed))) <= 8**0.5 < float(jnp.max(jnp.abs(plain)))
    # The bound is reached by keys that are queries.
    assert float(attention_logits(queries, queries, qk_norm=True)[0, 1, 1]) == pytest.approx(8**0.5, rel=1e-6)
    np.testing.assert_allclose(jnp.mean(layer_norm(queries), axis=-1), 0.0, atol=1e-14)
    np.testing.assert_array_equal(layer_norm(jnp.zeros(4)), 0.0)


@pytest.mark.slow
def test_transformer_is_what_it_says():
    model = SoftmaxTransformer(2, 6, 2, qk_norm=True, key=jax.random.key(0))
    prompt = jax.random.normal(jax.random.key(1), (3, 5))

    def norm(x):
        centred = x - x.mean(axis=-1, keepdims=True)
        return centred / np.sqrt(centred.var(axis=-1, keepdims=True) + 1e-6)

    stream = np.asarray(prompt).T @ np.asarray(model.embed).T
    out = stream.copy()
    for head in range(2):
        rows = slice(3 * head, 3 * head + 3)
        q, k, v = (norm(stream) @ np.asarray(w)[rows].T for w in (model.query, model.key, model.value))
        logits = norm(q) @ norm(k).T / 3**0.5
        np.testing.assert_allclose(model.attention_logits(prompt)[head], logits, rtol=1e-10, atol=1e-12)
        weights = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        out[:, rows] += weights @ v
    out += np.asarray(jax.nn.gelu(jnp.asarray(norm(out) @ np.asarray(model.up).T))) @ np.asarray(model.down).T
    np.testing.assert_allclose(model.hidden(prompt), out, rtol=1e-9, atol=1e-12)
    assert float(model(prompt)) == pytest.approx(float(norm(out)[-1] @ np.asarray(model.read)), rel=1e-9)
    # Examples have no order.
    shuffled = prompt[:, jnp.asarray([2, 0, 3, 1, 4])]
    assert float(model(shuffled)) == pytest.approx(float(model(prompt)), rel=1e-10)


def test_free_logits_against_scipy():
    start, ts = np.asarray([1.0, -2.0, 0.5, 3.0, -0.3]), np.asarray([0.0, 1e-3, 0.5, 5.0, 100.0, 3000.0])

    def velocity(t, logits):
        p = np.exp(logits - logits.max())
        return np.eye(5)[2] - p / p.sum()

    expected = scipy.integrate.solve_ivp(velocity, (0, 3000), start, "DOP853", ts, rtol=1e-12, atol=1e-13).y.T
    solution = FreeLogitsSolution.from_model(FreeLogits(start), LabelTask(2))
    found = over_time(solution, jnp.asarray(ts))
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_allclose(jnp.sum(found, axis=1), start.sum(), rtol=1e-13)
    assert float(tx.residual(solution, ts).worst) < 1e-14


@pytest.mark.slow
def test_equal_wrong_logits():
    # The gap then is a Lambert function; also of very many classes.
    for classes in (2, 3, 300):
        start = np.full(classes, 0.7)
        start[0] = -0.4
        solution = FreeLogitsSolution.from_model(FreeLogits(start), LabelTask(0), tx.GradientFlow(3.0))
        ts = jnp.asarray([0.0, 1e-6, 1.0, 30.0, 1e6, 1e300])
        logits = over_time(solution, ts)
        expected = softplus_lambert(classes - 1.0, (classes - 1) * -1.1 + np.exp(-1.1) + classes * ts / 3)
        np.testing.assert_allclose(logits[:, 0] - logits[:, 1], expected, rtol=1e-11)


@pytest.mark.slow
def test_free_logits_at_the_edges():
    label, task = 1, LabelTask(1)
    for start in ([0.0, -300.0, 3.0], [0.0, 300.0, 0.0], [300.0, 0.0, 300.0], [0.0, 0.0, 0.0]):
        solution = FreeLogitsSolution.from_model(FreeLogits(np.asarray(start)), task)
        logits = over_time(solution, jnp.asarray([0.0, 1.0, 1e3, 1e12, jnp.inf]))
        assert jnp.all(jnp.isfinite(logits))
        np.testing.assert_allclose(logits[0], start, atol=1e-13)
        assert jnp.all(jnp.diff(logits[:, label]) >= 0)
        assert float(tx.residual(solution, jnp.asarray([0.0, 1.0, 1e3])).worst) < 1e-13


@pytest.mark.slow
def test_z_loss_moves_the_sum():
    logits = jnp.asarray([1.0, -2.0, 0.5])
    total = jax.nn.logsumexp(logits)
    assert float(z_loss(logits)) == pytest.approx(1e-4 * float(total) ** 2, rel=1e-14)
    task = LabelTask(1, z_coefficient=0.2)
    gradient = jax.grad(task.loss)(FreeLogits(logits)).logits
    expected = (1 + 0.4 * total) * jax.nn.softmax(logits) - jnp.asarray([0.0, 1.0, 0.0])
    np.testing.assert_allclose(gradient, expected, rtol=1e-13)
    assert float(jnp.sum(gradient)) == pytest.approx(0.4 * float(total), rel=1e-12)
    # Along a run: conserved without it, and with it the integral of -2c ln Z.
    ts = jnp.linspace(0.0, 10.0, 401)
    options = {"observe": lambda m: (jnp.sum(m.logits), jax.nn.logsumexp(m.logits)), "solver": diffrax.Tsit5()}
    sums, logs = tx.train(FreeLogits(logits), task, tx.GradientFlow(), ts, **options).observed
    np.testing.assert_allclose(sums[-1] - sums[0], -0.4 * scipy.integrate.simpson(logs, x=ts), rtol=1e-7)
    assert abs(float(logs[-1])) < 0.5 * abs(float(logs[0]))
    sums, _ = tx.train(FreeLogits(logits), LabelTask(1), tx.GradientFlow(), ts, **options).observed
    np.testing.assert_allclose(sums, sums[0], atol=1e-12)


@pytest.mark.slow
def test_signature():
    # Logits grow with the rate only where nothing bounds them, and the rate matters more there.
    from tractax.systems.transformers._transformer_stability import _RATES, _sensitivity, _sweep

    plain, normed = (_sweep(qk_norm, _RATES) for qk_norm in (False, True))
    assert jnp.all(plain[2][:, -1] > 100 * plain[2][:, 0]) and jnp.all(normed[2] <= 8**0.5)
    assert _sensitivity(plain) > _sensitivity(normed)


def test_refusals():
    logits, task = FreeLogits(np.zeros(3)), LabelTask(1)
    prompts = InContextRegression(np.eye(2), 3)
    key = jax.random.key(0)
    for call, message in (
        (lambda: learning_rate_sensitivity(np.ones((2, 2)), 1.0), "`final_losses` must have shape"),
        (lambda: learning_rate_sensitivity(np.ones(2), np.nan), "`initial_loss` must be finite"),
        (lambda: attention_logits(jnp.ones((3, 2)), jnp.ones((3, 4))), "must agree but for tokens"),
        (lambda: z_loss(jnp.ones(3), -1.0), "`coefficient` must be non-negative"),
        (lambda: SoftmaxTransformer(3, 7, 2, key=key), "`width` must be a multiple"),
        (lambda: SoftmaxTransformer(0, 8, 2, key=key), "`inputs` must be a whole number"),
        (lambda: FreeLogits(np.ones(1)), "`logits` must be two or more"),
        (lambda: LabelTask(-1), "`label` must be a whole number from 0"),
        (lambda: LabelTask(0, z_coefficient=-0.1), "`z_coefficient` must be non-negative"),
        (lambda: FreeLogitsSolution.from_model(logits, LabelTask(3)), "must be below 3; got 3"),
        (lambda: FreeLogitsSolution.from_model(logits, LabelTask(1, z_coefficient=0.1)), "no z-loss"),
        (lambda: FreeLogitsSolution.from_model(logits, task, tx.GradientFlow(weight_decay=0.1)), "no weight decay"),
        (lambda: FreeLogitsSolution.from_model(logits, prompts), "`task` must be a LabelTask"),
        (lambda: FreeLogitsSolution.from_model(np.zeros(3), task), "`model` must be FreeLogits"),
        (lambda: FreeLogitsSolution.from_model(logits, task).limit(), "no closed form"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
