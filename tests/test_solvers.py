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

import tractax as tx
from tractax.solvers import METHODS, RKC2, RKC4, Automatic
from tractax.solvers._spectral_radius import spectral_radius


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


def solve(solver, field, y0, t1, args=None, rtol=1e-5, atol=1e-8, **options):
    options = {"max_steps": 2000, "dt0": 1e-3} | options
    controller = options.pop("stepsize_controller", diffrax.PIDController(rtol=rtol, atol=atol))
    term = diffrax.ODETerm(field)
    return diffrax.diffeqsolve(term, solver, 0.0, t1, y0=y0, args=args, stepsize_controller=controller, **options)


# Two layers fitted to a matrix whose rows matter very unequally: the standard stiff problem of these tests.


def layers(key, inputs=24, outputs=4):
    scale = 0.3 / np.sqrt(inputs)
    keys = jax.random.split(key, 3)
    target = jax.random.normal(keys[0], (outputs, inputs))
    first = scale * jax.random.normal(keys[1], (inputs, inputs))
    return (first, scale * jax.random.normal(keys[2], (outputs, inputs))), target


def gradient_flow(t, weights, args):
    rates, target = args

    def loss(weights):
        return 0.5 * jnp.sum(rates[None, :] * (weights[1] @ weights[0] - target) ** 2)

    return jax.tree.map(jnp.negative, jax.grad(loss)(weights))


def rates(condition, size=24):
    return 100 * condition ** -jnp.linspace(0, 1, size)


TERM = diffrax.ODETerm(gradient_flow)


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


# The automatic solver.


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
    with pytest.raises(ValueError, match="needs a real state `y0`; got dtype complex128"):
        solver.init(term, 0.0, 1.0, jnp.ones(2, complex), None)


# Spectral radius.


def dominant(matrix, direction=None, previous=0.0, max_products=100):
    direction = jnp.zeros(matrix.shape[0]) if direction is None else direction
    return spectral_radius(lambda v: matrix @ v, direction, jnp.asarray(previous), max_products)


def test_spectral_radius():
    # Symmetric, far from it, and a rotation.
    keys = jax.random.split(jax.random.key(2), 2)
    square = jax.random.normal(keys[0], (30, 30))
    for matrix in (-square @ square.T, square, jnp.asarray([[0.0, -3.0], [3.0, 0.0]])):
        radius, _, count = dominant(matrix)
        exact = np.abs(np.linalg.eigvals(matrix)).max()
        assert 0.85 * exact < radius <= np.linalg.norm(matrix, 2) * (1 + 1e-12)
        assert count < 100


def test_spectral_radius_follows_another_mode():
    # Decoupled modes: iteration that ended at the first one must still find the second when it has overtaken.
    direction = jnp.asarray([1.0, 0.0, 0.0])
    radius = jnp.asarray(2.0)
    for _ in range(10):
        radius, direction, _ = dominant(jnp.diag(jnp.asarray([-2.0, -6.0, -1.0])), direction, radius)
    assert float(radius) == pytest.approx(6.0, rel=0.05)


def test_spectral_radius_of_nothing():
    radius, direction, count = dominant(jnp.zeros((3, 3)))
    assert radius == 0.0
    assert count == 1
    assert jnp.all(jnp.isfinite(direction))
    radius, direction, count = dominant(jnp.full((3, 3), jnp.nan))
    assert count == 1
    assert jnp.all(jnp.isfinite(direction))
    # No product, no change.
    radius, _, count = dominant(jnp.eye(3), previous=4.0, max_products=0)
    assert radius == 4.0
    assert count == 0
