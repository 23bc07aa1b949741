"""The largest Lyapunov exponent of training: known cases, curl descent, refusals."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tractax as tx
from tractax.rules import CoupledFlow, CurlDescent
from tractax.teacher_student import Point, PotentialTask, QuadraticTask, TwoLayerLinear, VectorTask


def test_quadratic_loss_contracts_at_its_least_curvature():
    hessian, key = jnp.asarray([[2.0, 0.5], [0.5, 1.0]]), jax.random.key(2)
    model, task, rule = Point(jnp.ones(2)), QuadraticTask(hessian), tx.GradientFlow()
    exponent = jax.jit(lambda t: tx.analysis.lyapunov_exponent(model, task, rule, t, key=key))
    slowest = float(jnp.linalg.eigvalsh(hessian)[0])
    # What it takes to turn to the slowest direction is a constant, divided by the time.
    first, second = (float(exponent(t)) for t in (20.0, 40.0))
    assert 2 * second - first == pytest.approx(-slowest, rel=1e-6)


@pytest.mark.slow
def test_a_driven_state_may_be_chaotic():
    class Lorenz(tx.core.AbstractFlowRule):
        def init(self, params):
            return params

        def params(self, state):
            return state

        def terms(self, state, t0, t1, *, key):
            def field(t, point, objective):
                x, y, z = point.position
                return Point(jnp.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 * z / 3]))

            return diffrax.ODETerm(field)

    start, task = Point(jnp.ones(3)), PotentialTask(jnp.sum)
    found = tx.analysis.lyapunov_exponent(start, task, Lorenz(), 200.0, key=jax.random.key(0))
    assert float(found) == pytest.approx(0.906, abs=0.06)


@pytest.mark.slow
@pytest.mark.parametrize("flipped", [0, 2, 4])
def test_curl_descent_of_one_output_is_not_chaotic(flipped):
    draw = np.random.default_rng(flipped)
    model = TwoLayerLinear(draw.normal(size=(4, 6)) / 6**0.5, draw.normal(size=4) / 2)
    task = VectorTask(draw.normal(size=6) / 6**0.5)
    rule = CurlDescent((np.where(np.arange(4) < flipped, -1.0, 1.0), np.ones(4)))
    short, long = (
        float(tx.analysis.lyapunov_exponent(model, task, rule, t, key=jax.random.key(1))) for t in (100.0, 1000.0)
    )
    assert abs(long) < 0.01 and abs(long) < 0.5 * max(abs(short), 0.005)


def test_refusals():
    start, task = Point(jnp.ones((2, 2))), QuadraticTask(jnp.eye(2))
    for rule, t1, message in (
        (tx.GradientFlow(), 0.0, "`t1` must be positive"),
        (tx.GradientDescent(0.1), 1.0, "`rule` must be a flow rule"),
        (CoupledFlow(jnp.zeros((2, 2)), 1.0, 0.5), 1.0, "one ordinary differential"),
    ):
        with pytest.raises(ValueError, match=message):
            tx.analysis.lyapunov_exponent(start, task, rule, t1, key=jax.random.key(0))
