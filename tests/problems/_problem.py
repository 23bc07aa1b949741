from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Array

from tractax.systems import Run


@dataclass(frozen=True)
class Problem:
    """A training run with a solution, as a function of one number.

    - `name`: unique.
    - `run`: builds the run from a scalar knob (say, the initial scale), using the knob's dtype throughout. It must be
      traceable, since it is compiled and gradients and vmaps go through it; functions in it refer to NumPy's arrays only.
    - `knob`: the value to run at.
    - `agreement`: largest relative error against a tight simulation.
    - `residual`: largest relative residual of the differential equation; `None` if the state obeys none.
    - `late`: a time at which `limit` is reached to 1e-6; `None` if theory has no limit.
    - `slow`: whether all checks of it run with `-m slow` only, since an integrated solution takes long to compile.

    The checks ask for no time beyond the horizon of the solution, its `t1`, except to see that it refuses. The dense
    output of a reduced flow needs a larger `residual`: about 1e-7.
    """

    name: str
    run: Callable[[Array], Run]
    knob: float
    agreement: float = 1e-8
    residual: float | None = 1e-10
    late: float | None = 1e3
    slow: bool = False
