"""Does a solution satisfy its own differential equation?"""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
from jaxtyping import ArrayLike, PyTree

from ..core import AbstractSolution, check_times
from ._compare import Comparison, difference


def residual(
    solution: AbstractSolution,
    ts: ArrayLike | Sequence[float],
    *,
    vector_field: Callable[[Any, PyTree], PyTree] | None = None,
) -> Comparison:
    """Compares the time derivative of a solution with a vector field, without any integrator.

    The derivative is automatic (`solution.derivative`), so a correct closed form passes at machine precision.

    **Arguments:**

    - `solution`: a function of time.
    - `ts`: the times to check at, shape `(times,)`.
    - `vector_field`: a function of `(t, state)`; `None` for the solution's own.

    **Returns:**

    A `tx.analysis.Comparison` of $\\dot y(t)$ with $F(t, y(t))$.
    """
    if not isinstance(solution, AbstractSolution):
        raise ValueError(f"`solution` must be the solution of a theory; got {type(solution).__name__}.")
    ts = check_times("ts", ts)
    return difference(*_sides(solution, ts, solution.vector_field if vector_field is None else vector_field), ts)


@eqx.filter_jit
def _sides(solution: AbstractSolution, ts: Any, vector_field: Callable) -> tuple[PyTree, PyTree]:
    derivatives = eqx.filter_vmap(solution.derivative)(ts)
    fields = eqx.filter_vmap(lambda t: vector_field(t, solution.evaluate(t)))(ts)
    return derivatives, fields
