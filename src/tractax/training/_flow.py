"""Integrate a flow rule with diffrax."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ..core import RESULTS, AbstractFlowRule, Objective, OnFailure, Trajectory, settle
from ._controller import default_controller
from ._flow_problem import FlowProblem
from ._observe import all_finite, observer, split
from ._side_by_side import side_by_side


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
    on_failure: OnFailure,
    options: dict[str, Any],
) -> Trajectory:
    """One `diffrax.diffeqsolve` that saves observables at `ts` and the state at the end."""
    arrays_of, static = split(observer(observe), objective.model(params))

    def record(t: Any, state: PyTree, args: Objective) -> PyTree:
        del t
        return arrays_of(args.model(rule.params(state)))

    state = rule.init(params)
    problem = FlowProblem(
        terms=rule.terms(state, 0.0, ts[-1], key=key),
        state=state,
        args=objective,
        record=record,
        ts=ts,
        solver=solver,
        controller=default_controller(ts[-1]) if stepsize_controller is None else stepsize_controller,
        options=options,
    )
    # Only in an ensemble failures are masked, and runs likely to be batched.
    solution = side_by_side(problem) if on_failure == "mask" else problem.solve()
    last = rule.params(solution.last)
    # The default controller leaves the last time unreached where the steps that it needs vanish.
    given_up = (solution.result == diffrax.RESULTS.successful) & ~solution.reached
    diverged = jnp.logical_not(all_finite(last)) | given_up
    result = RESULTS.where(diverged, RESULTS.diverged, RESULTS.promote(solution.result))
    trajectory = Trajectory(ts, eqx.combine(solution.observed, static), objective.model(last), solution.stats, result)
    return settle(trajectory, on_failure)
