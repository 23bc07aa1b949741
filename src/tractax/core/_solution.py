"""What theory says: a function of time."""

import abc
from typing import Any, ClassVar, Generic, Literal, TypeVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ._checks import as_float_array, require

Kind = Literal["exact", "asymptotic", "bound", "phenomenon"]
_State = TypeVar("_State")


class AbstractSolution(diffrax.AbstractPath, Generic[_State]):
    """A solved training run, as a path in time from `t0 = 0` to `t1 = inf`.

    A theory implements `state` (what it predicts at one time), `reduce` (the same quantities read off a network) and
    `vector_field` (their own differential equation); and, where theory has one, `limit`. Because `reduce` and
    `evaluate` return the same PyTree, comparing theory with simulation is a comparison of trees:

    ```python
    trajectory = tx.train(model, task, rule, ts, observe=solution.reduce)
    tx.compare(solution, trajectory).worst
    ```
    """

    kind: eqx.AbstractClassVar[Kind]
    t0: ClassVar[float] = 0.0
    t1: ClassVar[Any] = float("inf")

    @abc.abstractmethod
    def state(self, t: Float[Array, ""]) -> _State:
        """The predicted state at one time `t >= 0`."""

    @abc.abstractmethod
    def reduce(self, model: PyTree) -> _State:
        """The state of an actual network: the one place where theory and simulation meet."""

    def vector_field(self, t: Float[Array, ""], state: _State) -> _State:
        """The time derivative of the state, where it obeys a differential equation; `residual` checks against it."""
        raise ValueError(f"{type(self).__name__} is not the solution of a differential equation in its own state.")

    def limit(self) -> _State:
        """The state as t → ∞, where theory knows it."""
        raise ValueError(f"{type(self).__name__} has no closed form for t → ∞; evaluate it at a large time instead.")

    def evaluate(self, t0: ArrayLike, t1: ArrayLike | None = None, left: bool = True) -> _State:
        """The state at `t0`; or, with `t1`, the increment from `t0` to `t1`.

        **Arguments:**

        - `t0`: one time, a scalar, not negative. For many times, `jax.vmap(solution.evaluate)(ts)`.
        - `t1`: another time; then the increment `evaluate(t1) - evaluate(t0)` is returned.
        - `left`: ignored; solutions are continuous.

        **Returns:**

        The state, a PyTree of arrays.

        **Raises:**

        `ValueError` if a time is negative, NaN, not a scalar, or beyond the horizon `t1` of a solution that has one.
        """
        del left
        if t1 is not None:
            return jax.tree.map(jnp.subtract, self.evaluate(t1), self.evaluate(t0))
        t = as_float_array("t0", t0)
        if t.ndim != 0:
            raise ValueError(
                f"`t0` must be one time, a scalar; got shape {t.shape}. Use jax.vmap(solution.evaluate)(ts)."
            )
        t = require(t, t >= 0, f"`t0` must be a time, t >= 0; got {t0}.")
        if not isinstance(self.t1, float):
            # A multiple of a time step may differ from it by rounding.
            last = self.t1 * (1 + 4 * jnp.finfo(self.t1.dtype).eps)
            message = f"`t0` must not exceed t1, the horizon of {type(self).__name__}; from_model takes a longer one."
            t = require(t, t.astype(last.dtype) <= last, message)
        return _state(self, t)


@eqx.filter_jit
def _state(solution: AbstractSolution[_State], t: Float[Array, ""]) -> _State:
    # One program, also for those who call `evaluate` outside of `jax.jit`.
    return solution.state(t)
