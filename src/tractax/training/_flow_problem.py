"""One run of a flow rule, as diffrax integrates it."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from ..core import AbstractReportingSolver


class FlowSolution(eqx.Module):
    """An integrated run.

    **Attributes:**

    - `observed`: what was recorded, with a leading time axis.
    - `last`: the state at the end.
    - `reached`: whether the last time was recorded.
    - `stats`, `result`: as in `diffrax.Solution`.
    """

    observed: PyTree
    last: PyTree
    reached: Bool[Array, ""]
    stats: dict[str, Any]
    result: diffrax.RESULTS


class FlowProblem(eqx.Module):
    """The arguments of `diffrax.diffeqsolve` for a run from time zero to the last of `ts`.

    **Attributes:**

    - `terms`, `state`, `args`: the differential equation and its start.
    - `record`: what to save, called as `record(t, state, args)`.
    - `ts`: when to save it.
    - `solver`, `controller`, `options`: as in `diffrax.diffeqsolve`.
    """

    terms: PyTree[diffrax.AbstractTerm]
    state: PyTree
    args: PyTree
    record: Callable[[Any, PyTree, PyTree], PyTree]
    ts: Float[Array, " times"]
    solver: diffrax.AbstractSolver
    controller: diffrax.AbstractStepSizeController
    options: dict[str, Any]

    def solve(self) -> FlowSolution:
        """Integrates by diffrax."""
        subs = [diffrax.SubSaveAt(ts=self.ts, fn=self.record), diffrax.SubSaveAt(t1=True)]
        solution = diffrax.diffeqsolve(
            self.terms,
            t0=0.0,
            t1=self.ts[-1],
            y0=self.state,
            args=self.args,
            saveat=diffrax.SaveAt(subs=subs, solver_state=True),
            solver=self.solver,
            stepsize_controller=self.controller,
            throw=False,
            **self.options,
        )
        observed, last = solution.ys  # pyright: ignore
        stats = solution.stats
        if isinstance(self.solver, AbstractReportingSolver):
            stats = stats | self.solver.statistics(solution.solver_state)
        return FlowSolution(
            observed=observed,
            last=jax.tree.map(lambda x: x[-1], last),
            reached=solution.ts[0][-1] < jnp.inf,  # pyright: ignore
            stats=stats,
            result=solution.result,
        )
