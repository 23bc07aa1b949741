r"""Choose the method of a gradient flow: Tsit5, handed over once stability limits its steps.

Whether a flow is stiff shows only on the way, since small weights have small curvature. So Tsit5 begins, with a budget
of steps. When it is used up, a few Jacobian-vector products measure the spectral radius $\rho$. Tsit5's steps $h$ are
limited by stability, not by accuracy, where $h\rho$ hovers about 3.3; then a stabilised method goes on. Otherwise Tsit5
does, with twice the budget. Numbers are looked at, so that none of this happens in a program that is being traced.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import METHODS, RESULTS, AbstractFlowRule, Objective, OnFailure, Trajectory, settle
from ._controller import GivingUp, Pause, default_controller
from ._flow import solve

_FIRST_BUDGET = 256
# On the negative real axis Tsit5 is stable up to about 3.3; rejected steps make its length waver below.
_STIFF = 2.0
# diffrax's own first step where none is asked for.
_FIRST_STEP = 0.01
_MAX_PRODUCTS = 30


def may_choose(inputs: PyTree, rule: AbstractFlowRule, controller: Any, options: dict[str, Any]) -> bool:
    """Whether the method can be chosen on the way."""
    return (
        rule.real_spectrum
        and (controller is None or type(controller) is diffrax.PIDController)
        and options["event"] is None
        and type(options["adjoint"]) is diffrax.RecursiveCheckpointAdjoint
        and not any(isinstance(x, Tracer) for x in jax.tree.leaves((inputs, rule, controller, options)))
    )


class _Leg(NamedTuple):
    """The next part of a run: where it starts, its first step, its budget of steps, and the stiffness seen before."""

    time: ArrayLike
    state: PyTree
    length: ArrayLike
    budget: ArrayLike
    stiffness: ArrayLike


def integrate_by_choice(
    params: PyTree,
    objective: Objective,
    rule: AbstractFlowRule,
    ts: Float[Array, " times"],
    observe: PyTree[Callable] | None,
    controller: diffrax.PIDController | None,
    solver: diffrax.AbstractSolver,
    on_failure: OnFailure,
    options: dict[str, Any],
) -> Trajectory:
    """A run in legs, until it has arrived or failed; the first by `solver`, which is `Tsit5`."""
    # NumPy's scalars, since every call of a small JAX function costs as much as many steps of a small network.
    number = ts.dtype.type
    length = number(_FIRST_STEP) if options["dt0"] is None else options["dt0"]
    left, earlier = options["max_steps"], None
    leg = _Leg(number(0), rule.init(params), length, np.int32(min(_FIRST_BUDGET, left)), number(0))
    options = {name: option for name, option in options.items() if name != "dt0"}
    while True:
        trajectory, state, pause = _run(leg, objective, rule, ts, observe, controller, solver, on_failure, options)
        if earlier is not None:
            trajectory = _join(earlier, trajectory, leg.time)
        if not pause.paused:
            return trajectory
        left -= int(leg.budget)
        if left == 0:
            result = RESULTS.promote(diffrax.RESULTS.max_steps_reached)
            return settle(eqx.tree_at(lambda t: t.result, trajectory, result), on_failure)
        earlier, budget = trajectory, 2 * int(leg.budget)
        stiffness = _stiffness(rule, objective, state, pause.time, pause.length)
        if stiffness > _STIFF:
            # Read only when needed: its tables take time to load. It takes back where it does not pay.
            from ..solvers import Automatic

            solver, budget = Automatic(patience=0), left
        leg = _Leg(pause.time, state, pause.length, np.int32(min(budget, left)), stiffness)


@eqx.filter_jit
def _run(
    leg: _Leg,
    objective: Objective,
    rule: AbstractFlowRule,
    ts: Float[Array, " times"],
    observe: PyTree[Callable] | None,
    controller: diffrax.PIDController | None,
    solver: diffrax.AbstractSolver,
    on_failure: OnFailure,
    options: dict[str, Any],
) -> tuple[Trajectory, PyTree, Pause]:
    """One leg: what it recorded, the last state, and where it stands."""
    if controller is None:
        watched = default_controller(ts[-1], budget=leg.budget)
    else:
        watched = GivingUp(controller, jnp.zeros_like(ts[0]), leg.budget)  # pyright: ignore
    # Times of earlier legs are recorded once more, at the start.
    later = jnp.maximum(ts, leg.time)
    start, options = (leg.time, leg.state), options | {"dt0": leg.length}
    trajectory, solution = solve(start, objective, rule, later, observe, None, watched, solver, on_failure, options)
    # Of a leg by Tsit5; a reporting solver says so itself.
    counted = {"methods": METHODS.tsit5, "num_gradients": 6 * trajectory.stats["num_accepted_steps"] + 1}
    stats = counted | trajectory.stats | {"stiffness": leg.stiffness}
    trajectory = Trajectory(ts, trajectory.observed, trajectory.model, stats, trajectory.result)
    return trajectory, solution.last, solution.pause  # pyright: ignore


@eqx.filter_jit
def _join(earlier: Trajectory, later: Trajectory, time: ArrayLike) -> Trajectory:
    """Two legs that meet at a time."""
    before = earlier.ts <= time
    early, static = eqx.partition(earlier.observed, eqx.is_array)
    late = eqx.filter(later.observed, eqx.is_array)
    observed = jax.tree.map(lambda a, b: jnp.where(before.reshape(-1, *[1] * (a.ndim - 1)), a, b), early, late)
    counts = {name: earlier.stats[name] + later.stats[name] for name in earlier.stats if name.startswith("num_")}
    return Trajectory(later.ts, eqx.combine(observed, static), later.model, later.stats | counts, later.result)


@eqx.filter_jit
def _stiffness(
    rule: AbstractFlowRule, objective: Objective, state: PyTree, time: ArrayLike, length: Float[Array, ""]
) -> Float[Array, ""]:
    """The length of a step times the spectral radius."""
    from ..solvers import spectral_radius

    (term,) = jax.tree.leaves(rule.terms(state, time, time, key=None), is_leaf=lambda x: isinstance(x, diffrax.ODETerm))
    flat, unravel = ravel_pytree(state)

    def product(direction):
        def field(y):
            return ravel_pytree(term.vf(time, unravel(y), objective))[0]

        return jax.jvp(field, (flat,), (direction,))[1]

    nothing = jnp.zeros_like(flat)
    radius, _, _ = spectral_radius(product, nothing, nothing[0], _MAX_PRODUCTS)
    return length * radius.astype(length.dtype)
