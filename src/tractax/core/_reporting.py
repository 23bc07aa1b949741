"""Solvers that say what they did."""

import abc
from typing import Any, TypeVar

import diffrax
import equinox as eqx

_SolverState = TypeVar("_SolverState")


class AbstractReportingSolver(diffrax.AbstractAdaptiveSolver[_SolverState]):
    """A solver that says what it did, for `tx.Trajectory.stats`.

    Without `tx.train`: save the state with `diffrax.SaveAt(solver_state=True)` and pass it to `statistics`.
    """

    @abc.abstractmethod
    def statistics(self, solver_state: _SolverState) -> dict[str, Any]:
        """What the solver did, in accepted steps: diffrax forgets what it computed in a rejected one."""


class METHODS(eqx.Enumeration):  # pyright: ignore
    """Which methods an automatic solver has used, and why."""

    tsit5 = "Tsit5 throughout: accuracy limited the steps."
    both = "Tsit5, and a stabilised method while stability would have limited the steps of Tsit5."
