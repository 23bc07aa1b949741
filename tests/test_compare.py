"""Distances between functions of time, and the residual of a differential equation."""

from typing import ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tractax as tx
from tractax.core import AbstractSolution, Kind, Trajectory
from tractax.deep_linear import LinearTask, TwoLayerModes, aligned


class Decay(AbstractSolution):
    """x exp(-rate t)."""

    start: jax.Array
    rate: jax.Array
    kind: ClassVar[Kind] = "exact"

    def state(self, t):
        return {"x": self.start * jnp.exp(-self.rate * t)}

    def reduce(self, model):
        return {"x": model}

    def vector_field(self, t, state):
        return {"x": -self.rate * state["x"]}


def decay(rate=1.0, start=(3.0, 4.0), dtype=jnp.float64):
    return Decay(jnp.asarray(start, dtype), jnp.asarray(rate, dtype))


def recorded(ts, observed):
    return Trajectory(jnp.asarray(ts), observed, None, {}, tx.RESULTS.successful)


def test_numbers_by_hand():
    found = tx.compare(decay(1.0), decay(2.0), [0.0, 1.0, 2.0])
    expected = 5 * np.abs(np.exp(-np.arange(3.0)) - np.exp(-2 * np.arange(3.0)))
    np.testing.assert_allclose(found.absolute["x"], expected, rtol=1e-14)
    # Relative to the largest norm, 5 at t = 0, so that late small values do not count as large errors.
    np.testing.assert_allclose(found.relative["x"], expected / 5, rtol=1e-14)
    assert float(found.worst) == pytest.approx(max(expected) / 5)
    assert float(tx.compare(decay(), decay(), [0.0, 5.0]).worst) == 0.0


def test_zero_against_zero_is_no_error():
    zero = decay(start=(0.0, 0.0))
    assert float(tx.compare(zero, zero, [0.0, 1.0]).worst) == 0.0


def test_nan_is_seen():
    assert jnp.isnan(tx.compare(decay(), decay(jnp.nan), [0.0, 1.0]).worst)


def test_trajectories_at_different_times():
    square = recorded([0.0, 1.0, 3.0], {"x": jnp.asarray([[0.0], [1.0], [9.0]])})
    line = recorded([0.0, 2.0], {"x": jnp.asarray([[0.0], [2.0]])})
    # The second one sets the times; the first is interpolated, 5 at t = 2.
    np.testing.assert_allclose(tx.compare(square, line).absolute["x"], [0.0, 3.0])
    np.testing.assert_allclose(tx.compare(square, line, [0.5, 1.0]).absolute["x"], [0.0, 0.0], atol=1e-15)
    with pytest.raises(ValueError, match="between the first and the last time that the trajectory recorded"):
        tx.compare(line, square)
    with pytest.raises(ValueError, match="between the first and the last time"):
        tx.compare(decay(), line, [1.0, 2.5])


def test_what_an_event_left_out_is_infinite_and_spoils_nothing():
    ts = [0.0, 1.0, 2.0]
    x = jax.vmap(lambda t: decay().state(t)["x"])(jnp.asarray(ts)).at[2].set(jnp.inf)
    found = tx.compare(decay(), recorded(ts, {"x": x}))
    np.testing.assert_allclose(found.relative["x"], [0.0, 0.0, jnp.inf], atol=1e-15)
    assert found.worst == jnp.inf


def test_float32_trajectory_at_given_times():
    trajectory = recorded(jnp.asarray([0.0, 1.0], jnp.float32), {"x": jnp.ones((2, 2), jnp.float32)})
    assert (
        float(tx.compare(decay(0.0, (1.0, 1.0), jnp.float32), trajectory, jnp.asarray([0.0, 0.5], jnp.float32)).worst)
        == 0.0
    )


def test_any_path_of_diffrax_compares():
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: -y),
        diffrax.Tsit5(),
        t0=0.0,
        t1=2.0,
        dt0=None,
        y0=jnp.asarray([3.0, 4.0]),
        saveat=diffrax.SaveAt(dense=True),
        stepsize_controller=diffrax.PIDController(rtol=1e-9, atol=1e-9),
    )

    class Bare(diffrax.AbstractPath):
        t0: ClassVar[float] = 0.0
        t1: ClassVar[float] = jnp.inf

        def evaluate(self, t0, t1=None, left=True):
            return decay().evaluate(t0)["x"]

    assert float(tx.compare(Bare(), solution, jnp.linspace(0, 2, 9)).worst) < 1e-7


def test_compare_under_vmap():
    ts = jnp.asarray([0.0, 1.0])
    errors = jax.vmap(lambda rate: tx.compare(decay(), Decay(jnp.asarray([3.0, 4.0]), rate), ts).worst)(jnp.ones(2))
    np.testing.assert_array_equal(errors, [0.0, 0.0])


def test_refuses():
    with pytest.raises(ValueError, match="`ts` must be given"):
        tx.compare(decay(), decay())
    with pytest.raises(ValueError, match="`ts` must be non-negative"):
        tx.compare(decay(), decay(), [-1.0, 1.0])
    with pytest.raises(ValueError, match=r"same structure.*observe=solution\.reduce"):
        tx.compare(decay(), recorded([0.0, 1.0], jnp.ones((2, 2))))
    with pytest.raises(ValueError, match=r"same shapes; got \(2, 2\) and \(2, 3\)"):
        tx.compare(decay(), recorded([0.0, 1.0], {"x": jnp.ones((2, 3))}))
    with pytest.raises(ValueError, match="they have none"):
        tx.compare(recorded([0.0, 1.0], {}), recorded([0.0, 1.0], {}))


def test_residual_sees_a_wrong_equation():
    assert float(tx.residual(decay(), [0.0, 1.0, 30.0]).worst) < 1e-15

    def twice(t, state):
        return {"x": -2 * state["x"]}

    # ẋ = -x against -2x: half of the largest side.
    assert float(tx.residual(decay(), [0.0, 1.0], vector_field=twice).worst) == pytest.approx(0.5)


def test_residual_of_a_perturbed_solution():
    task = LinearTask(jnp.diag(jnp.asarray([2.0, 1.0])))
    solution = TwoLayerModes.from_model(aligned(task, (2,), strength=0.1), task)
    ts = jnp.linspace(0, 3, 7)
    assert float(tx.residual(solution, ts).worst) < 1e-13
    wrong = eqx.tree_at(lambda s: s.input_variances, solution, jnp.asarray([1.0, 1.001]))
    assert float(tx.residual(solution, ts, vector_field=wrong.vector_field).worst) > 1e-4


def test_evaluate_and_its_refusals():
    np.testing.assert_allclose(decay().evaluate(1)["x"], np.asarray([3.0, 4.0]) * np.exp(-1), rtol=1e-15)
    assert jnp.all(decay().evaluate(jnp.inf)["x"] == 0)
    with pytest.raises(ValueError, match="t >= 0; got -1"):
        decay().evaluate(-1.0)
    with pytest.raises(ValueError, match="t >= 0; got nan"):
        decay().evaluate(jnp.nan)
    with pytest.raises(ValueError, match=r"one time, a scalar; got shape \(2,\). Use jax.vmap"):
        decay().evaluate(jnp.ones(2))
    with pytest.raises(ValueError, match="Decay has no closed form for t → ∞"):
        decay().limit()
    with pytest.raises(Exception, match="must be a time"):
        jax.block_until_ready(jax.vmap(lambda t: decay().evaluate(t)["x"])(jnp.asarray([1.0, -1.0])))
