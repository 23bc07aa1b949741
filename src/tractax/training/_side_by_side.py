"""Integrate many runs side by side, each with steps of its own.

`jax.vmap` of `diffrax.diffeqsolve` is correct but slow: every stage, every write into what is recorded, becomes a gather
or a scatter over the batch inside a loop of its own. Here one loop is written for the batch, with the stages unrolled.
Each run takes the steps that it would take alone.
"""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Float, Int, PyTree

from ._controller import GivingUp
from ._flow_problem import FlowProblem, FlowSolution

# Observables of at most this many numbers are written by a selection over all times, larger ones by a scatter.
_SMALL = 16


def side_by_side(problem: FlowProblem) -> FlowSolution:
    """`problem.solve()`, with a better rule for `jax.vmap` where the method is an explicit Runge-Kutta one."""
    if not _covered(problem):
        return problem.solve()
    at = (problem.t0, problem.state, problem.args)
    field, record = _Explicit.make(problem.terms.vector_field, *at), _Explicit.make(problem.record, *at)
    return _solve(eqx.tree_at(lambda p: (p.terms, p.record), problem, (diffrax.ODETerm(field), record)))


class _Explicit(eqx.Module):
    """A function with all that it closes over (a member's data) visible to `jax.vmap`."""

    function: Any

    @classmethod
    def make(cls, function: Any, *args: PyTree) -> "_Explicit":
        return cls(eqx.filter_closure_convert(function, *args))

    def __call__(self, *args: PyTree) -> PyTree:
        # Constants come back as numbers.
        return jax.tree.map(jnp.asarray, self.function(*args))


def _covered(problem: FlowProblem) -> bool:
    options = problem.options
    controllers = (GivingUp, diffrax.PIDController, diffrax.ConstantStepSize)
    return (
        type(problem.terms) is diffrax.ODETerm
        and isinstance(problem.solver, diffrax.AbstractERK)
        and not isinstance(problem.solver.tableau, diffrax.MultiButcherTableau)
        and type(problem.controller) in controllers
        # The rule below is for reverse mode, what this adjoint is for.
        and type(options["adjoint"]) is diffrax.RecursiveCheckpointAdjoint
        and type(options["progress_meter"]) is diffrax.NoProgressMeter
        and options["event"] is None
        and problem.ts.shape[0] > 1
    )


@eqx.filter_custom_vjp
def _solve(problem: FlowProblem) -> FlowSolution:
    arrays, static = eqx.partition(problem, eqx.is_array)
    kept: list[PyTree] = []

    @custom_vmap
    def solve(arrays):
        out, rest = eqx.partition(eqx.combine(arrays, static).solve(), eqx.is_array)
        kept.append(rest)
        return out

    @solve.def_vmap
    def solve_batch(axis_size, batched, arrays):
        axes = jax.tree.map(lambda is_batched: 0 if is_batched else None, batched[0])
        out = _solve_batch(arrays, static, axes, axis_size)
        return out, jax.tree.map(lambda _: True, out)

    return eqx.combine(solve(arrays), kept[0])


@_solve.def_fwd
def _forward(perturbed: PyTree, problem: FlowProblem) -> Any:
    del perturbed
    solution, pullback = eqx.filter_vjp(FlowProblem.solve, problem)
    return solution, (pullback, jax.tree.map(jnp.zeros_like, eqx.filter(solution, eqx.is_inexact_array)))


@_solve.def_bwd
def _backward(residuals: Any, cotangent: PyTree, perturbed: PyTree, problem: FlowProblem) -> PyTree:
    del perturbed, problem
    pullback, zeros = residuals
    return pullback(eqx.combine(cotangent, zeros))[0]


class _Lane(eqx.Module):
    """One run on its way: its next step, and how often it was tried."""

    start: Float[Array, "*runs"]
    end: Float[Array, "*runs"]
    state: PyTree
    velocity: PyTree
    controller: PyTree
    accepted: Int[Array, "*runs"]
    rejected: Int[Array, "*runs"]


