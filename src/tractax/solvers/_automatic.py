"""Tsit5 while accuracy limits the steps, a stabilised method while stability does."""

from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree

from ..core import METHODS, AbstractReportingSolver
from ._packed import Packed
from ._recurrence import ScanKind
from ._stabilised import LIFETIME, AbstractStabilisedSolver, Interval, StabilisedState, check_problem
from .rkc4 import RKC4

_TSIT5_STAGES = 6
# Where Tsit5 ceases to be stable on the negative real axis; steps that hover there are seen above the lower number.
_TSIT5_INTERVAL = 3.5
_STIFF = 3.0
# Stiff steps until the stabilised method is tried; twice as many after each attempt that did not pay off.
_PATIENCE = 10
_MOST_PATIENCE = 320
# Steps of the stabilised method until it is asked whether it pays: it begins with the short ones of Tsit5.
_TRIAL = 5


class Interpolation(diffrax.AbstractLocalInterpolation):
    """Tsit5's interpolation, or for a stabilised step the cubic through both ends and the slopes there.

    Both are $y_0 + w (y_1 - y_0) + \\sum_i w_i k_i$, with the stages of Tsit5 of which the first and the last are the
    slopes at both ends.
    """

    t0: Any
    t1: Any
    y0: PyTree
    y1: PyTree
    k: PyTree
    k0: PyTree
    k1: PyTree
    stabilised: Bool[Array, ""]

    def evaluate(self, t0: ArrayLike, t1: ArrayLike | None = None, left: bool = True) -> PyTree:
        """The state at `t0`; with `t1`, the increment from `t0` to `t1`."""
        del left
        if t1 is not None:
            return jax.tree.map(jnp.subtract, self.evaluate(t1), self.evaluate(t0))
        gap = self.t1 - self.t0
        x = jnp.where(gap == 0, 0, (t0 - self.t0) / jnp.where(gap == 0, 1, gap))
        nothing = jnp.zeros(7, x.dtype)
        unit = diffrax.Tsit5.interpolation_cls(t0=0.0, t1=1.0, y0=nothing, y1=None, k=jnp.eye(7, dtype=x.dtype))
        cubic = nothing.at[0].set(x * (1 - x) ** 2).at[-1].set(x**2 * (x - 1))
        weights = jnp.where(self.stabilised, cubic, unit.evaluate(x))
        weight = jnp.where(self.stabilised, x**2 * (3 - 2 * x), 0)

        def combine(y0, y1, k, k0, k1):
            w = weights.astype(y0.dtype)
            inner = jnp.tensordot(w[1:-1], k[1:-1], axes=1, precision=jax.lax.Precision.HIGHEST)
            return y0 + weight.astype(y0.dtype) * (y1 - y0) + w[0] * k0 + inner + w[-1] * k1

        return jax.tree.map(combine, self.y0, self.y1, self.k, self.k0, self.k1)


class AutomaticState(eqx.Module):
    """What an automatic solver remembers.

    **Attributes:**

    - `inner`: the state of the stabilised method.
    - `stabilised`: whether that method takes the next step.
    - `count`: its steps since it took over; before, the steps of Tsit5 that stability limited, less those that it did
      not, but not below zero.
    - `patience`: the count at which it takes over.
    - `num_steps_stabilised`: accepted steps of the stabilised method.
    """

    inner: StabilisedState
    stabilised: Bool[Array, ""]
    count: Int[Array, ""]
    patience: Int[Array, ""]
    num_steps_stabilised: Int[Array, ""]


