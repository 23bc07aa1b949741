"""One run of a flow rule, as diffrax integrates it."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from ..core import AbstractReportingSolver
from ._controller import GivingUp, Pause


class FlowSolution(eqx.Module):
    """An integrated run.

    **Attributes:**

    - `observed`: what was recorded, with a leading time axis.
    - `last`: the state at the end.
    - `reached`: whether the last time was recorded.
    - `stats`, `result`: as in `diffrax.Solution`.
    - `pause`: where it stopped, if the controller had a budget of steps.
    """

    observed: PyTree
    last: PyTree
    reached: Bool[Array, ""]
    stats: dict[str, Any]
    result: diffrax.RESULTS
    pause: Pause | None = None


class FlowProblem(eqx.Module):
    """The arguments of `diffrax.diffeqsolve` for a run from `t0` to the last of `ts`.

    **Attributes:**

    - `terms`, `state`, `args`: the differential equation and its start.
    - `record`: what to save, called as `record(t, state, args)`.
    - `t0`: when the run starts.
    - `ts`: when to save.
    - `solver`, `controller`, `options`: as in `diffrax.diffeqsolve`.
    """

    terms: PyTree[diffrax.AbstractTerm]
    state: PyTree
    args: PyTree
    record: Callable[[Any, PyTree, PyTree], PyTree]
    t0: Float[Array, ""]
    ts: Float[Array, " times"]
    solver: diffrax.AbstractSolver
    controller: diffrax.AbstractStepSizeController
    options: dict[str, Any]

    def solve(self) -> FlowSolution:
        """Integrates by diffrax."""
        subs = [diffrax.SubSaveAt(ts=self.ts, fn=self.record), diffrax.SubSaveAt(t1=True)]
        solution = diffrax.diffeqsolve(
            self.terms,
            t0=self.t0,
            t1=self.ts[-1],
            y0=self.state,
            args=self.args,
            saveat=diffrax.SaveAt(subs=subs, solver_state=True, controller_state=True),
            solver=self.solver,
            stepsize_controller=self.controller,
            throw=False,
            **self.options,
        )
        observed, last = solution.ys  # pyright: ignore
        stats = solution.stats
        if isinstance(self.solver, AbstractReportingSolver):
            stats = stats | self.solver.statistics(solution.solver_state)
        budgeted = isinstance(self.controller, GivingUp) and self.controller.budget is not None
        return FlowSolution(
            observed=observed,
            last=jax.tree.map(lambda x: x[-1], last),
            reached=solution.ts[0][-1] < jnp.inf,  # pyright: ignore
            stats=stats,
            result=solution.result,
            pause=solution.controller_state[1] if budgeted else None,  # pyright: ignore
        )
