"""Stabilised explicit solvers: order, stability, cost, derivatives, and everything diffrax asks of a solver."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import pytest
from jax.flatten_util import ravel_pytree
from scipy.integrate import solve_ivp
from stiff_flows import TERM, gradient_flow, layers, rates, solve

from tractax.solvers import RKC2, RKC4, Automatic


def _name(solver):
    return type(solver).__name__


# What RKC4 does, the others share; their compilation takes most of the time.
slow = pytest.mark.slow
stabilised = pytest.mark.parametrize("solver", [RKC4(), pytest.param(RKC2(), marks=slow)], ids=_name)
every_solver = pytest.mark.parametrize(
    "solver", [RKC4(), pytest.param(RKC2(), marks=slow), pytest.param(Automatic(), marks=slow)], ids=_name
)


def advance_all(solver, field, y0, h):
    """One step with every method of a solver: states, vector fields and errors with a leading axis over methods."""
    choices = jnp.arange(len(solver.stages), dtype=jnp.int32)
    f0 = field(jnp.asarray(0.0), y0)
    return jax.vmap(lambda choice: solver.advance(choice, jnp.asarray(True), field, y0, f0, h))(choices)


# Order and stability of single steps.


@stabilised
def test_order(solver):
    # Not autonomous, not linear: all order conditions, and the abscissae, count.
    def field(x, y):
        t = 0.3 + x * h
        return jnp.stack([jnp.cos(3 * t) * y[1], jnp.sin(y[0]) - t * y[1] ** 2])

    def python_field(t, y):
        return [np.cos(3 * t) * y[1], np.sin(y[0]) - t * y[1] ** 2]

    y0 = jnp.asarray([0.7, -1.1])
    errors, estimates, ends = [], [], []
    steps = [0.2, 0.1, 0.05, 0.025]
    for h in steps:
        exact = solve_ivp(python_field, (0.3, 0.3 + h), y0, method="DOP853", rtol=1e-13, atol=1e-14).y[:, -1]
        y1, f1, estimate = advance_all(solver, field, y0, jnp.asarray(h))
        errors.append(np.linalg.norm(y1 - exact[None, :], axis=1))
        estimates.append(np.linalg.norm(estimate, axis=1))
        ends.append(np.abs(f1 - jax.vmap(lambda y: field(jnp.asarray(1.0), y))(y1)).max())
    local_order = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    np.testing.assert_allclose(local_order, solver.order(TERM) + 1, atol=0.2)
    np.testing.assert_allclose(np.polyfit(np.log(steps), np.log(estimates), 1)[0], solver.error_order(TERM), atol=0.2)
    assert max(ends) < 1e-12


@stabilised
def test_stability_interval(solver):
    # R(z) for all methods (rows) at once, from independent scalar problems y' = z y.
    fraction = jnp.linspace(0.0, 1.5, 400)
    intervals = jnp.asarray(solver.intervals)

    def amplification(choice):
        z = -intervals[choice] * fraction
        one = jnp.ones_like(z)
        return solver.advance(choice, jnp.asarray(True), lambda x, y: z * y, one, z, jnp.asarray(1.0))[0]

    growth = np.abs(jax.vmap(amplification)(jnp.arange(len(intervals), dtype=jnp.int32)))
    assert np.all(growth[:, fraction <= 1.0] < 1 + 1e-10)
    # Damped inside, unstable outside.
    inside = (fraction > 0.5) & (fraction < 0.95)
    assert np.all(growth[:, inside] < 0.99)
    # An odd number of stages reaches further than claimed.
    even = solver.stages % 2 == 0
    bounded = growth <= 1.05
    assert not np.any(bounded[even][:, fraction >= 1.1])
    assert not np.any(bounded[:, -1])


@stabilised
def test_cost_grows_like_the_root_of_stiffness(solver):
    ratio = solver.intervals / solver.stages.astype(float) ** 2
    assert np.all(np.diff(solver.stages) > 0)
    assert ratio[solver.stages >= 10].min() > 0.3


# Whole solutions.


@pytest.mark.slow
@stabilised
def test_stiff_gradient_flow(solver):
    weights, target = layers(jax.random.key(0), 8, 2)
    args = (rates(100.0, 8), target)
    saveat = diffrax.SaveAt(t1=True, solver_state=True)
    solution = solve(solver, gradient_flow, weights, 6.0, args, saveat=saveat)
    reference = solve(diffrax.Tsit5(), gradient_flow, weights, 6.0, args, rtol=1e-9, atol=1e-12, max_steps=20000)
    error = optimistix.rms_norm(jax.tree.map(jnp.subtract, solution.ys, reference.ys))
    assert error < 1e-4
    stats = solver.statistics(solution.solver_state)
    work = int(stats["num_gradients"]) + 2 * int(stats["num_products"])
    assert work < 6 * int(reference.stats["num_steps"]) / 5
    # The largest curvature, against a dense Jacobian.
    flat, unravel = ravel_pytree(jax.tree.map(lambda w: w[0], solution.ys))
    hessian = jax.jacfwd(lambda y: ravel_pytree(gradient_flow(0.0, unravel(y), args))[0])(flat)
    assert float(stats["spectral_radius"]) == pytest.approx(float(-jnp.linalg.eigvalsh(hessian)[0]), rel=0.1)


@stabilised
def test_counts(solver):
    counts = {"gradients": 0, "products": 0}

    def count(name):
        counts[name] += 1

    @jax.custom_jvp
    def decay(y):
        jax.debug.callback(lambda: count("gradients"))
        return -1000 * (y - y**2)

    @decay.defjvp
    def _(primals, tangents):
        jax.debug.callback(lambda: count("products"))
        return jax.jvp(lambda y: -1000 * (y - y**2), primals, tangents)

    # Nothing is rejected: the work of rejected steps is not counted.
    options = {"saveat": diffrax.SaveAt(t1=True, solver_state=True), "dt0": 0.05}
    constant = diffrax.ConstantStepSize()
    solution = solve(
        solver, lambda t, y, args: decay(y), jnp.asarray([0.5]), 1.0, stepsize_controller=constant, **options
    )
    jax.effects_barrier()
    assert solution.stats["num_rejected_steps"] == 0
    stats = solver.statistics(solution.solver_state)
    assert int(stats["num_gradients"]) == counts["gradients"]
    assert int(stats["num_products"]) == counts["products"]


@pytest.mark.slow
@every_solver
def test_vmap_over_stiffness(solver):
    weights, target = layers(jax.random.key(1), 6, 2)

    def final(condition):
        saveat = diffrax.SaveAt(t1=True, solver_state=True)
        solution = solve(solver, gradient_flow, weights, 2.0, (rates(condition, 6), target), saveat=saveat)
        return solution.ys, solver.statistics(solution.solver_state)["num_gradients"]

    conditions = jnp.asarray([1.0, 30.0, 1000.0])
    together = jax.vmap(final)(conditions)
    alone = jax.lax.map(final, conditions)
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a, b, rtol=0.05, atol=1e-5)
    assert np.unique(together[1]).size == 3


@every_solver
def test_dense_output_events_and_jumps(solver):
    # y' = -50 (y - u), where u jumps from 0 to 1 at t = 1.
    def field(t, y, args):
        return {"y": -50 * (y["y"] - jnp.where(t < 1, 0.0, 1.0))}

    def exact(t):
        return np.where(t < 1, 2 * np.exp(-50 * t), 1 - np.exp(-50 * np.maximum(t - 1, 0)))

    controller = diffrax.ClipStepSizeController(diffrax.PIDController(rtol=1e-6, atol=1e-9), jump_ts=jnp.asarray([1.0]))
    start = {"y": jnp.asarray([2.0])}
    solution = solve(solver, field, start, 2.0, saveat=diffrax.SaveAt(dense=True), stepsize_controller=controller)
    t = np.linspace(0.0, 2.0, 101)
    np.testing.assert_allclose(jax.vmap(solution.evaluate)(t)["y"][:, 0], exact(t), atol=1e-4)

    event = diffrax.Event(lambda t, y, args, **kwargs: y["y"][0] - 1.0, optimistix.Newton(1e-10, 1e-10))
    saveat = diffrax.SaveAt(t1=True, fn=lambda t, y, args: y["y"] ** 2)
    stopped = solve(solver, field, start, 0.9, saveat=saveat, rtol=1e-6, event=event)
    assert stopped.result == diffrax.RESULTS.event_occurred
    assert float(stopped.ts[0]) == pytest.approx(np.log(2) / 50, rel=1e-4)
    np.testing.assert_allclose(stopped.ys, 1.0, rtol=1e-4)


@every_solver
def test_float32(solver):
    weights, target = jax.tree.map(lambda x: x.astype(jnp.float32), layers(jax.random.key(1), 6, 2))
    args = (rates(100.0, 6).astype(jnp.float32), target)
    options = {"rtol": 1e-3, "atol": 1e-5, "dt0": jnp.float32(1e-3)}
    single = solve(solver, gradient_flow, weights, jnp.float32(2.0), args, **options)
    assert all(w.dtype == jnp.float32 for w in jax.tree.leaves(single.ys))
    double = jax.tree.map(lambda x: x.astype(jnp.float64), (weights, args))
    reference = solve(diffrax.Tsit5(), gradient_flow, double[0], 2.0, double[1], rtol=1e-8)
    for a, b in zip(jax.tree.leaves(single.ys), jax.tree.leaves(reference.ys), strict=True):
        np.testing.assert_allclose(a, b, atol=5e-3)


@stabilised
def test_backwards_in_time(solver):
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: 100 * (y - jnp.sin(t)) + jnp.cos(t)),
        solver,
        t0=2.0,
        t1=0.0,
        dt0=-1e-3,
        y0=jnp.asarray([np.sin(2.0)]),
        stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-8),
    )
    np.testing.assert_allclose(solution.ys[-1], [0.0], atol=1e-5)


# Derivatives.


@every_solver
@pytest.mark.parametrize(
    ("adjoint", "kind"),
    [
        pytest.param(diffrax.RecursiveCheckpointAdjoint(), "checkpointed", marks=pytest.mark.slow),
        (diffrax.ForwardMode(), "lax"),
        pytest.param(diffrax.DirectAdjoint(), "bounded", marks=pytest.mark.slow),
    ],
    ids=["reverse", "forward", "both"],
)
def test_derivatives(solver, adjoint, kind):
    weights, target = layers(jax.random.key(1), 6, 2)
    solver = Automatic(RKC2(kind)) if isinstance(solver, Automatic) else eqx.tree_at(lambda s: s.scan_kind, solver, kind)

    @jax.jit
    def final_loss(scale):
        args = (scale * rates(100.0, 6), target)
        start = jax.tree.map(lambda w: scale * w, weights)
        ys = solve(solver, gradient_flow, start, 0.05, args, rtol=1e-7, adjoint=adjoint).ys
        return sum(jnp.sum(jnp.sin(w)) for w in jax.tree.leaves(ys))

    if kind == "checkpointed":
        derivative = jax.grad(final_loss)(1.0)
    else:
        derivative = jax.jvp(final_loss, (1.0,), (1.0,))[1]
    eps = 1e-3
    finite_difference = (final_loss(1 + eps) - final_loss(1 - eps)) / (2 * eps)
    assert float(derivative) == pytest.approx(float(finite_difference), rel=1e-4)


# What can go wrong.


@stabilised
def test_no_dynamics(solver):
    solution = solve(solver, lambda t, y, args: jax.tree.map(jnp.zeros_like, y), {"a": jnp.zeros(3)}, 1.0)
    np.testing.assert_array_equal(solution.ys["a"], np.zeros((1, 3)))


@stabilised
def test_nan_ends(solver):
    controller = diffrax.PIDController(rtol=1e-3, atol=1e-6, dtmin=1e-8, force_dtmin=False)
    options = {"stepsize_controller": controller, "throw": False}
    always = solve(solver, lambda t, y, args: y * jnp.nan, jnp.ones(2), 1.0, **options)
    assert always.result == diffrax.RESULTS.dt_min_reached
    # The solution reaches zero at t = 1/2 and ceases to exist.
    later = solve(solver, lambda t, y, args: -jnp.sqrt(y), jnp.full(2, 0.0625), 1.0, **options)
    assert later.result != diffrax.RESULTS.successful


@pytest.mark.slow
@stabilised
def test_step_beyond_every_method_is_rejected_at_no_cost(solver):
    saveat = diffrax.SaveAt(t1=True, solver_state=True)
    solution = solve(solver, lambda t, y, args: -1e6 * y, jnp.ones(1), 1.0, dt0=1.0, saveat=saveat, rtol=1e-2)
    assert abs(float(solution.ys[0, 0])) < 1e-2
    # With constant steps nothing can be rejected: not a number says so.
    constant = diffrax.ConstantStepSize()
    broken = solve(solver, lambda t, y, args: -1e6 * y, jnp.ones(1), 1.0, dt0=1.0, stepsize_controller=constant)
    assert np.isnan(broken.ys[0, 0])


@stabilised
def test_growing_stiffness(solver):
    # The eigenvalue grows a millionfold; an unstable step must be seen and rejected.
    def field(t, y, args):
        return -jnp.exp(14 * t) * (y - jnp.cos(t)) - jnp.sin(t)

    solution = solve(solver, field, jnp.ones(1), 1.0, rtol=1e-4)
    np.testing.assert_allclose(solution.ys[0], [np.cos(1.0)], atol=1e-4)


@every_solver
def test_refuses_other_problems(solver):
    term = diffrax.ODETerm(lambda t, y, args: -y)
    with pytest.raises(ValueError, match="needs a single term driven by time"):
        diffrax.diffeqsolve(diffrax.MultiTerm(term, term), solver, 0.0, 1.0, 0.1, jnp.ones(2))
    with pytest.raises(ValueError, match="needs a real state `y0`; it has complex arrays"):
        solver.init(term, 0.0, 1.0, jnp.ones(2, complex), None)
