"""Linear self-attention in context: exact moments, reference values, limits, shifts of distribution, refusals."""

import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

import tractax as tx
from tractax.deep_linear import DeepLinear
from tractax.transformers import (
    InContextRegression,
    IsotropicAttention,
    LinearAttention,
    LinearAttentionFlow,
    SeparateAttention,
    balanced_attention,
    gaussian_attention,
    random_covariance_limit,
)

COVARIANCE = np.asarray([[1.3, 0.4], [0.4, 0.7]])
TASKS = np.asarray([[0.8, -0.3], [-0.3, 1.1]])
QUERIES = np.asarray([[0.5, 0.2], [0.2, 1.9]])


def shifted(length, covariance=COVARIANCE):
    """Inputs, tasks and queries with covariances that do not commute, and noise."""
    return InContextRegression(covariance, length, task_covariance=TASKS, query_covariance=QUERIES, noise_variance=0.3)


@functools.cache
def quadrature():
    """Prompts of one example, answers and weights that average any polynomial of the squared error's degree exactly."""
    orders = (3, 3, 3, 3, 4, 4, 3)
    rules = [np.polynomial.hermite_e.hermegauss(n) for n in orders]
    nodes = np.stack(np.meshgrid(*(r[0] for r in rules), indexing="ij"), axis=-1).reshape(-1, 7)
    weights = functools.reduce(np.multiply.outer, [r[1] / np.sqrt(2 * np.pi) for r in rules]).ravel()
    root = np.linalg.cholesky
    task, x, query = nodes[:, :2] @ root(TASKS).T, nodes[:, 2:4] @ root(COVARIANCE).T, nodes[:, 4:6] @ root(QUERIES).T
    label = np.sum(task * x, axis=1) + np.sqrt(0.3) * nodes[:, 6]
    prompts = np.zeros((weights.size, 3, 2))
    prompts[:, :2, 0], prompts[:, 2, 0], prompts[:, :2, 1] = x, label, query
    return jnp.asarray(prompts), jnp.sum(jnp.asarray(task * query), axis=1), jnp.asarray(weights)


@eqx.filter_jit
def loss_of(task, model):
    return task.loss(model)


@eqx.filter_jit
def over_time(function, ts):
    return eqx.filter_vmap(function)(ts)


def one_head(value, matrix):
    return LinearAttention.embed(np.asarray([value]), np.asarray([matrix]))


def any_weights(heads, key):
    return LinearAttention(*jax.random.normal(key, (2, heads, 3, 3)))


@pytest.mark.slow
@pytest.mark.parametrize("heads", [1, 2])
def test_loss_is_exact_for_any_weights(heads, getkey):
    model, (prompts, answers, weights) = any_weights(heads, getkey()), quadrature()
    expected = jnp.sum(weights * (jax.vmap(model)(prompts) - answers) ** 2) / 2
    assert float(loss_of(shifted(1), model)) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.slow
def test_loss_is_that_of_samples(getkey):
    model, task = jax.tree.map(lambda w: 0.4 * w, any_weights(2, getkey())), shifted(3)

    @jax.jit
    def losses(keys):
        return jax.vmap(lambda key: task.batch_loss(model, task.sample(key, 2000)))(keys)

    found = losses(jax.random.split(getkey(), 100))
    error = float(jnp.std(found)) / 10
    assert error < 0.02 * float(task.loss(model))
    assert float(task.loss(model)) == pytest.approx(float(jnp.mean(found)), abs=4 * error)


@pytest.mark.slow
def test_network(getkey):
    model, prompt = any_weights(2, getkey()), jax.random.normal(getkey(), (3, 6))
    expected = prompt + sum(
        v @ prompt @ (prompt.T @ kq @ prompt) / 5 for v, kq in zip(model.value, model.key_query, strict=True)
    )
    np.testing.assert_allclose(model.output(prompt), expected, rtol=1e-12)
    assert float(model(prompt)) == pytest.approx(float(expected[-1, -1]), rel=1e-12)
    assert model.attention(prompt).shape == (2, 6, 6)
    # Without couplings the network is its effective map: b·A x, where the query (0 for its label) adds nothing to b.
    clean = LinearAttention.embed(model.value[:, -1, -1], model.key_query[:, :2, :2])
    prompt = prompt.at[2, 5].set(0.0)
    b = prompt[:2, :5] @ prompt[2, :5] / 5
    assert float(clean(prompt)) == pytest.approx(float(b @ clean.effective_map @ prompt[:2, 5]), rel=1e-12)
    task = shifted(4)
    assert float(loss_of(task, clean)) == pytest.approx(float(task.loss_of_map(clean.effective_map)), rel=1e-12)
    separate = SeparateAttention(model.value, model.key_query[:, :2], model.key_query[:, 1:])
    merged = LinearAttention(model.value, separate.key_query)
    assert float(separate(prompt)) == pytest.approx(float(merged(prompt)), rel=1e-12)


