"""Integrate a flow rule with diffrax."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ..core import RESULTS, AbstractFlowRule, Objective, Trajectory
from ._observe import observer, split


@eqx.filter_jit
def integrate(
    params: PyTree,
    objective: Objective,
    rule: AbstractFlowRule,
    ts: Float[Array, " times"],
    observe: PyTree[Callable],
    key: PRNGKeyArray | None,
    options: dict[str, Any],
) -> Trajectory:
    """One `diffrax.diffeqsolve` that saves observables at `ts` and the state at the end."""
    arrays_of, static = split(observer(observe), objective.model(params))

    def record(t: Any, state: PyTree, args: Objective) -> PyTree:
        del t
        return arrays_of(args.model(rule.params(state)))

    state = rule.init(params)
    solution = diffrax.diffeqsolve(
        rule.terms(state, 0.0, ts[-1], key=key),
        t0=0.0,
        t1=ts[-1],
        y0=state,
        args=objective,
        saveat=diffrax.SaveAt(subs=[diffrax.SubSaveAt(ts=ts, fn=record), diffrax.SubSaveAt(t1=True)]),
        throw=False,
        **options,
    )
    observed, last = solution.ys  # pyright: ignore
    final = objective.model(rule.params(jax.tree.map(lambda x: x[-1], last)))
    result = RESULTS.promote(solution.result)
    return Trajectory(ts, eqx.combine(observed, static), final, solution.stats, result)
