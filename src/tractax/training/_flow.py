"""Integrate a flow rule with diffrax."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray, PyTree

from ..core import RESULTS, AbstractFlowRule, AbstractReportingSolver, Objective, OnFailure, Trajectory, settle
from ._controller import default_controller
from ._observe import all_finite, observer, split


@eqx.filter_jit
def integrate(
    params: PyTree,
    objective: Objective,
    rule: AbstractFlowRule,
    ts: Float[jax.Array, " times"],
    observe: PyTree[Callable],
    key: PRNGKeyArray | None,
    stepsize_controller: diffrax.AbstractStepSizeController | None,
    solver: diffrax.AbstractSolver,
    on_failure: OnFailure,
    options: dict[str, Any],
) -> Trajectory:
    """One `diffrax.diffeqsolve` that saves observables at `ts` and the state at the end."""
    arrays_of, static = split(observer(observe), objective.model(params))

    def record(t: Any, state: PyTree, args: Objective) -> PyTree:
        del t
        return arrays_of(args.model(rule.params(state)))

    state = rule.init(params)
    controller = default_controller(ts[-1]) if stepsize_controller is None else stepsize_controller
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
    # The default controller leaves the last time unreached where the steps that it needs vanish.
    given_up = (solution.result == diffrax.RESULTS.successful) & jnp.isinf(solution.ts[0][-1])  # pyright: ignore
    diverged = jnp.logical_not(all_finite(last)) | given_up
    result = RESULTS.where(diverged, RESULTS.diverged, RESULTS.promote(solution.result))
    stats = solution.stats
    if isinstance(solver, AbstractReportingSolver):
        stats = stats | solver.statistics(solution.solver_state)
    trajectory = Trajectory(ts, eqx.combine(observed, static), objective.model(last), stats, result)
    return settle(trajectory, on_failure)