@pytest.mark.slow
def test_flow_of_the_map_is_that_of_all_weights(getkey):
    # Automatic differentiation of the whole layer moves v and U as the reduced flow says, and no coupling.
    task = shifted(3)
    heads = gaussian_attention(2, 2, scale=0.7, key=getkey())
    gradient = eqx.filter_jit(eqx.filter_grad(task.loss))(heads)
    solution = LinearAttentionFlow.from_model(heads, task, tx.GradientFlow(2.0), t1=0.1)
    velocity = solution.vector_field(0.0, solution.reduce(heads))
    np.testing.assert_allclose(velocity.value, -gradient.value[:, -1, -1] / 2, rtol=1e-12)
    np.testing.assert_allclose(velocity.key_query, -gradient.key_query[:, :2, :2] / 2, rtol=1e-12)
    assert all(jnp.all(jnp.abs(x) < 1e-14) for x in gradient.couplings)


def test_reference_isotropic():
    task = InContextRegression(jnp.eye(2), 8)
    solution = IsotropicAttention.from_model(one_head(0.1, 0.1 * np.eye(2) / 2**0.5), task)
    for t, g, loss in ((1.0, 0.103599626642686, 0.807558460345320), (5.0, 0.727219297534468, 0.272727276652536)):
        np.testing.assert_allclose(solution.effective_map(t), g * np.eye(2), rtol=1e-13, atol=1e-16)
        assert float(solution.loss(t)) == pytest.approx(loss, rel=1e-13)
    start = np.asarray([[0.1, 0.02], [0.02, 0.05]])
    state = IsotropicAttention.from_model(one_head(np.linalg.norm(start), start), task).evaluate(2.0)
    assert float(state.value[0]) == pytest.approx(0.892564969691024, rel=1e-13)
    expected = [[0.642867161761396, 0.00953026246862], [0.00953026246862, 0.619041505589846]]
    np.testing.assert_allclose(state.key_query[0], expected, atol=5e-15)


def test_reference_optimum_and_shifts():
    covariance = jnp.diag(jnp.asarray([2.0, 1.0]))
    task = InContextRegression(covariance, 10)
    solution = LinearAttentionFlow.from_model(balanced_attention(2, scale=0.2, key=jax.random.key(0)), task, t1=20.0)
    limit = solution.limit()
    assert float(limit.value[0]) == pytest.approx(0.904798281604229, rel=1e-14)
    gamma = 1.1 * covariance + 0.3 * jnp.eye(2)
    np.testing.assert_allclose(limit.effective_map, jnp.linalg.inv(gamma), rtol=1e-13)
    assert float(task.loss_of_map(task.optimum)) == pytest.approx(0.342857142857143, rel=1e-14)
    assert float(tx.compare(solution, solution, jnp.asarray([20.0])).worst) == 0
    np.testing.assert_allclose(solution.evaluate(20.0).key_query, limit.key_query, rtol=1e-9, atol=1e-15)
    noisy, scaled = InContextRegression(covariance, 20, noise_variance=0.5), InContextRegression(2 * covariance, 20)
    assert float(solution.risk(20.0, noisy)) == pytest.approx(0.452428571428572, rel=1e-12)
    assert float(solution.risk(20.0, scaled)) == pytest.approx(3.903673469387758, rel=1e-12)


