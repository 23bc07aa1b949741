"""Which method `train` takes when none is named."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tractax as tx
from tractax.deep_linear import LinearTask, gaussian

CONTROLLER = diffrax.PIDController(rtol=1e-6, atol=1e-9)
MODEL = gaussian((6, 4, 3), scale=0.3, key=jax.random.key(0))
TS = jnp.asarray([0.0, 0.5, 20.0, 150.0])


def spectrum(condition):
    """A regression whose inputs have variances from 20 downwards."""
    variances = jnp.geomspace(20.0, 20.0 / condition, 6)
    return LinearTask(jnp.diag(variances)[:3], jnp.diag(variances))


def run(task, **options):
    return tx.train(MODEL, task, tx.GradientFlow(), TS, stepsize_controller=CONTROLLER, **options)


def test_hands_a_stiff_flow_over():
    task = spectrum(1e3)
    chosen, tsit5 = run(task), run(task, solver=diffrax.Tsit5())
    assert chosen.stats["methods"] == tx.solvers.METHODS.both
    assert 2 < chosen.stats["stiffness"] < 5
    assert chosen.stats["num_steps"] < 0.3 * tsit5.stats["num_steps"]
    # Of all legs: six for each accepted step of Tsit5, more for the others.
    assert chosen.stats["num_gradients"] > 6 * (chosen.stats["num_accepted_steps"] - chosen.stats["num_steps_stabilised"])
    # What was recorded before and after the change of method, and the last network.
    np.testing.assert_allclose(chosen.observed, tsit5.observed, rtol=1e-4)
    for a, b in zip(chosen.model.weights, tsit5.model.weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_stays_where_accuracy_limits_the_steps():
    # More steps than the first budgets, none of them long for the curvature.
    task = LinearTask(jnp.diag(jnp.asarray([1.0, 0.3, 0.1])) @ jnp.eye(3, 6))
    tight = diffrax.PIDController(rtol=1e-12, atol=1e-14)
    options = {"stepsize_controller": tight, "observe": lambda model: model.product}
    chosen = tx.train(MODEL, task, tx.GradientFlow(), TS[:3], **options)
    tsit5 = tx.train(MODEL, task, tx.GradientFlow(), TS[:3], solver=diffrax.Tsit5(), **options)
    assert chosen.stats["methods"] == tx.solvers.METHODS.tsit5
    assert 0 < chosen.stats["stiffness"] < 2
    assert chosen.stats["num_steps"] == pytest.approx(int(tsit5.stats["num_steps"]), abs=3)
    np.testing.assert_allclose(chosen.observed, tsit5.observed, rtol=1e-9, atol=1e-11)


def test_tsit5_where_nothing_can_be_looked_at():
    chosen = eqx.filter_jit(run)(spectrum(1e3))
    assert "methods" not in chosen.stats
    np.testing.assert_array_equal(
        chosen.stats["num_steps"], run(spectrum(1e3), solver=diffrax.Tsit5()).stats["num_steps"]
    )


@pytest.mark.parametrize("max_steps", [pytest.param(100, marks=pytest.mark.slow), 300])
def test_number_of_steps_is_bounded(max_steps):
    # Within the first leg, and after it.
    task = LinearTask(jnp.eye(3, 6))
    options = {"max_steps": max_steps, "stepsize_controller": diffrax.PIDController(rtol=1e-13, atol=1e-15)}
    failed = tx.train(MODEL, task, tx.GradientFlow(), TS, throw=False, **options)
    assert failed.result == tx.RESULTS.max_steps_reached
    assert failed.stats["num_steps"] == max_steps
    assert np.isfinite(failed.observed[0]) and np.isinf(failed.observed[-1])
    with pytest.raises(Exception, match="max_steps"):
        tx.train(MODEL, task, tx.GradientFlow(), TS, **options)
