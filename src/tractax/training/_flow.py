"""Integrate a flow rule."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ..core import RESULTS, AbstractFlowRule, Objective, OnFailure, Trajectory, settle
from ._controller import GivingUp, default_controller
from ._flow_problem import FlowProblem, FlowSolution
from ._observe import all_finite, observer, split
from ._side_by_side import side_by_side


@eqx.filter_jit
def integrate(
    params: PyTree,
    objective: Objective,
    rule: AbstractFlowRule,
    ts: Float[Array, " times"],
    observe: PyTree[Callable] | None,
    key: PRNGKeyArray | None,
    stepsize_controller: diffrax.AbstractStepSizeController | None,
    solver: diffrax.AbstractSolver,
    on_failure: OnFailure,
    options: dict[str, Any],
) -> Trajectory:
    """One `diffrax.diffeqsolve` that saves observables at `ts` and the state at the end."""
    controller = default_controller(ts[-1]) if stepsize_controller is None else stepsize_controller
    start = (0.0, rule.init(params))
    trajectory, _ = solve(start, objective, rule, ts, observe, key, controller, solver, on_failure, options)
    return trajectory


def solve(
    start: tuple[ArrayLike, PyTree],
    objective: Objective,
    rule: AbstractFlowRule,
    ts: Float[Array, " times"],
    observe: PyTree[Callable] | None,
    key: PRNGKeyArray | None,
    controller: diffrax.AbstractStepSizeController,
    solver: diffrax.AbstractSolver,
    on_failure: OnFailure,
    options: dict[str, Any],
) -> tuple[Trajectory, FlowSolution]:
    """From a time and a state on: the trajectory, and the integration behind it."""
    t0, given = start
    t0 = jnp.asarray(t0, ts.dtype)
    # Integrators know states of one precision only, the highest one of the model.
    state = jax.tree.map(lambda x: x.astype(ts.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, given)
    arrays_of, static = split(observer(observe), t0, state, rule.params(state), objective)

    def record(t: Any, state: PyTree, args: Objective) -> PyTree:
        return arrays_of(t, state, rule.params(state), args)

    terms = rule.terms(state, t0, ts[-1], key=key)
    if isinstance(controller, GivingUp) and _noisy(terms):
        raise ValueError(
            f"`stepsize_controller` must be given for {type(rule).__name__}, which has noise; pass for instance "
            "`solver=diffrax.Euler(), dt0=0.01, stepsize_controller=diffrax.ConstantStepSize()`."
        )
    problem = FlowProblem(
        terms=terms,
        state=state,
        args=objective,
        record=record,
        t0=t0,
        ts=ts,
        solver=solver,
        controller=controller,
        options=options,
    )
    # Only in an ensemble failures are masked, and runs likely to be batched.
    solution = side_by_side(problem) if on_failure == "mask" else problem.solve()
    solution = eqx.tree_at(lambda s: s.last, solution, jax.tree.map(lambda x, y: x.astype(y.dtype), solution.last, given))
    last = rule.params(solution.last)
    # The default controller leaves the last time unreached where the steps that it needs vanish.
    given_up = (solution.result == diffrax.RESULTS.successful) & ~solution.reached
    if solution.pause is not None:
        given_up = given_up & ~solution.pause.paused
    diverged = jnp.logical_not(all_finite(last)) | given_up
    result = RESULTS.where(diverged, RESULTS.diverged, RESULTS.promote(solution.result))
    observed = eqx.combine(solution.observed, static)
    trajectory = Trajectory(ts, observed, objective.model(last), solution.stats, result)
    return settle(trajectory, on_failure), solution


def _noisy(terms: PyTree) -> bool:
    """Whether the differential equation is a stochastic one, for which default tolerances are out of reach."""

    def is_noise(x: Any) -> bool:
        return isinstance(x, diffrax.AbstractBrownianPath)

    return any(is_noise(x) for x in jax.tree.leaves(terms, is_leaf=is_noise))