def test_risk_under_shift():
    # Long prompts forgive other tasks and queries, but not other inputs: (c - 1)² c tr(ΩΛ) is left.
    final = InContextRegression(COVARIANCE, math.inf).optimum
    np.testing.assert_allclose(final, np.linalg.inv(COVARIANCE), rtol=1e-12)
    fixed_task = np.outer([1.0, -2.0], [1.0, -2.0])
    other = InContextRegression(COVARIANCE, math.inf, task_covariance=fixed_task, query_covariance=QUERIES)
    assert abs(float(other.risk_of_map(final))) < 1e-13
    for c in (0.5, 1.0, 2.0, 4.0):
        task = InContextRegression(c * COVARIANCE, math.inf, task_covariance=TASKS)
        expected = (c - 1) ** 2 * c * np.trace(TASKS @ COVARIANCE)
        assert float(task.risk_of_map(final)) == pytest.approx(expected, rel=1e-12, abs=1e-13)
    # The formula of the paper, and its descent like 1/M.
    b = (1 + 1 / 7) * COVARIANCE @ TASKS @ COVARIANCE + (np.trace(TASKS @ COVARIANCE) + 0.3) / 7 * COVARIANCE
    a = np.asarray([[0.3, -0.2], [0.5, 0.1]])
    expected = (
        np.trace(a @ QUERIES @ a.T @ b) - 2 * np.trace(TASKS @ COVARIANCE @ a @ QUERIES) + np.trace(TASKS @ QUERIES)
    )
    assert float(shifted(7).risk_of_map(jnp.asarray(a))) == pytest.approx(expected, rel=1e-13)
    floor = shifted(math.inf).risk_of_map(final)
    excess = [float(shifted(m).risk_of_map(final) - floor) * m for m in (1, 10, 1000)]
    np.testing.assert_allclose(excess, excess[0], rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("value", [0.3, -0.3, 0.05])
def test_conserved_bound_and_limit(value):
    # Balance decides how the optimum is shared out; the sign of v stays; with a larger U, v changes its sign at first.
    task = shifted(3)
    matrix = np.sign(value) * np.asarray([[0.2, 0.1], [-0.1, 0.15]])
    model = one_head(value, matrix)
    solution = LinearAttentionFlow.from_model(model, task, t1=60.0)
    states = over_time(solution.evaluate, jnp.linspace(0, 60, 25))
    np.testing.assert_allclose(states.imbalance, jnp.full((25, 1, 1), value**2 - np.sum(matrix**2)), atol=1e-11)
    norms = jnp.linalg.norm(states.effective_map, axis=(1, 2))
    assert jnp.all(norms >= solution.norm_bound) and float(solution.norm_bound) > 0.01 * float(norms[0])
    limit = solution.limit()
    np.testing.assert_allclose(limit.effective_map, task.optimum, rtol=1e-12)
    for found, expected in zip(jax.tree.leaves(solution.evaluate(60.0)), jax.tree.leaves(limit), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-7)


@pytest.mark.slow
def test_off_diagonals_decay_with_the_power_of_the_value():
    # In the principal basis, U_ij(t) = U_ij(0) exp(-γ_i λ_i λ_j ∫v²), whatever the diagonal does.
    values = np.asarray([1.5, 0.6])
    start = np.asarray([[0.2, 0.3], [-0.1, 0.1]])
    solution = LinearAttentionFlow.from_model(one_head(0.5, start), InContextRegression(np.diag(values), 5), t1=4.0)
    ts = np.linspace(0.0, 4.0, 401)
    states = over_time(solution.evaluate, jnp.asarray(ts))
    power = scipy.integrate.simpson(np.asarray(states.value[:, 0]) ** 2, x=ts)
    gammas = values * (1 + 1 / 5) + np.sum(values) / 5
    expected = start * np.exp(-gammas[:, None] * np.outer(values, values) * power)
    found = states.key_query[-1, 0]
    np.testing.assert_allclose([found[0, 1], found[1, 0]], [expected[0, 1], expected[1, 0]], rtol=1e-9)


@pytest.mark.slow
def test_isotropic_passes_by_the_saddle():
    # Weights that point away from the identity decay towards zero first; the flow knows nothing of the closed form.
    task = InContextRegression(0.5 * jnp.eye(2), 4, noise_variance=0.2)
    matrix = -0.6 * np.eye(2) + 0.05 * np.asarray([[0.5, 1.0], [0.2, -0.5]])
    model = LinearAttention.embed(
        np.linalg.norm(matrix) * np.asarray([0.6, -0.8]), np.multiply.outer([0.6, -0.8], matrix)
    )
    solution = IsotropicAttention.from_model(model, task)
    flow = LinearAttentionFlow.from_model(model, task, t1=40.0)
    ts = jnp.linspace(0, 40, 30)
    assert float(tx.compare(solution, flow, ts).worst) < 1e-9
    assert float(jnp.min(over_time(solution.evaluate, ts).value[:, 0])) < 0.1 * float(solution.strength)
    np.testing.assert_allclose(solution.limit().effective_map, task.optimum, rtol=1e-12, atol=1e-15)
    assert float(tx.residual(solution, jnp.asarray([0.0, 1.0, 10.0, 20.0, 40.0])).worst) < 1e-12


def test_isotropic_extremes():
    task = InContextRegression(jnp.eye(1), 3)
    one = IsotropicAttention.from_model(one_head(1e-100, [[1e-100]]), task)
    at = jax.jit(jax.value_and_grad(lambda t: one.effective_map(t)[0, 0]))
    assert float(at(1e9)[0]) == pytest.approx(1 / (1 + 2 / 3), rel=1e-14)
    assert float(at(50.0)[0]) == pytest.approx(1e-200 * np.exp(100.0), rel=1e-12)
    assert float(at(jnp.inf)[1]) == 0.0 == float(at(1e12)[1])
    with pytest.raises(ValueError, match="a way out of the saddle at zero"):
        IsotropicAttention.from_model(one_head(0.1, [[-0.1]]), task)


def test_random_covariance():
    d, n = 3, 20
    exponential = jnp.asarray([[1.0], [2.0], [6.0]])
    a, loss = random_covariance_limit(exponential * jnp.ones((1, d)), n)
    bracket = 6 * (1 + 1 / n) + (6 + 2 * (d - 1)) / n
    np.testing.assert_allclose(a, 2 / bracket, rtol=1e-14)
    assert float(loss) == pytest.approx(d / 2 - d / 2 * 4 / bracket, rel=1e-14)
    assert float(random_covariance_limit(exponential * jnp.ones((1, 2)), 10)[0][0]) == pytest.approx(0.2703, abs=5e-5)
    a, loss = random_covariance_limit(exponential * jnp.ones((1, 2)), math.inf)
    assert float(a[0]) == pytest.approx(1 / 3) and float(loss) == pytest.approx(2 / 6)


class TwoCovariances(tx.AbstractTask):
    """Each eigenvalue is 1/2 or 2, by the toss of a coin."""

    tasks: tuple

    def loss(self, model):
        return sum(task.loss(model) for task in self.tasks) / len(self.tasks)


@pytest.fixture
def two_covariances():
    values = (0.5, 2.0)
    tasks = [InContextRegression(np.diag([a, b]), 4, noise_variance=0.1) for a in values for b in values]
    moments = np.asarray([[np.mean(np.power(values, k))] * 2 for k in (1, 2, 3)])
    return TwoCovariances(tuple(tasks)), random_covariance_limit(moments, 4, noise_variance=0.1)


@pytest.mark.slow
def test_random_covariance_is_stationary(two_covariances):
    task, (a, loss) = two_covariances
    value = jnp.linalg.norm(a) ** 0.5
    found, gradient = eqx.filter_jit(eqx.filter_value_and_grad(task.loss))(one_head(value, jnp.diag(a) / value))
    assert float(found) == pytest.approx(float(loss), rel=1e-13)
    assert all(jnp.all(jnp.abs(x) < 1e-14) for x in jax.tree.leaves(gradient))


@pytest.mark.slow
def test_random_covariance_is_where_training_ends(two_covariances):
    task, (a, loss) = two_covariances
    run = tx.train(balanced_attention(2, scale=0.3, key=jax.random.key(1)), task, tx.GradientFlow(), [30.0])
    np.testing.assert_allclose(run.model.effective_map, jnp.diag(a), atol=1e-8)
    assert float(run.observed[0]) == pytest.approx(float(loss), rel=1e-10)


@pytest.mark.slow
def test_sampled_prompts_approach_the_flow():
    # Steps on fresh prompts scatter around steps on the exact loss as one over the root of the batch.
    task = InContextRegression(COVARIANCE, 5)
    model = balanced_attention(2, scale=0.5, key=jax.random.key(0))
    solution = LinearAttentionFlow.from_model(model, task, t1=1.0)
    ts = jnp.asarray([1.0])
    exact = tx.train(model, task, tx.GradientDescent(0.01), ts).model.effective_map
    np.testing.assert_allclose(exact, solution.effective_map(1.0), atol=0.02)

    def errors(batch):
        rule = tx.GradientDescent(0.01, batch_size=int(batch))

        def run(key):
            found = tx.train(model, task, rule, ts, observe=solution.reduce, key=key).observed
            return jnp.linalg.norm(found.effective_map[0] - exact)

        return tx.ensemble(run, jax.random.split(jax.random.key(int(batch)), 60))

    assert tx.scaling(errors, [128, 512, 2048]).contains(-0.5)


@pytest.mark.slow
def test_weight_decay():
    model, task = gaussian_attention(2, 2, scale=0.3, key=jax.random.key(3)), shifted(3)

    solution = LinearAttentionFlow.from_model(model, task, tx.GradientFlow(weight_decay=0.1), t1=10.0)
    velocity = solution.vector_field(0.0, solution.reduce(model))
    free = LinearAttentionFlow.from_model(model, task, t1=1.0).vector_field(0.0, solution.reduce(model))
    np.testing.assert_allclose(velocity.value, free.value - 0.1 * model.value[:, -1, -1], rtol=1e-12)
    assert float(solution.norm_bound) == 0.0
    with pytest.raises(ValueError, match="`limit` is known for one head only"):
        solution.limit()


def test_refusals():
    task, model = shifted(3), balanced_attention(2, scale=0.1, key=jax.random.key(0))
    for length in (0, -3, 2.5, True, math.nan):
        with pytest.raises(ValueError, match="`length` must be a whole number"):
            InContextRegression(COVARIANCE, length)
    with pytest.raises(ValueError, match="`covariance` must be positive definite"):
        InContextRegression(np.diag([1.0, 0.0]), 3)
    with pytest.raises(ValueError, match="`covariance` must be positive semi-definite"):
        InContextRegression(np.diag([1.0, -1.0]), 3)
    with pytest.raises(ValueError, match="`covariance` must be symmetric"):
        InContextRegression(np.asarray([[1.0, 0.5], [0.0, 1.0]]), 3)
    with pytest.raises(ValueError, match="`task_covariance` must have shape"):
        InContextRegression(COVARIANCE, 3, task_covariance=np.eye(3))
    with pytest.raises(ValueError, match="`noise_variance` must be non-negative"):
        InContextRegression(COVARIANCE, 3, noise_variance=-0.1)
    with pytest.raises(ValueError, match="`length` must be finite to draw"):
        InContextRegression(COVARIANCE, math.inf).sample(jax.random.key(0), 2)
    with pytest.raises(ValueError, match="`model` must be linear attention"):
        task.loss(DeepLinear((jnp.ones((1, 2)),)))
    with pytest.raises(ValueError, match="`model` must have 2 inputs"):
        task.loss(balanced_attention(3, scale=0.1, key=jax.random.key(0)))
    with pytest.raises(ValueError, match="`model` must be a LinearAttention network"):
        LinearAttentionFlow.from_model(DeepLinear((jnp.ones((1, 2)),)), task, t1=1.0)
    with pytest.raises(ValueError, match=r"`rule` must be tx\.GradientFlow"):
        LinearAttentionFlow.from_model(model, task, tx.GradientDescent(0.1), t1=1.0)
    with pytest.raises(ValueError, match="zero weights between inputs and labels"):
        LinearAttentionFlow.from_model(any_weights(1, jax.random.key(0)), task, t1=1.0)
    with pytest.raises(ValueError, match="not the saddle at zero"):
        LinearAttentionFlow.from_model(one_head(0.0, np.zeros((2, 2))), task, t1=1.0)
    with pytest.raises(ValueError, match="needs a loss at t1 below that of zero weights"):
        LinearAttentionFlow.from_model(one_head(0.1, -0.1 * np.eye(2)), task, t1=0.1).limit()
    isotropic = InContextRegression(jnp.eye(2), 3)
    with pytest.raises(ValueError, match="isotropic covariances"):
        IsotropicAttention.from_model(model, task)
    with pytest.raises(ValueError, match="balanced weights"):
        IsotropicAttention.from_model(one_head(0.2, 0.1 * np.eye(2)), isotropic)
    with pytest.raises(ValueError, match="heads that share one matrix"):
        IsotropicAttention.from_model(gaussian_attention(2, 2, scale=0.1, key=jax.random.key(0)), isotropic)
    with pytest.raises(ValueError, match="weights that are not all zero"):
        IsotropicAttention.from_model(one_head(0.0, np.zeros((2, 2))), isotropic)
    with pytest.raises(ValueError, match="`moments` must be the first three moments"):
        random_covariance_limit(np.asarray([[1.0], [0.5], [1.0]]), 3)
    with pytest.raises(ValueError, match="`length` must be one number of at least 1"):
        random_covariance_limit(np.asarray([[1.0], [2.0], [6.0]]), 0)
    with pytest.raises(ValueError, match="`key_query` must hold square matrices"):
        LinearAttention.embed(np.ones(1), np.ones((1, 2, 3)))
    with pytest.raises(ValueError, match="`value` must have shape"):
        LinearAttention(np.ones((2, 2, 2, 2)), np.ones((2, 2, 2)))
    with pytest.raises(ValueError, match="`inputs` must be a whole number"):
        balanced_attention(0, scale=0.1, key=jax.random.key(0))
