"""The solver that chooses between Tsit5 and a stabilised method."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stiff_flows import gradient_flow, layers, solve

import tractax as tx
from tractax.solvers import METHODS, RKC2, Automatic


@pytest.mark.slow
def test_without_stiffness_it_is_tsit5():
    weights, target = layers(jax.random.key(1), 6, 2)
    args = (jnp.ones(6), target)
    saveat = diffrax.SaveAt(ts=jnp.linspace(0, 3, 7), solver_state=True)
    both = [
        solve(s, gradient_flow, weights, 3.0, args, 1e-8, 1e-10, saveat=saveat) for s in (Automatic(), diffrax.Tsit5())
    ]
    for a, b in zip(*(jax.tree.leaves(solution.ys) for solution in both), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
    assert both[0].stats == both[1].stats
    stats = Automatic().statistics(both[0].solver_state)
    assert stats["methods"] == METHODS.tsit5
    assert int(stats["num_gradients"]) == 6 * int(both[0].stats["num_accepted_steps"]) + 1
    assert int(stats["num_products"]) == 0


@pytest.mark.slow
def test_hands_over_and_takes_back():
    # Stiff, with a rest between t = 1 and t = 2; the solution is a cosine throughout.
    def field(t, y, args):
        stiffness = jnp.where((t > 1) & (t < 2), 1.0, 3000.0)
        return -stiffness * (y - jnp.cos(t)) - jnp.sin(t)

    def run(solver, t1):
        pid = diffrax.PIDController(rtol=1e-5, atol=1e-7)
        controller = diffrax.ClipStepSizeController(pid, jump_ts=jnp.asarray([1.0, 2.0]))
        saveat = diffrax.SaveAt(t1=True, solver_state=True)
        options = {"stepsize_controller": controller, "saveat": saveat, "max_steps": 5000}
        return solve(solver, field, jnp.asarray([1.5]), t1, **options)

    solver = Automatic(RKC2())
    after = [solver.statistics(run(solver, t1).solver_state) for t1 in (1.0, 2.0, 3.0)]
    steps = [int(stats["num_steps_stabilised"]) for stats in after]
    assert steps[0] > 20
    assert steps[1] - steps[0] <= 5
    assert steps[2] - steps[1] > 20
    assert after[2]["methods"] == METHODS.both
    final = run(solver, 3.0)
    np.testing.assert_allclose(final.ys, np.cos([[3.0]]), atol=1e-6)
    assert int(after[2]["num_gradients"]) < 6 * int(run(diffrax.Tsit5(), 3.0).stats["num_steps"]) / 4


@pytest.mark.slow
def test_without_patience_it_hands_over_at_once():
    # The stiff mode has settled, and is so small beside the slow one that Tsit5's stages hardly show it.
    def steps(solver):
        saveat = diffrax.SaveAt(t1=True, solver_state=True)
        options = {"rtol": 1e-8, "atol": 1e-11, "saveat": saveat, "max_steps": 10_000, "dt0": 3e-3}
        start = jnp.asarray([1e-9, 1.0])
        solution = solve(solver, lambda t, y, args: -jnp.asarray([1e3, 1.0]) * y, start, 20.0, **options)
        np.testing.assert_allclose(solution.ys[0, 1], np.exp(-20.0), rtol=1e-3)
        return int(solution.stats["num_steps"]), int(solver.statistics(solution.solver_state)["num_steps_stabilised"])

    count, stabilised_count = steps(Automatic(patience=0))
    assert count < 1.1 * stabilised_count < 0.3 * steps(Automatic())[0]


def test_batch_computes_what_its_members_need():
    calls = []

    def field(t, y, args):
        jax.debug.callback(lambda: calls.append(1))
        return -args * (y - jnp.cos(t))

    def gradients(stiffness):
        saveat = diffrax.SaveAt(t1=True, solver_state=True)
        solution = solve(Automatic(), field, jnp.ones(1), 1.0, stiffness, saveat=saveat, dt0=0.01)
        return solver.statistics(solution.solver_state)["num_gradients"], solution.stats["num_steps"]

    solver = Automatic()
    _, steps = jax.vmap(gradients)(jnp.asarray([1.0, 5.0]))
    jax.effects_barrier()
    # Evaluations of the whole batch: Tsit5 until the slower member is done, and never the stabilised method.
    assert len(calls) == 6 * int(jnp.max(steps)) + 1


def test_train_reports_and_passes_solvers_on():
    # Two modes, one of them a thousand times slower.
    covariance = jnp.diag(jnp.asarray([100.0, 0.1]))
    task = tx.deep_linear.LinearTask(covariance, covariance)
    model = tx.deep_linear.gaussian((2, 2, 2), scale=0.5, key=jax.random.key(0))
    trajectory = tx.train(model, task, tx.GradientFlow(), [100.0], solver=Automatic())
    assert trajectory.stats["methods"] == METHODS.both
    assert float(task.loss(trajectory.model)) < 1e-3
    tsit5 = tx.train(model, task, tx.GradientFlow(), [100.0], solver=diffrax.Tsit5())
    assert "methods" not in tsit5.stats
    assert int(trajectory.stats["num_gradients"]) < 6 * int(tsit5.stats["num_steps"]) / 2
    np.testing.assert_allclose(trajectory.model.product, tsit5.model.product, atol=1e-7)
