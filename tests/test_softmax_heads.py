"""Softmax heads in context: reference values, exact risks, optima and traps, debiased descent, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.optimize

import tractax as tx
from tractax.deep_linear import DeepLinear
from tractax.transformers import (
    DebiasedDescent,
    FixedPrompts,
    InContextRegression,
    SoftmaxAttention,
    SoftmaxHeads,
    SoftmaxHeadsFlow,
    SoftmaxHeadsTask,
    gaussian_softmax_attention,
    ridge_risk,
    sampled_heads_risk,
    softmax_heads,
    two_example_risk,
)


def regression(inputs, length, noise=0.1, *, variance=1.0, power=1.0):
    unit = jnp.eye(inputs)
    tasks = power / (inputs * variance) * unit
    return InContextRegression(variance * unit, length, task_covariance=tasks, noise_variance=noise)


TASK = SoftmaxHeadsTask(regression(5, 40))


def squared_error(model, task, key, prompts=40_000):
    """The mean squared error on sampled prompts, with its standard error."""
    batch, answers = task.sample(key, prompts)
    squares = (jax.jit(jax.vmap(model))(batch) - answers) ** 2
    return float(jnp.mean(squares)), float(jnp.std(squares)) / prompts**0.5


def paper_flow(t, y, inputs=5, kappa=1.1 / 40):
    """The velocity of (ω, μ) as the paper has it, for twice the loss."""
    omega, mu = np.split(y, 2)
    alike = np.exp(inputs * np.outer(omega, omega))
    to_omega = 2 * mu * (1 - mu @ omega) - 2 * inputs * kappa * mu * (alike @ (mu * omega))
    return np.concatenate([to_omega, 2 * omega * (1 - mu @ omega) - 2 * kappa * alike @ mu])


def test_reference():
    assert float(TASK.risk(SoftmaxHeads([0.3, -0.2], [1.2, -0.9]))) + 0.1 == pytest.approx(0.356907306674934, rel=1e-14)
    start = SoftmaxHeads([0.1, -0.1], [0.1, -0.1])
    solution = SoftmaxHeadsFlow.from_model(start, TASK, tx.GradientFlow(0.5), t1=20.0)
    for t, omega, mu in ((5.0, 0.4761080872199, 0.8588944589153), (20.0, 0.3648588826156, 1.1738963547181)):
        heads = solution.evaluate(t)
        np.testing.assert_allclose(heads.omega, [omega, -omega], rtol=1e-11)
        np.testing.assert_allclose(heads.mu, [mu, -mu], rtol=1e-11)
    pair, two = SoftmaxHeads([0.3, -0.3], [1.0, -1.0]), SoftmaxHeadsTask(regression(5, 2))
    assert float(two_example_risk(pair, two)) + 0.1 == pytest.approx(1.032583330520, rel=1e-12)
    assert float(ridge_risk(regression(40, 320))) + 0.1 == pytest.approx(0.114056677439347, rel=1e-14)
    # The exact risks of one step, and of ω → 0.
    best = DebiasedDescent.best_step(TASK.data)
    np.testing.assert_allclose(best.map, 40 / (39 + 5 + 1 + 0.5) * np.eye(5), rtol=1e-13, atol=1e-16)
    assert float(best.risk(TASK.data)) == pytest.approx(1 - 39 / 45.5, rel=1e-13)
    assert float(TASK.data.risk_of_map(TASK.data.optimum)) == pytest.approx(1 - 40 / 46.5, rel=1e-13)
    assert float(TASK.risk(TASK.best_head)) == pytest.approx(1 - 1 / (1 + np.e * 5 * 1.1 / 40), rel=1e-14)


@pytest.mark.slow
def test_networks_agree(getkey):
    heads = SoftmaxHeads([0.7, -0.4], [1.1, 0.3])
    network, (prompts, _) = heads.network(5), TASK.data.sample(getkey(), 3)
    for prompt in prompts:
        scores = np.asarray(prompt[:-1, :-1].T @ prompt[:-1, -1])
        weights = [np.exp(w * scores) / np.sum(np.exp(w * scores)) for w in (0.7, -0.4)]
        expected = sum(m * p @ prompt[-1, :-1] for m, p in zip((1.1, 0.3), weights, strict=True))
        assert float(heads(prompt)) == pytest.approx(float(expected), rel=1e-12)
        assert float(network(prompt)) == pytest.approx(float(expected), rel=1e-12)
        np.testing.assert_allclose(heads.attention(prompt), weights, rtol=1e-12)
        np.testing.assert_allclose(network.attention(prompt)[:, :, -1], weights, rtol=1e-12)
    read = softmax_heads(network)
    np.testing.assert_allclose([read.omega, read.mu], [heads.omega, heads.mu], rtol=1e-15)
    assert float(heads.step) == pytest.approx(0.7 * 1.1 - 0.4 * 0.3)
    # Huge scores leave the best example alone.
    sharp = SoftmaxHeads([1e300], [1.0])(prompts[0])
    scores = prompts[0][:-1, :-1].T @ prompts[0][:-1, -1]
    assert float(sharp) == float(prompts[0][-1, jnp.argmax(scores)])


@pytest.mark.slow
def test_full_attention_by_hand(getkey):
    model, prompt = gaussian_softmax_attention(2, 3, scale=0.8, key=getkey()), jax.random.normal(getkey(), (3, 6))
    examples, query, answer = np.asarray(prompt[:, :5]), np.asarray(prompt[:, 5]), 0.0
    for value, key_query in zip(np.asarray(model.value), np.asarray(model.key_query), strict=True):
        weights = np.exp(examples.T @ key_query @ query)
        answer += (value @ examples @ (weights / weights.sum()))[-1]
    assert float(model(prompt)) == pytest.approx(answer, rel=1e-12)
    np.testing.assert_allclose(jnp.sum(model.attention(prompt), axis=1), np.ones((3, 6)), rtol=1e-12)
    assert model.heads == 3 and model.inputs == 2


@pytest.mark.slow
def test_gradient_is_that_of_the_loss():
    task = SoftmaxHeadsTask(regression(3, 7, 0.3, variance=1.7, power=2.0))
    heads = SoftmaxHeads([0.3, -0.2, 0.5], [1.2, -0.9, 0.1])
    found, expected = task.gradient(heads), jax.grad(task.loss)(heads)
    np.testing.assert_allclose(found.omega, expected.omega, rtol=1e-12)
    np.testing.assert_allclose(found.mu, expected.mu, rtol=1e-12)
    assert float(task.loss(heads)) == float(task.risk(heads)) / 2
    # In units of the inputs' variance and of the power it is the task of unit variances.
    unit = SoftmaxHeadsTask(regression(3, 7, 0.15))
    assert float(task.risk(heads)) == pytest.approx(2 * float(unit.risk(SoftmaxHeads(1.7 * heads.omega, heads.mu))))


@pytest.mark.slow
def test_sampled_risk_is_that_of_prompts(getkey):
    task = SoftmaxHeadsTask(regression(3, 6, 0.3, variance=1.7, power=2.0))
    heads = SoftmaxHeads([0.4, -0.3, 0.9], [1.0, -0.8, 0.2])
    risk, error = jax.jit(lambda key: sampled_heads_risk(heads, task, key=key, samples=20_000))(getkey())
    direct, spread = squared_error(heads, task.data, getkey())
    assert float(risk) == pytest.approx(direct, abs=4 * np.hypot(float(error), spread))
    assert float(error) < 0.02 * float(risk)


@pytest.mark.slow
def test_two_examples_by_quadrature_and_by_draws(getkey):
    heads = SoftmaxHeads([0.8, -0.3], [1.0, -0.6])
    task = SoftmaxHeadsTask(regression(3, 2))
    # By Gauss-Legendre over u and r, where nothing is sharp.
    nodes, weights = np.polynomial.legendre.leggauss(400)
    u, r = 9 * nodes[None, :], 4.5 * (nodes[:, None] + 1)
    first = sum(m / (1 + np.exp(-(2**0.5) * w * r * u)) for w, m in ((0.8, 1.0), (-0.3, -0.6)))
    second = 0.4 - first
    answer = ((first - second) * u / 2**0.5 - r) ** 2 + 0.4**2 / 2
    value = answer / 3 + (2 / 3 + 0.1) * (first**2 + second**2)
    expected = 9 * 4.5 * weights @ (value * np.exp(-(u**2 + r**2) / 2) * r**2 / np.pi) @ weights
    assert float(two_example_risk(heads, task)) == pytest.approx(float(expected), rel=1e-11)
    # One input, and heads as sharp as a step; many inputs.
    for inputs, omega in ((1, [40.0, -0.1]), (200, [0.1, -0.05])):
        task, heads = SoftmaxHeadsTask(regression(inputs, 2)), SoftmaxHeads(omega, [0.5, -0.7])
        risk, error = sampled_heads_risk(heads, task, key=getkey(), samples=5000)
        assert float(two_example_risk(heads, task)) == pytest.approx(float(risk), abs=4 * float(error))


def test_optima():
    task = SoftmaxHeadsTask(regression(6, 30, 0.2, variance=0.8, power=1.5))

    risk = jax.jit(lambda x: task.risk(SoftmaxHeads(x[:1], x[1:])))
    best = task.best_head
    found = scipy.optimize.minimize(lambda x: float(risk(x)), np.asarray([0.3, 0.8]), tol=1e-12)
    np.testing.assert_allclose(found.x, [best.omega[0], best.mu[0]], rtol=1e-4)
    assert found.fun == pytest.approx(float(task.risk(best)), rel=1e-9)
    # Two opposite heads: the best μ, down to the infimum; no heads get below.
    pair = task.opposite_heads(0.2)
    np.testing.assert_allclose(task.gradient(pair).mu, np.zeros(2), atol=1e-15)
    assert float(task.risk(task.opposite_heads(1e-3))) == pytest.approx(float(task.infimum), rel=1e-9)
    assert float(task.variance * task.opposite_heads(1e-3).step) == pytest.approx(float(task.best_step), rel=1e-9)
    draws = np.random.default_rng(0).normal(size=(2000, 2, 4)) * np.asarray([0.2, 1.0])[None, :, None]
    risks = jax.jit(jax.vmap(lambda draw: task.risk(SoftmaxHeads(draw[0], draw[1]))))(draws)
    assert float(jnp.min(risks)) > float(task.infimum)


@pytest.mark.slow
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_one_head_arrives(sign):
    task = SoftmaxHeadsTask(regression(3, 20, 0.2, variance=1.3, power=1.6))
    solution = SoftmaxHeadsFlow.from_model(SoftmaxHeads([0.3 * sign], [0.1 * sign]), task, t1=120.0)
    last, limit = solution.evaluate(120.0), solution.limit()
    np.testing.assert_allclose([last.omega, last.mu], [limit.omega, limit.mu], rtol=1e-9)
    assert float(limit.mu[0]) * sign > 0
    np.testing.assert_allclose(jax.tree.leaves(task.gradient(limit)), np.zeros((2, 1)), atol=1e-14)


def test_opposite_heads_slide_as_the_sixth_root():
    # The paper's flow has twice the speed.
    ts = np.asarray([1e3, 1e4, 1e5, 1e6])
    start = [0.1, -0.1, 0.1, -0.1]
    found = scipy.integrate.solve_ivp(paper_flow, (0, 1e6), start, "LSODA", t_eval=ts, rtol=1e-10, atol=1e-12).y
    solution = SoftmaxHeadsFlow.from_model(SoftmaxHeads(start[:2], start[2:]), TASK, tx.GradientFlow(0.5), t1=20.0)
    heads = [solution.late_heads(t) for t in ts]
    errors = dict(zip(ts.tolist(), (abs(h.omega[0] / w - 1) for h, w in zip(heads, found[0], strict=True)), strict=True))
    assert errors[1e6] < 1e-4
    rate = tx.scaling(lambda t: errors[t], ts)
    assert float(rate.exponent) == pytest.approx(-2 / 3, abs=0.03)
    np.testing.assert_allclose(heads[-1].mu, found[2:, -1], rtol=1e-4)


@pytest.mark.slow
def test_heads_of_one_sign_are_trapped():
    single, ts = float(TASK.risk(TASK.best_head)), 120.0
    signs = {"same": ([0.1, 0.04], [0.05, 0.12]), "opposite": ([0.1, -0.04], [0.05, -0.12])}
    risks = {}
    for name, (omega, mu) in signs.items():
        solution = SoftmaxHeadsFlow.from_model(SoftmaxHeads(omega, mu), TASK, t1=ts)
        risks[name], last = float(solution.risk(ts)), solution.evaluate(ts)
        assert bool(last.omega[0] * last.omega[1] > 0) is (name == "same")
    assert risks["same"] == pytest.approx(single, abs=1e-8)
    assert risks["opposite"] < 0.5 * single
    # A minimum: the Hessian at two equal heads has no negative eigenvalue, and one zero, the share of μ.
    best = TASK.best_head
    point = jnp.concatenate([jnp.repeat(best.omega, 2), best.mu * jnp.asarray([0.3, 0.7])])
    values = np.linalg.eigvalsh(jax.hessian(lambda x: TASK.loss(SoftmaxHeads(x[:2], x[2:])))(point))
    assert abs(values[0]) < 1e-12 and values[1] > 1e-3


@pytest.mark.slow
def test_debiased_descent(getkey):
    covariance = jnp.asarray([[1.3, 0.4], [0.4, 0.7]])
    shift = {"task_covariance": jnp.asarray([[0.8, -0.3], [-0.3, 1.1]]), "noise_variance": 0.3}
    task = InContextRegression(covariance, 6, query_covariance=jnp.diag(jnp.asarray([0.5, 1.9])), **shift)
    step = DebiasedDescent(jnp.asarray([[0.9, 0.2], [-0.1, 0.5]]))
    found, error = squared_error(step, task, getkey())
    assert float(step.risk(task)) == pytest.approx(found, abs=4 * error)
    best, plain = DebiasedDescent.best(task), DebiasedDescent.best_step(task)
    np.testing.assert_allclose(jax.grad(lambda a: DebiasedDescent(a).risk(task))(best.map), np.zeros((2, 2)), atol=1e-13)
    slope = jax.grad(lambda s: DebiasedDescent(s * plain.map).risk(task))(1.0)
    assert abs(float(slope)) < 1e-13 and float(best.risk(task)) < float(plain.risk(task))
    # The paper's preconditioner, for isotropic tasks.
    task = InContextRegression(covariance, 9, task_covariance=jnp.eye(2) / 2, noise_variance=0.1)
    expected = 9 * np.linalg.inv(9 * covariance + (2.0 + 0.2) * np.eye(2))
    np.testing.assert_allclose(DebiasedDescent.best(task).map, expected, rtol=1e-12)
    risk = 1.0 - np.trace(expected @ covariance @ covariance) * 8 / 18
    assert float(DebiasedDescent.best(task).risk(task)) == pytest.approx(risk, rel=1e-12)
    # Softmax heads of small ω are the step.
    prompt = task.sample(getkey(), 1)[0][0]
    pair = SoftmaxHeads([1e-4, -1e-4], [0.8 / 2e-4, -0.8 / 2e-4])
    assert float(pair(prompt)) == pytest.approx(float(DebiasedDescent(0.8 * jnp.eye(2))(prompt)), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0.25, 2.0])
def test_ridge_is_the_law_of_marchenko_and_pastur(ratio):
    noise, power = 0.2, 1.5
    task = regression(int(100 * ratio), 100, noise, variance=0.7, power=power)
    low, high, shift = (1 - ratio**0.5) ** 2, (1 + ratio**0.5) ** 2, ratio * noise / power

    def density(x):
        return np.sqrt((high - x) * (x - low)) / (2 * np.pi * ratio * x) / (x + shift)

    resolvent = scipy.integrate.quad(density, low, high)[0] + max(0.0, 1 - 1 / ratio) / shift
    assert float(ridge_risk(task)) == pytest.approx(power * shift * resolvent, rel=1e-7)


@pytest.mark.slow
def test_ridge_without_noise():
    assert float(ridge_risk(regression(10, 40, 0.0))) == 0.0
    assert float(ridge_risk(regression(40, 10, 0.0))) == pytest.approx(0.75, rel=1e-12)
    assert float(jax.grad(lambda s: ridge_risk(regression(10, 40, s)))(0.1)) > 0


@pytest.mark.slow
def test_full_attention_trains_by_any_rule(getkey):
    data = regression(2, 6, 0.0)
    prompts = FixedPrompts.draw(data, getkey(), 64)
    model = gaussian_softmax_attention(2, 2, scale=0.3, key=getkey())
    for task, rule, key in (
        (prompts, tx.GradientFlow(), None),
        (data, tx.GradientDescent(0.1, batch_size=16), getkey()),
    ):
        run = tx.train(model, task, rule, [0.0, 5.0], observe=prompts.loss, key=key)
        assert float(run.observed[1]) < 0.9 * float(run.observed[0])


def test_refusals():
    heads, data = SoftmaxHeads([0.1], [0.1]), regression(3, 6)
    task = SoftmaxHeadsTask(data)
    with pytest.raises(ValueError, match="`omega` and `mu` must hold one number"):
        SoftmaxHeads([0.1, 0.2], [0.1])
    with pytest.raises(ValueError, match="`omega` and `mu` must have one dtype"):
        SoftmaxHeads(np.ones(1, np.float32), np.ones(1))
    with pytest.raises(ValueError, match="`data` must be an InContextRegression"):
        SoftmaxHeadsTask(heads)
    with pytest.raises(ValueError, match="`data` must have isotropic inputs"):
        SoftmaxHeadsTask(InContextRegression(jnp.diag(jnp.asarray([1.0, 2.0])), 4))
    with pytest.raises(ValueError, match="`data` must have isotropic inputs"):
        SoftmaxHeadsTask(InContextRegression(jnp.eye(2), 4, query_covariance=2 * jnp.eye(2)))
    with pytest.raises(ValueError, match="prompts of finite length"):
        SoftmaxHeadsTask(InContextRegression(jnp.eye(2), np.inf))
    with pytest.raises(ValueError, match="`model` must be a SoftmaxHeads network; got SoftmaxAttention"):
        task.loss(heads.network(3))
    with pytest.raises(ValueError, match="`task` must be a SoftmaxHeadsTask"):
        SoftmaxHeadsFlow.from_model(heads, data, t1=1.0)
    with pytest.raises(ValueError, match="`model` must be SoftmaxHeads; got DeepLinear"):
        SoftmaxHeadsFlow.from_model(DeepLinear((jnp.ones((1, 2)),)), task, t1=1.0)
    with pytest.raises(ValueError, match="`omega` must be finite"):
        SoftmaxHeadsFlow.from_model(SoftmaxHeads([np.nan], [1.0]), task, t1=1.0)
    with pytest.raises(ValueError, match="heads that are not all zero"):
        SoftmaxHeadsFlow.from_model(SoftmaxHeads([0.0], [0.0]), task, t1=1.0)
    with pytest.raises(ValueError, match=r"`rule` must be tx\.GradientFlow"):
        SoftmaxHeadsFlow.from_model(heads, task, tx.GradientDescent(0.1), t1=1.0)
    with pytest.raises(ValueError, match="`limit` is known for one head only"):
        SoftmaxHeadsFlow.from_model(SoftmaxHeads([0.1, -0.1], [0.1, -0.1]), task, t1=1.0).limit()
    with pytest.raises(ValueError, match="`limit` needs ω and μ of one sign"):
        SoftmaxHeadsFlow.from_model(SoftmaxHeads([0.1], [-0.1]), task, t1=1e-3).limit()
    with pytest.raises(ValueError, match="`omega` must be positive"):
        task.opposite_heads(0.0)
    with pytest.raises(ValueError, match="`samples` must be a whole number"):
        sampled_heads_risk(heads, task, key=jax.random.key(0), samples=1)
    with pytest.raises(ValueError, match="prompts of two examples; got 6"):
        two_example_risk(heads, task)
    with pytest.raises(ValueError, match="at least two examples"):
        DebiasedDescent(jnp.eye(3)).risk(regression(3, 1))
    with pytest.raises(ValueError, match="`task` must have 2 inputs"):
        DebiasedDescent(jnp.eye(2)).risk(data)
    with pytest.raises(ValueError, match="`map` must be square"):
        DebiasedDescent(jnp.ones((2, 3)))
    with pytest.raises(ValueError, match="`value` must hold square matrices"):
        SoftmaxAttention(jnp.ones((1, 2, 3)), jnp.ones((1, 2, 2)))
    with pytest.raises(ValueError, match="`answers` must have shape"):
        FixedPrompts(jnp.ones((3, 2, 4)), jnp.ones(2))
    with pytest.raises(ValueError, match="`model` must be a SoftmaxAttention or SoftmaxHeads"):
        softmax_heads(data)
