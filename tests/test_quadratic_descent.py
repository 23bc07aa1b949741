"""Descent on quadratics: reference values, signs, thresholds, flat and negative directions, refusals."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import MODEL, TASK

import tractax as tx
from tractax.rules import ModifiedFlow, PrincipalFlow, QuadraticDescent


class Point(eqx.Module):
    """A model that is nothing but its parameters."""

    w: jax.Array


class Quadratic(tx.AbstractTask):
    """The loss ½ wᵀHw − bᵀw."""

    matrix: jax.Array
    slope: jax.Array

    def loss(self, model):
        return model.w @ self.matrix @ model.w / 2 - self.slope @ model.w


def _mode(rule, curvature=1.0, start=1.0):
    task = Quadratic(jnp.asarray([[curvature]]), jnp.zeros(1))
    return QuadraticDescent.from_model(Point(jnp.asarray([start])), task, rule)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (tx.GradientDescent(0.1), 0.3486784401),
        (PrincipalFlow(0.1), 0.3486784401),
        (ModifiedFlow(0.1, 1), 0.3678794411714423),
        (ModifiedFlow(0.1, 2), 0.3499377491111553),
        (ModifiedFlow(0.1, 3), 0.3487732318877469),
    ],
)
def test_reference_values(rule, expected):
    state = _mode(rule).evaluate(1.0)
    assert float(state.gradient[0]) == pytest.approx(expected, rel=1e-14)
    assert float(state.loss) == pytest.approx(expected**2 / 2, rel=1e-13)


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 1.5, 2.0, 2.3, -0.4])
def test_descent_of_every_sharpness(sharpness):
    # Iterated by hand, with a minimum away from zero, a flat direction and one that is linear.
    matrix, slope, h = jnp.diag(jnp.asarray([sharpness / 0.5, 0.0, 0.0, 0.2])), jnp.asarray([0.3, 0.0, 0.7, -0.1]), 0.5
    start = jnp.asarray([1.0, 2.0, -0.5, 0.4])
    solution = QuadraticDescent.from_model(Point(start), Quadratic(matrix, slope), tx.GradientDescent(h))
    w = np.asarray(start)
    for k in range(7):
        state = solution.evaluate(k * h)
        reduced = solution.reduce(Point(jnp.asarray(w)))
        np.testing.assert_allclose(state.gradient, reduced.gradient, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(state.loss, reduced.loss, rtol=1e-11, atol=1e-13)
        w = w - h * (np.asarray(matrix) @ w - np.asarray(slope))


def test_time_per_step():
    solution = _mode(tx.GradientDescent(0.1, time_per_step=1.0))
    assert float(solution.evaluate(10.0).gradient[0]) == pytest.approx(0.3486784401, rel=1e-14)
    assert float(tx.residual(solution, [0.5, 3.0]).worst) < 1e-14


@pytest.mark.slow
def test_threshold_is_where_training_grows():
    matrix = jnp.asarray([[2.0, 0.6], [0.6, 1.0]])
    task, model = Quadratic(matrix, jnp.zeros(2)), Point(jnp.asarray([1.0, 0.3]))
    threshold = QuadraticDescent.from_model(model, task, tx.GradientDescent(0.1)).threshold

    def growth(rate):
        run = tx.train(model, task, tx.GradientDescent(rate, time_per_step=1.0), [100.0, 101.0])
        return run.observed[1] / run.observed[0]

    below, above = jax.jit(jax.vmap(growth))(threshold * jnp.asarray([1 - 1e-6, 1 + 1e-6]))
    assert float(below) < 1 < float(above)
    assert float(threshold) == pytest.approx(2 / np.linalg.eigvalsh(matrix)[-1], rel=1e-14)
    assert _mode(tx.GradientDescent(0.1), -1.0).threshold == jnp.inf


def test_limit():
    state = _mode(tx.GradientDescent(1.5), start=2.0).limit()
    assert float(state.gradient[0]) == 0.0 and float(state.loss) == pytest.approx(0.0, abs=1e-15)
    assert float(_mode(tx.GradientDescent(1.0)).limit().loss) == 0.0
    # Flows of odd and even order never alternate.
    assert float(_mode(ModifiedFlow(1.9, 2)).limit().gradient[0]) == 0.0
    for rule, curvature in ((tx.GradientDescent(2.0), 1.0), (tx.GradientDescent(0.1), -1.0)):
        with pytest.raises(ValueError, match="QuadraticDescent has no limit"):
            _mode(rule, curvature).limit()


def test_alternating_modes_obey_no_real_equation():
    solution = _mode(tx.GradientDescent(1.5))
    with pytest.raises(ValueError, match="`learning_rate` must be below 1 / curvature"):
        solution.vector_field(jnp.asarray(0.0), solution.initial)


@pytest.mark.slow
def test_learning_rate_as_a_mapped_axis_and_its_gradient():
    def final(h):
        return _mode(tx.GradientDescent(h, time_per_step=1.0)).evaluate(3.0).gradient[0]

    rates = jnp.asarray([0.2, 0.9, 1.6])
    np.testing.assert_allclose(jax.jit(jax.vmap(final))(rates), (1 - rates) ** 3, rtol=1e-13)
    np.testing.assert_allclose(jax.vmap(jax.grad(final))(rates), -3 * (1 - rates) ** 2, rtol=1e-12)


def test_refuses():
    point, task = Point(jnp.ones(1)), Quadratic(jnp.eye(1), jnp.zeros(1))
    with pytest.raises(ValueError, match=r"QuadraticDescent does not apply. quadratic loss: FAILS"):
        QuadraticDescent.from_model(MODEL, TASK, tx.GradientDescent(0.1))
    for rule in (
        None,
        tx.GradientFlow(),
        tx.GradientDescent(0.1, optax.adam),
        tx.GradientDescent(0.1, functools.partial(optax.sgd, momentum=0.5)),
        tx.GradientDescent(0.1, batch_size=2),
    ):
        with pytest.raises(ValueError, match=r"`rule` must be tx.GradientDescent with optax.sgd on the full loss"):
            QuadraticDescent.from_model(point, task, rule)
    unchecked = QuadraticDescent.from_model(MODEL, TASK, tx.GradientDescent(0.01), check=False)
    run = tx.train(MODEL, TASK, tx.GradientDescent(0.01), [0.01], observe=unchecked.reduce)
    assert float(tx.compare(unchecked, run).worst) < 0.05