class _Step(eqx.Module):
    """A step just tried, for what is to be recorded in it: the states at both ends, and the stages between."""

    start: Float[Array, "*runs"]
    end: Float[Array, "*runs"]
    states: list[PyTree]
    kept: Bool[Array, "*runs"]


def _solve_batch(arrays: PyTree, static: PyTree, axes: PyTree, size: int) -> FlowSolution:
    """Solves problems that differ in `arrays` along `axes`."""

    def each(function: Any, *args: PyTree) -> PyTree:
        """`function(problem, *args)` for each problem."""

        def one(arrays, *args):
            return function(eqx.combine(arrays, static), *args)

        return jax.vmap(one, in_axes=(axes, *[0] * len(args)), axis_size=size)(arrays, *args)

    times, max_steps = arrays.ts.shape[-1], static.options["max_steps"]

    def unfinished(carry):
        lanes, _, _, tried = carry
        return (tried < max_steps) & jnp.any(each(_is_active, lanes))

    def advance(carry):
        lanes, observed, count, tried = carry
        lanes, steps = each(_try_step, lanes)

        def due(carry):
            _, count = carry
            return each(_is_due, steps, count)

        def record(carry):
            observed, count = carry
            is_due, values = due(carry), each(_observe, steps, count)
            observed = jax.tree.map(lambda buffer, value: _write(buffer, value, count, is_due), observed, values)
            return observed, count + is_due.astype(count.dtype)

        observed, count = jax.lax.while_loop(lambda carry: jnp.any(due(carry)), record, (observed, count))
        return lanes, observed, count, tried + 1

    lanes = each(_start)
    values = jax.eval_shape(lambda: each(lambda problem: problem.record(problem.t0, problem.state, problem.args)))
    observed = jax.tree.map(lambda x: jnp.full((size, times, *x.shape[1:]), jnp.inf, x.dtype), values)
    carry = (lanes, observed, jnp.zeros(size, jnp.int32), jnp.int32(0))
    lanes, observed, count, _ = jax.lax.while_loop(unfinished, advance, carry)
    return each(_finish, lanes, observed, count)


def _start(problem: FlowProblem) -> _Lane:
    t0, solver, terms, t1 = problem.t0, problem.solver, problem.terms, problem.ts[-1]
    order = solver.error_order(terms)
    # `diffeqsolve` hands over a wrapped term, and the length of the first step depends on that.
    end, controller = problem.controller.init(
        diffrax.MultiTerm(terms), t0, t1, problem.state, problem.options["dt0"], problem.args, solver.func, order
    )
    velocity = terms.vf(t0, problem.state, problem.args)
    none = jnp.asarray(0)
    return _Lane(t0, jnp.minimum(end, t1), problem.state, velocity, controller, none, none)


def _is_active(problem: FlowProblem, lane: _Lane) -> Bool[Array, ""]:
    return lane.start < problem.ts[-1]


def _finish(problem: FlowProblem, lane: _Lane, observed: PyTree, count: Int[Array, ""]) -> FlowSolution:
    codes = diffrax.RESULTS
    stats = {
        "num_steps": lane.accepted + lane.rejected,
        "num_accepted_steps": lane.accepted,
        "num_rejected_steps": lane.rejected,
        "max_steps": problem.options["max_steps"],
    }
    result = codes.where(_is_active(problem, lane), codes.max_steps_reached, codes.successful)
    solution = FlowSolution(observed, lane.state, count == problem.ts.shape[0], stats, result)
    return eqx.filter(solution, eqx.is_array)


def _try_step(problem: FlowProblem, lane: _Lane) -> tuple[_Lane, _Step]:
    """One step of a run, as diffrax takes it; none of one that has arrived."""
    t1, active = problem.ts[-1], _is_active(problem, lane)
    state, error, velocity, stages = _runge_kutta(problem, lane)
    error = jax.tree.map(lambda x: jnp.where(jnp.isnan(x), jnp.inf, x), error)
    order = problem.solver.error_order(problem.terms)
    kept, start, end, _, controller, _ = problem.controller.adapt_step_size(
        lane.start, lane.end, lane.state, state, problem.args, error, order, lane.controller
    )
    kept = kept & active
    start = jnp.minimum(start, t1)
    # A last step that is nearly there goes all the way.
    last = jnp.where(kept, t1, start + 0.5 * (t1 - start))
    end = jnp.where(end > _shortly_before(t1), last, end)
    step = _Step(lane.start, lane.end, [lane.state, state, *stages], kept)
    lane = _Lane(
        start=jnp.where(active, start, lane.start),
        end=jnp.where(active, end, lane.end),
        state=_select(kept, state, lane.state),
        velocity=_select(kept, velocity, lane.velocity),
        controller=_select(active, controller, lane.controller),
        accepted=lane.accepted + jnp.where(kept, 1, 0),
        rejected=lane.rejected + jnp.where(active & ~kept, 1, 0),
    )
    return lane, step


