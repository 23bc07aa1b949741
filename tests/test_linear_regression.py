"""LinearRegressionFlow: known limits, ridge, degenerate inputs, float32, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import tractax as tx
from tractax.deep_linear import DeepLinear, LinearRegressionFlow, LinearTask, TeacherRegression, gaussian


def _case(n_in, examples, key, **options):
    data, start = jax.random.split(key)
    task = TeacherRegression.draw(n_in, examples, noise_scale=0.4, key=data)
    model = gaussian((n_in, 1), scale=0.5, key=start)
    return model, task, LinearRegressionFlow.from_model(model, task, tx.GradientFlow(**options))


def test_loss_is_a_sum_over_examples(getkey):
    model, task, _ = _case(4, 7, getkey())
    outputs = jax.vmap(model, in_axes=1)(task.inputs)[:, 0]
    assert float(task.loss(model)) == pytest.approx(float(jnp.sum((task.targets - outputs) ** 2)) / 2, rel=1e-14)
    deep = DeepLinear((jnp.eye(4), model.weights[0]))
    assert float(task.loss(deep)) == pytest.approx(float(task.loss(model)), rel=1e-14)
    assert task.load == 7 / 4


@pytest.mark.slow
def test_generalisation_error_is_the_error_on_new_examples(getkey):
    model, task, solution = _case(6, 3, getkey())
    inputs_key, noise_key = jax.random.split(getkey())
    inputs = jax.random.normal(inputs_key, (6, 200_000)) / jnp.sqrt(6.0)
    targets = task.teacher @ inputs + 0.4 * jax.random.normal(noise_key, (200_000,))
    new = jnp.mean((targets - model.product[0] @ inputs) ** 2)
    assert float(solution.evaluate(0.0).errors.generalisation) == pytest.approx(float(new), rel=0.02)


@pytest.mark.parametrize(("n_in", "examples"), [(4, 9), (9, 4), (5, 5)])
def test_against_scipy(n_in, examples, getkey):
    model, task, solution = _case(n_in, examples, getkey(), time_constant=2.0, weight_decay=0.1)
    x, y = np.asarray(task.inputs), np.asarray(task.targets)

    def field(_, w):
        return ((y - w @ x) @ x.T - 0.1 * w) / 2.0

    expected = solve_ivp(field, (0, 3), model.product[0], method="DOP853", rtol=1e-12, atol=1e-14).y[:, -1]
    np.testing.assert_allclose(solution.evaluate(3.0).weights, expected, rtol=1e-9, atol=1e-11)


def test_limit_is_the_nearest_least_squares_solution(getkey):
    model, task, solution = _case(7, 4, getkey())
    start = np.asarray(model.product[0])
    residual = np.asarray(task.targets) - start @ np.asarray(task.inputs)
    step, *_ = np.linalg.lstsq(np.asarray(task.inputs).T, residual, rcond=None)
    limit = solution.limit()
    np.testing.assert_allclose(limit.weights, start + step, rtol=1e-10, atol=1e-12)
    assert float(limit.errors.train) < 1e-25


@pytest.mark.parametrize(("n_in", "examples"), [(4, 9), (9, 4)])
def test_limit_with_decay_is_ridge_regression(n_in, examples, getkey):
    _, task, solution = _case(n_in, examples, getkey(), weight_decay=0.3)
    x, y = np.asarray(task.inputs), np.asarray(task.targets)
    ridge = np.linalg.solve(x @ x.T + 0.3 * np.eye(n_in), x @ y)
    np.testing.assert_allclose(solution.limit().weights, ridge, rtol=1e-10, atol=1e-12)


def test_frozen_directions_never_move(getkey):
    # Inputs of rank one, made of rounding elsewhere: huge times must not amplify it.
    direction = jax.random.normal(getkey(), (6,))
    inputs = direction[:, None] * jax.random.normal(getkey(), (8,))[None, :]
    task = TeacherRegression(inputs, jax.random.normal(getkey(), (8,)), jnp.ones(6))
    model = gaussian((6, 1), scale=0.5, key=getkey())
    solution = LinearRegressionFlow.from_model(model, task)
    unit = direction / jnp.linalg.norm(direction)
    for t in (1.0, 1e16, 1e300, jnp.inf):
        moved = solution.evaluate(t).weights - model.product[0]
        assert float(jnp.linalg.norm(moved - (moved @ unit) * unit)) < 1e-13


def test_no_inputs_no_learning():
    task = TeacherRegression(jnp.zeros((3, 2)), jnp.ones(2), jnp.ones(3))
    model = DeepLinear((jnp.asarray([[1.0, -2.0, 3.0]]),))
    np.testing.assert_array_equal(LinearRegressionFlow.from_model(model, task).limit().weights, [1.0, -2.0, 3.0])


def test_gradient_with_respect_to_the_inputs(getkey):
    model, task, _ = _case(5, 3, getkey())

    def error(inputs, t):
        changed = TeacherRegression(inputs, task.targets, task.teacher)
        return LinearRegressionFlow.from_model(model, changed).evaluate(t).errors.generalisation

    direction = jax.random.normal(getkey(), task.inputs.shape)
    for t in (0.7, 50.0):
        slope = jnp.vdot(jax.jit(jax.grad(error))(task.inputs, t), direction)
        h = 1e-5
        expected = (error(task.inputs + h * direction, t) - error(task.inputs - h * direction, t)) / (2 * h)
        assert float(slope) == pytest.approx(float(expected), rel=1e-6)


def test_draw_has_the_variances_asked_for(getkey):
    task = TeacherRegression.draw(300, 400, teacher_scale=2.0, noise_scale=0.5, key=getkey())
    assert float(jnp.var(task.inputs)) * 300 == pytest.approx(1.0, rel=0.02)
    assert float(jnp.mean(task.teacher**2)) == pytest.approx(4.0, rel=0.3)
    noise = task.targets - task.teacher @ task.inputs
    assert float(jnp.mean(noise**2)) == pytest.approx(0.25, rel=0.3)
    assert float(task.noise_variance) == 0.25
    half = TeacherRegression.draw(3, 2, teacher_scale=jnp.float32(1), noise_scale=0.5, key=getkey())
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(half))


def test_refuses_what_it_does_not_cover(getkey):
    model, task, _ = _case(4, 7, getkey())
    with pytest.raises(ValueError, match="`model` must have 1 layer of weights; got 2"):
        LinearRegressionFlow.from_model(gaussian((4, 3, 1), scale=0.1, key=getkey()), task)
    with pytest.raises(ValueError, match="4 inputs and 1 output"):
        LinearRegressionFlow.from_model(gaussian((4, 2), scale=0.1, key=getkey()), task)
    with pytest.raises(ValueError, match="GradientFlow"):
        LinearRegressionFlow.from_model(model, task, tx.GradientDescent(0.1))
    with pytest.raises(ValueError, match="equal rates"):
        LinearRegressionFlow.from_model(model, task, tx.GradientFlow(rates=jnp.asarray([0.5])))
    with pytest.raises(ValueError, match="`targets` must be finite"):
        TeacherRegression(task.inputs, jnp.nan * task.targets, task.teacher)
    with pytest.raises(ValueError, match="`noise_variance` must be non-negative"):
        TeacherRegression(task.inputs, task.targets, task.teacher, -1.0)
    with pytest.raises(ValueError, match="`n_in` and `examples`"):
        TeacherRegression.draw(4, 0, key=getkey())
    with pytest.raises((ValueError, TypeError), match="TeacherRegression"):
        LinearRegressionFlow.from_model(model, LinearTask(jnp.ones((1, 4))))