class Automatic(AbstractReportingSolver[Packed[AutomaticState]]):
    r"""Tsit5 that hands over to a stabilised method when the problem turns stiff, and takes back when it does not pay.

    Tsit5's last two stages are at the same time, so that their difference shows the stiffest eigenvalue without further
    work (Shampine 1977; Hairer and Wanner 1996, section IV.2). When it keeps saying that stability limits the steps, the
    stabilised method takes over, which measures the spectral radius $\rho$. After a few steps on trial it keeps
    on for as long as it needs fewer gradients per unit of time than Tsit5 would at the limit of its stability.

    **Arguments:**

    - `stabilised`: the method for stiff phases.
    - `patience`: the number of stiff steps after which it is first tried; with 0, where the problem is known to be stiff
      from the start, after one step of any kind.

    Steps of constant length are for a stabilised method alone: too long ones of Tsit5 would overflow before it is tried.
    """

    stabilised: AbstractStabilisedSolver = RKC4()
    patience: int = _PATIENCE

    term_structure: ClassVar[type[diffrax.AbstractTerm]] = diffrax.AbstractTerm
    interpolation_cls: ClassVar[Callable[..., Interpolation]] = Interpolation

    @property
    def scan_kind(self) -> ScanKind:
        """How the loops over stages can be differentiated."""
        return self.stabilised.scan_kind

    def order(self, terms: PyTree[diffrax.AbstractTerm]) -> int | None:
        """That of the stabilised method, the lesser one."""
        return self.stabilised.order(terms)

    def error_order(self, terms: PyTree[diffrax.AbstractTerm]) -> int:
        """Tsit5's. A stabilised method's steps are then adapted more gently than they might be, to the same size."""
        return 5

    def func(self, terms: diffrax.AbstractTerm, t0: Any, y0: PyTree, args: Any) -> PyTree:
        """The vector field."""
        return terms.vf(t0, y0, args)

    def init(self, terms: diffrax.AbstractTerm, t0: Any, t1: Any, y0: PyTree, args: Any) -> Packed[AutomaticState]:
        """The state before the first step."""
        check_problem(self, terms, t0, t1, y0)
        state = AutomaticState(
            # Tsit5 begins, and evaluates the vector field.
            inner=StabilisedState.start(jax.tree.map(jnp.zeros_like, y0), 0),
            stabilised=jnp.asarray(False),
            count=jnp.int32(0),
            patience=jnp.int32(self.patience),
            num_steps_stabilised=jnp.int32(0),
        )
        return Packed(state)

    def step(
        self,
        terms: diffrax.AbstractTerm,
        t0: Any,
        t1: Any,
        y0: PyTree,
        args: Any,
        solver_state: Packed[AutomaticState],
        made_jump: Any,
    ) -> tuple[PyTree, PyTree, dict[str, PyTree], Packed[AutomaticState], diffrax.RESULTS]:
        """One step from `t0` to `t1`, by either method."""
        state = solver_state.tree
        interval = Interval(terms, t0, t1, args)
        inner = interval.restart(y0, state.inner, made_jump)
        first = inner.num_gradients == 0

        def tsit5():
            # Under `vmap`, steps of no length for those that the stabilised method advances, so that nothing overflows.
            end = jnp.where(state.stabilised, t0, t1)
            solver = diffrax.Tsit5(scan_kind=self.scan_kind)
            fsal = (first, inner.vector_field)
            y1, error, dense_info, after, _ = solver.step(terms, t0, end, y0, args, fsal, False)
            _, f1 = after  # pyright: ignore
            return y1, error, dense_info["k"], f1, _is_stiff(dense_info["k"])

        def nothing():
            k = jax.tree.map(lambda y: jnp.zeros((_TSIT5_STAGES + 1, *y.shape), y.dtype), y0)
            return y0, y0, k, inner.vector_field, jnp.asarray(False)

        # Under `vmap` both methods run if they must, each only if some member of the batch uses it.
        y1, error, k, f1, is_stiff = jax.lax.cond(eqxi.unvmap_any(~state.stabilised), tsit5, nothing)
        length = jnp.abs(interval.length).astype(inner.length.dtype)
        step = (y1, error, Packed(inner.after(f1, length, _TSIT5_STAGES + jnp.where(first, 1, 0))))

        def stabilised():
            y1, error, after = self.stabilised.attempt(interval, y0, inner, state.stabilised)
            instead = (y1, error, Packed(after))
            return jax.tree.map(lambda a, b: jnp.where(state.stabilised, a, b), instead, step)

        y1, error, after = jax.lax.cond(eqxi.unvmap_any(state.stabilised), stabilised, lambda: step)
        after = after.tree
        dense_info = {
            "y0": y0,
            "y1": y1,
            "k": k,
            "k0": interval.slope(inner),
            "k1": interval.slope(after),
            "stabilised": state.stabilised,
        }
        state = self._choose(state, after, is_stiff)
        return y1, error, dense_info, Packed(state), diffrax.RESULTS.successful

    def _choose(self, state: AutomaticState, inner: StabilisedState, is_stiff: Bool[Array, ""]) -> AutomaticState:
        """Who takes the next step."""
        evidence = jnp.where(is_stiff, state.count + 1, jnp.maximum(state.count - 1, 0))
        begin = ~state.stabilised & (evidence >= state.patience)
        work = (inner.num_gradients - state.inner.num_gradients).astype(inner.length.dtype)
        # What Tsit5 would have needed, a rejected step in five included.
        alternative = 1.2 * _TSIT5_STAGES / _TSIT5_INTERVAL * inner.length * inner.spectral_radius
        end = state.stabilised & (state.count >= _TRIAL) & (work > alternative)
        longer = jnp.minimum(2 * state.patience, _MOST_PATIENCE)
        patience = jnp.where(state.count < state.patience, longer, _PATIENCE)
        return AutomaticState(
            inner=eqx.tree_at(lambda inner: inner.age, inner, jnp.where(begin, LIFETIME, inner.age)),
            stabilised=(state.stabilised | begin) & ~end,
            count=jnp.where(begin | end, 0, jnp.where(state.stabilised, state.count + 1, evidence)),
            patience=jnp.where(end, patience, state.patience),
            num_steps_stabilised=state.num_steps_stabilised + jnp.where(state.stabilised, 1, 0),
        )

    def statistics(self, solver_state: Packed[AutomaticState]) -> dict[str, Any]:
        """As of a stabilised solver, with `num_steps_stabilised` and `methods`, a `tx.solvers.METHODS` code."""
        state = solver_state.tree
        return state.inner.statistics() | {
            "num_steps_stabilised": state.num_steps_stabilised,
            "methods": METHODS.where(state.num_steps_stabilised > 0, METHODS.both, METHODS.tsit5),
        }


def _is_stiff(k: PyTree[Float[Array, "7 ..."]]) -> Bool[Array, ""]:
    """Whether stability limited a step, by the change of Tsit5's last two stages and of the vector field there."""
    before, last = (np.pad(row, (0, 7 - len(row))) for row in diffrax.Tsit5.tableau.a_lower[-2:])

    def excess(k):
        state = sum(k.dtype.type(w) * k[j] for j, w in enumerate(last - before) if w != 0)
        return jnp.sum(jnp.square(k[-1] - k[-2]) - jnp.square(_STIFF * state))

    return sum(jax.tree.leaves(jax.tree.map(excess, k))) > 0
