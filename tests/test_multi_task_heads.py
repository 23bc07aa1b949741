"""Heads that several tasks share: their loss, how many it takes, what training finds, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import tractax as tx
from tractax.transformers import (
    InContextRegression,
    MultiTaskHeads,
    MultiTaskHeadsTask,
    MultiTaskRegression,
    SoftmaxHeads,
    SoftmaxHeadsTask,
)

APART = np.repeat(np.eye(2), 3, axis=1)
OVERLAPPING = np.asarray([[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1]])


def test_one_task_is_that_of_softmax_heads(getkey):
    single = SoftmaxHeadsTask(InContextRegression(jnp.eye(5), 40, task_covariance=jnp.eye(5) / 5, noise_variance=0.1))
    task = MultiTaskHeadsTask(MultiTaskRegression(np.ones((1, 5)), 40, noise_variance=0.1))
    heads = SoftmaxHeads([0.3, -0.2], [1.2, -0.9])
    shared = MultiTaskHeads(jnp.repeat(heads.omega[:, None], 5, axis=1), heads.mu[None])
    # The paper's loss has the noise of the query's label.
    assert float(task.risks(shared)[0]) + 0.1 == pytest.approx(0.356907306674934, rel=1e-13)
    assert float(task.infima[0]) == pytest.approx(float(single.infimum), rel=1e-14)
    best = task.best_heads(0.2 * jnp.stack([jnp.ones(5), -jnp.ones(5)]))
    np.testing.assert_allclose(best.mu[0], single.opposite_heads(0.2).mu, rtol=1e-9)
    prompt = jax.random.normal(getkey(), (6, 9))
    assert float(shared(prompt)[0]) == pytest.approx(float(heads(prompt)), rel=1e-13)


def test_prediction_by_hand(getkey):
    model = MultiTaskHeads(jax.random.normal(getkey(), (3, 4)), jax.random.normal(getkey(), (2, 3)))
    drawn = jax.random.normal(getkey(), (6, 5))
    prompt = np.asarray(drawn)
    answers = np.zeros(2)
    for h in range(3):
        weights = np.exp((prompt[:4, :4] * prompt[:4, 4:] * np.asarray(model.omega)[h][:, None]).sum(axis=0))
        answers += np.asarray(model.mu)[:, h] * (prompt[4:, :4] @ weights) / weights.sum()
    np.testing.assert_allclose(model(drawn), answers, rtol=1e-12)
    assert (model.heads, model.tasks, model.inputs) == (3, 2, 4)


@pytest.mark.slow
def test_prompts_are_those_of_the_task(getkey):
    data = MultiTaskRegression(OVERLAPPING, 5, powers=np.asarray([2.0, 0.5]), noise_variance=0.3)
    prompts, answers = data.sample(getkey(), 20_000)
    np.testing.assert_allclose(jnp.mean(answers**2, axis=0), [2.0, 0.5], rtol=0.05)
    np.testing.assert_allclose(jnp.mean(prompts[:, 6:, :-1] ** 2, axis=(0, 2)), [2.3, 0.8], rtol=0.05)
    np.testing.assert_array_equal(prompts[:, 6:, -1], 0.0)
    # A label does not know inputs outside its support: in long prompts regression finds its weights.
    long = MultiTaskRegression(OVERLAPPING, 50).sample(getkey(), 1)[0][0]
    weights = np.linalg.lstsq(np.asarray(long[:6, :-1]).T, np.asarray(long[6:, :-1]).T, rcond=None)[0].T
    np.testing.assert_array_equal(np.abs(weights) > 1e-9, OVERLAPPING.astype(bool))
    assert float(data.batch_loss(lambda prompt: jnp.zeros(2), (prompts, answers))) == pytest.approx(1.25, rel=0.05)


def averaged_risks(model, data, samples, seed):
    """At finite size, over all but norms of the query and components along it, in three groups of as many inputs."""
    draw, group = np.random.default_rng(seed), data.inputs // 3
    r, a = np.sqrt(draw.chisquare(group, (samples, 3))), draw.normal(size=(samples, data.length, 3))
    scores = np.einsum("hg,sg,slg->shl", np.asarray(model.omega)[:, ::group], r, a)
    attention = np.exp(scores - scores.max(axis=2, keepdims=True))
    p = np.einsum("nh,shl->snl", model.mu, attention / attention.sum(axis=2, keepdims=True))
    norm = np.sum(p**2, axis=2)
    missing = (np.einsum("snl,slg->sng", p, a) - r[:, None]) ** 2 + (group - 1) * norm[:, :, None]
    weights = np.asarray(data.supports)[:, ::group] * np.asarray(data.powers / data.sizes)[:, None]
    return (np.sum(weights * missing, axis=2) + float(data.noise_variance) * norm).mean(axis=0)


@pytest.mark.slow
def test_gap_to_the_risk_of_prompts_falls_with_size(getkey):
    def case(size):
        supports = np.repeat(np.asarray([[1.0, 1, 0], [0, 1, 1]]), size // 3, axis=1)
        data = MultiTaskRegression(supports, 8 * size, powers=np.asarray([1.0, 0.6]), noise_variance=0.1)
        corners = np.concatenate([supports, -np.sum(supports, axis=0, keepdims=True)])
        return data, MultiTaskHeadsTask(data), MultiTaskHeadsTask(data).best_heads(0.7 * corners / size**0.5)

    def gaps(size):
        data, task, model = case(int(size))
        risks = [averaged_risks(model, data, int(60_000 / size), seed).sum() for seed in range(8)]
        return np.asarray(risks) - float(jnp.sum(task.risks(model)))

    data, _, model = case(6)
    prompts, answers = data.sample(getkey(), 10_000)
    squares = (jax.jit(jax.vmap(model))(prompts) - answers) ** 2
    error = float(jnp.max(jnp.std(squares, axis=0))) / 100
    np.testing.assert_allclose(averaged_risks(model, data, 10_000, 0), jnp.mean(squares, axis=0), atol=4 * error)
    assert tx.scaling(gaps, (12, 24, 48)).contains(-1.0)


@pytest.mark.slow
def test_how_many_heads_it_takes():
    task = MultiTaskHeadsTask(MultiTaskRegression(OVERLAPPING, 48, powers=np.asarray([1.0, 0.4]), noise_variance=0.1))
    one, two = OVERLAPPING
    cases = {
        "pairs": (4.0, np.stack([one, -one, two, -two])),
        "turned": (4.0, np.stack([one + two, -one - two, one - two, two - one])),
        "simplex": (2.0, np.stack([one, two, -one - two])),
        # As many heads as tasks never suffice.
        "too few": (0.0, np.stack([one, two])),
    }
    excess = jax.jit(lambda omega: jnp.sum(task.risks(task.best_heads(omega)) - task.infima))
    for name, (power, omega) in cases.items():
        large, small = (float(excess(scale * omega)) for scale in (0.02, 0.01))
        assert np.log2(large / small) == pytest.approx(power, abs=0.02), name


def test_orthogonal_pairs_may_be_turned():
    task = MultiTaskHeadsTask(MultiTaskRegression(APART, 48, noise_variance=0.1))
    turns = [np.asarray([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) @ APART for a in (0.0, 0.6)]
    best = jax.jit(lambda omega: task.best_heads(omega))
    still, turned = (best(0.2 * np.concatenate([pair, -pair])) for pair in turns)
    np.testing.assert_allclose(task.risks(turned), task.risks(still), rtol=1e-12)
    assert float(still.dedication) == pytest.approx(1.0) and 0.6 < float(turned.dedication) < 0.7


def test_no_heads_get_below_the_infimum():
    task = MultiTaskHeadsTask(MultiTaskRegression(OVERLAPPING, 20, powers=np.asarray([1.5, 0.4]), noise_variance=0.2))
    draws = np.random.default_rng(0).normal(size=(1000, 5, 8)) * 0.3
    risks = jax.jit(jax.vmap(lambda x: task.risks(MultiTaskHeads(x[:, :6], (3 * x[:, 6:]).T))))(draws)
    assert jnp.all(risks > task.infima[None])
    # The infimum is that of descent on centred inputs in the limit: 1 - 1/(1 + d κ).
    np.testing.assert_allclose(task.infima, [1.5 * (1 - 1 / (1 + 4 * (1 + 0.2 / 1.5) / 20)), 0.4 * (1 - 1 / 1.3)])


def test_pairing_and_dedication_are_what_they_say():
    simplex = np.asarray([[1.0, 0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]])
    assert float(MultiTaskHeads(simplex, np.ones((1, 3))).pairing) == pytest.approx(0.5)
    pairs = MultiTaskHeads(np.asarray([[1.0, 2], [-2, -4], [0, 3]]), np.asarray([[1.0, 1, 0], [0, 0, 0]]))
    assert float(pairs.pairing) == pytest.approx(1.0) and float(pairs.dedication) == pytest.approx(1.0)
    assert float(MultiTaskHeads(np.zeros((2, 2)), np.zeros((1, 2))).pairing) == 0.0
    assert float(MultiTaskHeads(np.ones((1, 2)), np.ones((2, 1))).dedication) == pytest.approx(0.5)


@pytest.mark.slow
@pytest.mark.parametrize("supports", [OVERLAPPING, np.repeat(np.eye(3), 2, axis=1)], ids=["overlapping", "three tasks"])
def test_what_training_finds(supports):
    tasks, rule = len(supports), tx.GradientDescent(0.02, optax.adam, time_per_step=1.0)
    task = MultiTaskHeadsTask(MultiTaskRegression(supports, 48, noise_variance=0.1))

    def trained(heads):
        def one(key):
            draws = 0.1 * jax.random.normal(key, (6 + tasks, heads))
            model = tx.train(MultiTaskHeads(draws[:6].T, draws[6:]), task, rule, [2000.0], observe=task.loss).model
            return model.pairing, jnp.sum(task.risks(model)) / jnp.sum(task.infima) - 1

        return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), 3))

    (_, gap), (superposed, small), (paired, least) = (trained(n) for n in (tasks, tasks + 1, 2 * tasks))
    assert jnp.min(paired) > 0.99 and jnp.max(superposed) < 0.8
    assert jnp.min(gap) > 0.3 > 0.05 > jnp.max(small) > jnp.min(small) > 4 * jnp.max(least)


@pytest.mark.slow
def test_single_precision_and_transformations():
    data = MultiTaskRegression(OVERLAPPING.astype(np.float32), 20, noise_variance=np.float32(0.2))
    task = MultiTaskHeadsTask(data)
    omega, mu = (0.3 * np.random.default_rng(1).normal(size=shape) for shape in ((4, 3, 6), (4, 2, 3)))
    exact = MultiTaskHeadsTask(MultiTaskRegression(OVERLAPPING, 20, noise_variance=0.2))

    def gradient(task, omega, mu):
        value, slope = jax.value_and_grad(task.loss)(MultiTaskHeads(omega, mu))
        return value, slope.omega, slope.mu

    single = jax.vmap(lambda w, m: gradient(task, w, m))(*(jnp.asarray(x, jnp.float32) for x in (omega, mu)))
    double = jax.vmap(lambda w, m: gradient(exact, w, m))(jnp.asarray(omega), jnp.asarray(mu))
    assert all(x.dtype == jnp.float32 for x in single)
    for found, expected in zip(single, double, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_refusals():
    data = MultiTaskRegression(APART, 8)
    heads = MultiTaskHeads(np.ones((2, 6)), np.ones((2, 2)))
    task = MultiTaskHeadsTask(data)
    for call, message in (
        (lambda: MultiTaskHeads(np.ones((2, 6)), np.ones((2, 3))), "`omega` and `mu` must have shapes"),
        (lambda: MultiTaskHeads(np.ones(6), np.ones((2, 1))), "`omega` and `mu` must have shapes"),
        (lambda: MultiTaskHeads(np.ones((2, 6), np.float32), np.ones((2, 2))), "must have one dtype"),
        (lambda: MultiTaskRegression(0.5 * APART, 8), "`supports` must be of ones and zeros"),
        (lambda: MultiTaskRegression(np.diag([1, 0]), 8), "with a one for every task"),
        (lambda: MultiTaskRegression(APART, 0), "`length` must be a whole number"),
        (lambda: MultiTaskRegression(APART, 8, powers=np.ones(3)), "`powers` must be one number"),
        (lambda: MultiTaskRegression(APART, 8, powers=0.0), "`powers` must be positive"),
        (lambda: MultiTaskRegression(APART, 8, noise_variance=-1.0), "`noise_variance` must be non-negative"),
        (lambda: data.loss(heads), "`task` has no closed form"),
        (lambda: MultiTaskHeadsTask(heads), "`data` must be a MultiTaskRegression"),
        (lambda: task.loss(data), "`model` must be MultiTaskHeads"),
        (lambda: task.loss(MultiTaskHeads(np.ones((2, 5)), np.ones((2, 2)))), "must have 2 tasks and 6 inputs"),
        (lambda: task.best_heads(np.ones((2, 5))), "`omega` must have shape"),
        (lambda: task.best_heads(np.full((2, 6), np.nan)), "`omega` must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
