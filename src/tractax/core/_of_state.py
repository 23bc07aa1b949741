"""An observable that needs more than the model."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
from jaxtyping import PyTree

from ._rule import Objective


class OfState(eqx.Module):
    """An observable of the whole state of a rule, velocities and moments included.

    `tx.train` shows observables the model. Those of `OfState(function)` are called with the arguments of a vector field,
    so that Lyapunov functions and energies are recorded as the loss is:

    ```python
    tx.train(model, task, rule, ts, observe={"loss": task.loss, "H": tx.OfState(rule.lyapunov)})
    ```

    **Arguments:**

    - `function`: of the time, the state and the objective. The state is that of a flow rule, or the parameters and the
      optimiser's state of a step rule.
    """

    function: Callable[[Any, PyTree, Objective], PyTree]

    def __call__(self, t: Any, state: PyTree, objective: Objective) -> PyTree:
        """What is observed."""
        return self.function(t, state, objective)
