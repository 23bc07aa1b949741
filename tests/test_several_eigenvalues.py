"""Several eigenvalues at the edge: the complementarity problem, independent valleys, a rotation, a coupled valley."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import tractax as tx
from tractax.rules import CentralFlow, SharpeningValley, SharpeningValleyFlow, ValleyPoint
from tractax.rules.edge._holding_covariance import holding_covariance
from tractax.rules.edge._sharpness import leading_eigenpairs

ETA = 0.1
FIRST, SECOND = SharpeningValley(0.01, 0.004, 3.0), SharpeningValley(0.02, 0.003, 1.0)
TURN = np.linalg.qr(np.random.default_rng(3).normal(size=(6, 6)))[0]


class Turned(eqx.Module):
    """Six numbers, which are those of two valleys in other coordinates."""

    numbers: jax.Array


class Pair(tx.AbstractTask):
    def loss(self, model):
        (x, y, z), (u, v, w) = jnp.split(model.numbers @ TURN, 2)
        return sum(
            s * x**2 / 2 - task.slope * y + task.stiffness * (z - task.centre) ** 2 / 2
            for task, x, y, z, s in ((FIRST, x, y, z, y + z**2), (SECOND, u, v, w, v + w**2))
        )


class Shared(tx.AbstractTask):
    """The loss of x, p and z, in this order, whose Hessian in x has entries that share z."""

    slopes: jax.Array

    def loss(self, model):
        x, p, z = model.numbers[:2], model.numbers[2:5], model.numbers[5]
        quadratic = (p[0] + z**2) * x[0] ** 2 + 2 * p[1] * x[0] * x[1] + (p[2] + z) * x[1] ** 2
        return quadratic / 2 - self.slopes @ p + 0.002 * (z - 3.0) ** 2


SHARED = Turned(jnp.asarray([0.0, 0.0, 19.96, 0.0, 19.8, 0.2]))


def problems(size, number):
    """Growths and resistances whose solution is known."""
    generator = np.random.default_rng(size)
    for i in range(number):
        steepening = generator.normal(size=(size, size, size * (size + 1) // 2 + 1))
        steepening = steepening + steepening.transpose(1, 0, 2)
        resistance = np.tensordot(steepening, steepening, (2, 2)) / 2
        basis, rank = np.linalg.qr(generator.normal(size=(size, size)))[0], i % (size + 1)
        values = 10 ** generator.uniform(-2, 1, size)
        covariance = basis[:, :rank] * values[:rank] @ basis[:, :rank].T
        slack = basis[:, rank:] * values[rank:] @ basis[:, rank:].T
        yield covariance, np.tensordot(resistance, covariance, 2) - slack, resistance


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_complementarity(size):
    solve = jax.jit(holding_covariance)
    for covariance, growth, resistance in problems(size, 12):
        found = np.asarray(solve(growth, resistance))
        np.testing.assert_allclose(found, covariance, atol=1e-7 * (1 + np.max(np.abs(covariance))))
        single = solve(growth.astype(np.float32), resistance.astype(np.float32))
        assert single.dtype == jnp.float32
        np.testing.assert_allclose(single, covariance, atol=2e-2 * (1 + np.max(np.abs(covariance))))
    zero = np.zeros((size, size))
    # Nothing grows; nothing resists; nothing at all.
    for growth, resists in ((-np.eye(size), resistance), (np.eye(size), 0 * resistance), (zero, resistance)):
        np.testing.assert_array_equal(solve(growth, resists), zero)


@pytest.mark.slow
def test_derivatives_of_the_covariance():
    for _, growth, resistance in problems(2, 3):

        def summary(x, growth=growth, resistance=resistance):
            growth = growth + x * jnp.asarray([[0.3, -0.1], [-0.1, 0.2]])
            return jnp.sum(
                holding_covariance(growth, jnp.asarray(resistance) * (1 + x)) * jnp.asarray([[1.0, 0.4], [0.4, -0.7]])
            )

        slope = (summary(1e-5) - summary(-1e-5)) / 2e-5
        assert float(jax.jit(jax.grad(summary))(0.0)) == pytest.approx(float(slope), rel=1e-5, abs=1e-8)


def test_eigenvectors_of_repeated_eigenvalues():
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(40, 40)))[0]
    values = np.concatenate([[5.0, 5.0, 4.9], np.linspace(-4, 2, 37)])
    matrix = jnp.asarray(turn * values @ turn.T)
    found, vectors = jax.jit(lambda m: leading_eigenpairs(lambda v: m @ v, m[0], 3, 36))(matrix)
    np.testing.assert_allclose(found, values[:3], rtol=1e-8)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(matrix @ vectors.T, vectors.T * found[None, :], atol=1e-4)


@eqx.filter_jit
def velocity(rule, model, task):
    params, static = eqx.partition(model, eqx.is_inexact_array)
    return ravel_pytree(rule.vector_field(0.0, params, tx.Objective(task, static)))[0]


def test_independent_valleys_in_any_coordinates():
    # At the edge, on the way to it and beyond.
    for y, v in ((20 - 1.0, 20 - 0.25), (20 - 1.0, 17.0), (19.5, 19.7), (18.0, 12.0)):
        first, second = ValleyPoint(0.0, y, 1.0), ValleyPoint(0.0, v, 0.5)
        expected = [velocity(CentralFlow(ETA), *valley) for valley in ((first, FIRST), (second, SECOND))]
        numbers = np.concatenate([ravel_pytree(first)[0], ravel_pytree(second)[0]])
        found = velocity(CentralFlow(ETA, eigenvalues=2), Turned(jnp.asarray(TURN @ numbers)), Pair())
        np.testing.assert_allclose(found @ TURN, np.concatenate(expected), atol=1e-7)


def test_shared_parameters_at_rest():
    a, b, c = (0.01, 0.004, 0.006), 0.004, 3.0
    z = (b * c - a[2]) / (b + 2 * a[0])
    rest, task = Turned(jnp.asarray([0.0, 0.0, 20 - z**2, 0.0, 20 - z, z])), Shared(jnp.asarray(a))
    rule = CentralFlow(ETA, eigenvalues=2)
    np.testing.assert_allclose(velocity(rule, rest, task), np.zeros(6), atol=1e-8)
    found = eqx.filter_jit(rule.oscillation)(rest, task)
    expected = np.asarray([[2 * a[0], a[1]], [a[1], 2 * a[2]]])
    np.testing.assert_allclose(jnp.linalg.eigvalsh(found.covariance), np.linalg.eigvalsh(expected), rtol=1e-7)
    np.testing.assert_allclose(found.curvatures, [20.0, 20.0], rtol=1e-12)
    assert float(found.variance) == pytest.approx(np.trace(expected), rel=1e-7)
    assert float(found.loss) == pytest.approx(float(task.loss(rest)) + 10 * np.trace(expected), rel=1e-7)


@pytest.mark.slow
def test_valleys_stay_on_their_closed_forms():
    points = ValleyPoint(0.0, 20 - 1.0, 1.0), ValleyPoint(0.0, 20 - 0.01, 0.1)
    start = Turned(jnp.asarray(TURN @ np.concatenate([ravel_pytree(point)[0] for point in points])))
    ts = jnp.asarray([10.0, 40.0])
    run = tx.train(start, Pair(), CentralFlow(ETA, eigenvalues=2), ts, observe=lambda m: m.numbers @ TURN)
    for i, (point, task) in enumerate(zip(points, (FIRST, SECOND), strict=True)):
        solution = SharpeningValleyFlow.from_model(point, task, CentralFlow(ETA))
        theory = jax.vmap(solution.evaluate)(ts)
        np.testing.assert_allclose(run.observed[:, 3 * i + 1], theory.y, rtol=1e-5)
        np.testing.assert_allclose(run.observed[:, 3 * i + 2], theory.z, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("slopes", "followed"), [((0.01, 0.004, 0.006), 2), ((0.01, 0.02, 0.006), 3)])
def test_descent_on_average(slopes, followed):
    """Two eigenvalues at the edge, or one of them pushed away by the other."""
    task, steps = Shared(jnp.asarray(slopes)), jnp.asarray([2000.0, 5000.0])
    flow = tx.train(SHARED, task, CentralFlow(ETA, eigenvalues=followed), ETA * steps, observe=lambda m: m.numbers)
    shaken = Turned(SHARED.numbers.at[:2].set(jnp.asarray([0.1, 0.07])))
    ts = ETA * jnp.arange(6001.0)
    descent = tx.train(shaken, task, tx.GradientDescent(ETA), ts, observe=lambda m: m.numbers)
    gradient_flow = tx.train(SHARED, task, tx.GradientFlow(), ETA * steps, observe=lambda m: m.numbers)
    for i, step in enumerate((2000, 5000)):
        mean = jnp.mean(descent.observed[step - 1000 : step + 1000, 2:], axis=0)
        error = jnp.linalg.norm(flow.observed[i, 2:] - mean)
        assert float(error) < 0.01 * float(jnp.linalg.norm(gradient_flow.observed[i, 2:] - mean))


def test_refusals():
    for number in (0, 1.5, True):
        with pytest.raises(ValueError, match="`eigenvalues` must be a whole number of at least 1"):
            CentralFlow(ETA, eigenvalues=number)