def _runge_kutta(problem: FlowProblem, lane: _Lane) -> tuple[PyTree, PyTree, PyTree, list[PyTree]]:
    """One step: the next state, its error, the velocity there, and the stages."""
    tableau, args = problem.solver.tableau, problem.args  # pyright: ignore
    length = lane.end - lane.start

    def increment(weights: Any, stages: list[PyTree]) -> PyTree:
        return _weighted_sum(*zip(*((w, k) for w, k in zip(weights, stages, strict=True) if w != 0), strict=True))

    def plus(change: PyTree) -> PyTree:
        return jax.tree.map(jnp.add, lane.state, change)

    def times_length(velocity: PyTree) -> PyTree:
        return jax.tree.map(lambda v: length.astype(v.dtype) * v, velocity)

    velocity, state = lane.velocity, lane.state
    stages = [times_length(velocity)]
    for weights, node in zip(tableau.a_lower, tableau.c, strict=True):
        state = plus(increment(weights, stages))
        velocity = problem.terms.vf(lane.start + node.astype(length.dtype) * length, state, args)
        stages.append(times_length(velocity))
    if not tableau.ssal:
        state = plus(increment(tableau.b_sol, stages))
    if not tableau.fsal:
        velocity = problem.terms.vf(lane.end, state, args)
    return state, increment(tableau.b_error, stages), velocity, stages


def _weighted_sum(weights: Any, terms: Any) -> PyTree:
    return jax.tree.map(lambda *xs: sum(jnp.asarray(w, x.dtype) * x for w, x in zip(weights, xs, strict=True)), *terms)


def _is_due(problem: FlowProblem, step: _Step, count: Int[Array, ""]) -> Bool[Array, ""]:
    """Whether the next time to record lies in this step."""
    times = problem.ts.shape[0]
    return step.kept & (count < times) & (problem.ts[jnp.minimum(count, times - 1)] <= step.end)


def _observe(problem: FlowProblem, step: _Step, count: Int[Array, ""]) -> PyTree:
    t = problem.ts[jnp.minimum(count, problem.ts.shape[0] - 1)]
    # Interpolations are linear in the states at both ends and the stages; these are their weights.
    unit = jnp.eye(len(step.states), dtype=t.dtype)
    interpolation = problem.solver.interpolation_cls(t0=step.start, t1=step.end, y0=unit[0], y1=unit[1], k=unit[2:])
    return problem.record(t, _weighted_sum(interpolation.evaluate(t), step.states), problem.args)


def _write(buffer: Array, value: Array, index: Int[Array, " runs"], where: Bool[Array, " runs"]) -> Array:
    """`buffer[i, index[i]] = value[i]` for the runs in `where`."""
    runs, times = buffer.shape[:2]
    if value[0].size > _SMALL:
        return buffer.at[jnp.arange(runs, dtype=index.dtype), jnp.where(where, index, times)].set(value, mode="drop")
    chosen = where[:, None] & (jnp.arange(times, dtype=index.dtype)[None, :] == index[:, None])
    chosen = chosen.reshape(runs, times, *[1] * (buffer.ndim - 2))
    return jnp.where(chosen, value[:, None], buffer)


def _select(which: Bool[Array, ""], new: PyTree, old: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(which, a, b), new, old)


def _shortly_before(t: Float[Array, ""]) -> Float[Array, ""]:
    return t * (1 - 100 * jnp.finfo(t.dtype).eps)
