"""Langevin dynamics on quadratic losses: moments by matrix exponentials, stationary laws, steps, flat directions."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from toys import MODEL, TASK

import tractax as tx
from tractax.rules import LangevinFlow, OrnsteinUhlenbeck
from tractax.teacher_student import Point

HESSIAN = np.array([[1.2, 0.4], [0.4, 0.5]])
MINIMUM = np.array([0.7, -0.3])
START = np.array([-1.0, 0.8])


class Quadratic(tx.AbstractTask):
    """The loss ½ (w − w*)ᵀH(w − w*) + 1, with any H."""

    hessian: jax.Array
    minimum: jax.Array

    def loss(self, model):
        away = model.position - self.minimum
        return away @ self.hessian @ away / 2 + 1


def process(hessian=HESSIAN, temperature=0.2, weight_decay=0.0, step=None, start=START):
    task = Quadratic(jnp.asarray(hessian), jnp.asarray(MINIMUM))
    rule = LangevinFlow(temperature, weight_decay)
    return OrnsteinUhlenbeck.from_model(Point(jnp.asarray(start)), task, rule, step=step)


solve = eqx.filter_jit(process)
at = eqx.filter_jit(lambda solution, t: solution.evaluate(t))


def test_moments_by_matrix_exponentials():
    decay = 0.3
    solution, total = solve(weight_decay=decay), HESSIAN + decay * np.eye(2)
    minimum = np.linalg.solve(total, HESSIAN @ MINIMUM)
    np.testing.assert_allclose(solution.minimum, minimum, rtol=1e-12)
    stationary = 0.2 * np.linalg.inv(total)
    for t in (0.0, 0.8, 1e9):
        kept = scipy.linalg.expm(-total * t)
        mean = kept @ (START - minimum)
        covariance = stationary - kept @ stationary @ kept
        state = at(solution, t)
        np.testing.assert_allclose(state.mean, mean, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(state.covariance, covariance, rtol=1e-11, atol=1e-15)
        away = minimum + mean - MINIMUM
        loss = 1 + (away @ HESSIAN @ away + np.trace(HESSIAN @ covariance)) / 2
        assert float(state.loss) == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(solution.limit().second, stationary, rtol=1e-12)


@pytest.mark.slow
def test_steps_one_by_one():
    # Beyond 1/λ and near 2/λ of the steepest direction.
    step = 1.3
    solution = solve(step=step)
    mean, covariance, matrix = START - MINIMUM, np.zeros((2, 2)), np.eye(2) - step * HESSIAN
    for k in range(5):
        state = at(solution, k * step)
        np.testing.assert_allclose(state.mean, mean, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(state.covariance, covariance, rtol=1e-11, atol=1e-13)
        mean, covariance = matrix @ mean, matrix @ covariance @ matrix + 2 * 0.2 * step * np.eye(2)
    limit = np.asarray(solution.limit().second)
    balance = HESSIAN @ limit + limit @ HESSIAN - step * HESSIAN @ limit @ HESSIAN
    np.testing.assert_allclose(balance, 0.4 * np.eye(2), atol=1e-13)


@pytest.mark.slow
def test_residual_and_gradient_in_the_temperature():
    solution = solve(weight_decay=0.1)
    assert float(tx.residual(solution, [0.0, 1e-9, 0.5, 3.0, 40.0]).worst) < 1e-12
    slope = jax.grad(lambda x: process(temperature=x).evaluate(0.7).loss)(0.2)
    assert float(slope) == pytest.approx(
        float(at(solve(temperature=1.0), 0.7).loss - at(solve(temperature=0.0), 0.7).loss)
    )
    together = jax.vmap(lambda x: process(temperature=x).evaluate(0.7))(jnp.asarray([0.1, 0.4]))
    np.testing.assert_allclose(together.second[1], at(solve(temperature=0.4), 0.7).second, rtol=1e-12)


@pytest.mark.slow
def test_flat_and_unstable_directions():
    flat = solve(np.diag([1.0, 0.0]))
    state = at(flat, 1e6)
    # A flat direction diffuses freely, from where it started.
    np.testing.assert_allclose(np.diag(state.covariance), [0.2, 0.4e6], rtol=1e-12)
    assert float(state.mean[1]) == 0.0
    cold = solve(np.diag([1.0, 0.0]), temperature=0.0)
    np.testing.assert_allclose(cold.limit().second, 0.0)
    saddle = solve(np.diag([1.0, -0.5]))
    mean = (START - MINIMUM)[1] * np.exp(0.5 * 2.0)
    assert float(at(saddle, 2.0).mean[1]) == pytest.approx(mean, rel=1e-12)
    assert float(at(saddle, 2.0).covariance[1, 1]) == pytest.approx(0.4 * np.expm1(2.0), rel=1e-11)
    for solution in (flat, saddle, solve(step=2 / np.linalg.eigvalsh(HESSIAN)[1])):
        with pytest.raises(ValueError, match="OrnsteinUhlenbeck has no limit"):
            solution.limit()
    with pytest.raises(ValueError, match="Steps obey no differential equation"):
        tx.residual(solve(step=0.1), [1.0])


@pytest.mark.slow
def test_simulation_by_steps_and_float32():
    task, rule = Quadratic(jnp.asarray(HESSIAN), jnp.asarray(MINIMUM)), LangevinFlow(0.2, 0.1)
    model, step = Point(jnp.asarray(START)), 0.5
    solution = OrnsteinUhlenbeck.from_model(model, task, rule, step=step)
    euler = {"solver": diffrax.Euler(), "dt0": step, "stepsize_controller": diffrax.ConstantStepSize()}

    def run(key):
        return tx.train(model, task, rule, [1.0, 5.0], key=key, observe=solution.reduce, **euler).observed

    runs = tx.ensemble(run, jax.random.split(jax.random.key(3), 4000), reduce=tx.Mean())
    expected = jax.vmap(solution.evaluate)(jnp.asarray([1.0, 5.0]))
    for name in ("mean", "second", "loss"):
        found = getattr(runs, name)
        assert np.max(np.abs(found.mean - getattr(expected, name)) / found.standard_error) < 4.5
    single = jax.tree.map(lambda x: x.astype(jnp.float32), (model, task, rule))
    state = OrnsteinUhlenbeck.from_model(*single, step=step).evaluate(jnp.float32(1.0))
    assert state.second.dtype == jnp.float32
    np.testing.assert_allclose(state.second, expected.second[0], rtol=1e-5)


@pytest.mark.slow
def test_gibbs_law_of_a_double_well():
    # Not quadratic: only the rule, against the density e^{-L/T}.
    class Well(tx.AbstractTask):
        def loss(self, model):
            return jnp.sum((model.position**2 - 1) ** 2) / 4 + 0.1 * jnp.sum(model.position)

    heun = {"solver": diffrax.Heun(), "dt0": 0.05, "stepsize_controller": diffrax.ConstantStepSize()}

    def run(key):
        model = Point(jnp.zeros(1))
        return tx.train(model, Well(), LangevinFlow(0.3), [10.0], key=key, **heun).observed[0]

    losses = tx.ensemble(run, jax.random.split(jax.random.key(4), 2000), reduce=tx.Mean())
    x = np.linspace(-4, 4, 4001)
    energy = (x**2 - 1) ** 2 / 4 + 0.1 * x
    weight = np.exp(-energy / 0.3)
    assert abs(losses.mean - np.sum(weight * energy) / np.sum(weight)) < 4 * losses.standard_error + 2e-3


def test_refuses():
    task, model = Quadratic(jnp.asarray(HESSIAN), jnp.asarray(MINIMUM)), Point(jnp.asarray(START))
    for build, message in (
        (lambda: LangevinFlow(-0.1), "`temperature` must be non-negative; got -0.1"),
        (lambda: LangevinFlow(0.1, -1.0), "`weight_decay` must be non-negative"),
        (lambda: OrnsteinUhlenbeck.from_model(model, task), "`rule` must be tx.rules.LangevinFlow"),
        (lambda: tx.train(model, task, LangevinFlow(0.1), [1.0]), "`key` must be a JAX PRNG key"),
    ):
        with pytest.raises(ValueError, match=message):
            build()


@pytest.mark.slow
def test_refuses_what_is_not_quadratic():
    with pytest.raises(ValueError, match=r"OrnsteinUhlenbeck does not apply. quadratic loss: FAILS"):
        OrnsteinUhlenbeck.from_model(MODEL, TASK, LangevinFlow(0.1))
    with pytest.raises(ValueError, match="`step` must be positive"):
        process(step=0.0)

    class Tilted(tx.AbstractTask):
        def loss(self, model):
            return model.position[0] ** 2 / 2 + model.position[1]

    with pytest.raises(ValueError, match="a minimum exists: FAILS"):
        OrnsteinUhlenbeck.from_model(Point(jnp.asarray(START)), Tilted(), LangevinFlow(0.1))
