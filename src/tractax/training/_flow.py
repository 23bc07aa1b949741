"""Integrate a flow rule with diffrax."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ..core import RESULTS, AbstractFlowRule, Objective, Trajectory, error_if_failed
from ..solvers import AbstractReportingSolver
from ._observe import all_finite, observer, split


@eqx.filter_jit
def integrate(
    params: PyTree,
    objective: Objective,
    rule: AbstractFlowRule,
    ts: Float[Array, " times"],
    observe: PyTree[Callable],
    key: PRNGKeyArray | None,
    stepsize_controller: diffrax.AbstractStepSizeController | None,
    solver: diffrax.AbstractSolver,
    throw: bool,
    options: dict[str, Any],
) -> Trajectory:
    """One `diffrax.diffeqsolve` that saves observables at `ts` and the state at the end."""
    arrays_of, static = split(observer(observe), objective.model(params))

    def record(t: Any, state: PyTree, args: Objective) -> PyTree:
        del t
        return arrays_of(args.model(rule.params(state)))

    state = rule.init(params)
    controller = _controller(ts[-1]) if stepsize_controller is None else stepsize_controller
    solution = diffrax.diffeqsolve(
        rule.terms(state, 0.0, ts[-1], key=key),
        t0=0.0,
        t1=ts[-1],
        y0=state,
        args=objective,
        saveat=diffrax.SaveAt(subs=[diffrax.SubSaveAt(ts=ts, fn=record), diffrax.SubSaveAt(t1=True)], solver_state=True),
        solver=solver,
        stepsize_controller=controller,
        throw=False,
        **options,
    )
    observed, last = solution.ys  # pyright: ignore
    last = rule.params(jax.tree.map(lambda x: x[-1], last))
    diverged = jnp.logical_not(all_finite(last))
    if stepsize_controller is None:
        diverged = diverged | (solution.result == diffrax.RESULTS.dt_min_reached)
    result = RESULTS.where(diverged, RESULTS.diverged, RESULTS.promote(solution.result))
    stats = solution.stats
    if isinstance(solver, AbstractReportingSolver):
        stats = stats | solver.statistics(solution.solver_state)
    trajectory = Trajectory(ts, eqx.combine(observed, static), objective.model(last), stats, result)
    return error_if_failed(trajectory) if throw else trajectory


def _controller(t1: Array) -> diffrax.PIDController:
    double = t1.dtype == jnp.float64
    # NaN shrinks every step until it is this small, and then the run ends.
    return diffrax.PIDController(
        rtol=1e-8 if double else 1e-5,
        atol=1e-12 if double else 1e-8,
        dtmin=1e-6 * jnp.finfo(t1.dtype).eps * t1,
        force_dtmin=False,
        norm=_norm,
    )


def _norm(error: PyTree) -> Array:
    """The root mean square, with NaN as an infinite error, so that steps shrink instead of being retried."""
    rms = optimistix.rms_norm(error)
    return jnp.where(jnp.isnan(rms), jnp.inf, rms)
