"""Simulate one training run."""

from collections.abc import Callable, Sequence

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, PRNGKeyArray, PyTree

from ..core import (
    AbstractFlowRule,
    AbstractRule,
    AbstractStepRule,
    AbstractTask,
    Objective,
    Trajectory,
    check_times,
)
from ._choice import integrate_by_choice, may_choose
from ._flow import integrate
from ._member import inside_ensemble, note_state
from ._observe import check_observe
from ._steps import iterate

Observable = PyTree[Callable[..., PyTree]]

# Made once, since making a module costs as much as a few steps of a small network.
_ADJOINT, _METER, _SOLVER = diffrax.RecursiveCheckpointAdjoint(), diffrax.NoProgressMeter(), diffrax.Tsit5()


def train(
    model: PyTree,
    task: AbstractTask,
    rule: AbstractRule,
    ts: ArrayLike | Sequence[float],
    *,
    observe: Observable | None = None,
    key: PRNGKeyArray | None = None,
    solver: diffrax.AbstractSolver | None = None,
    stepsize_controller: diffrax.AbstractStepSizeController | None = None,
    dt0: ArrayLike | None = None,
    event: diffrax.Event | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    max_steps: int | None = None,
    throw: bool = True,
    progress_meter: diffrax.AbstractProgressMeter | None = None,
) -> Trajectory:
    """Trains `model` on `task` by `rule`, and records observables at the times `ts`.

    Training starts at time zero. Only what `observe` returns is kept, never the history of the parameters (unless asked
    for: `observe=lambda model: model`).

    **Arguments:**

    - `model`: an Equinox module; its floating-point arrays are trained. They must be real.
    - `task`: where the error comes from.
    - `rule`: a flow rule (`tx.GradientFlow`), integrated by diffrax, or a step rule (`tx.GradientDescent`), iterated.
    - `ts`: the times to record at, shape `(times,)`, non-negative and increasing, in units of flow time. A step rule
      records after the nearest whole number of steps, `round(t / rule.time_per_step)`.
    - `observe`: a function of the model, or a PyTree of them; `None` records the loss. Numbers are recorded as floats.
      `tx.OfState(function)` sees the rule's whole state instead: Lyapunov functions, velocities, moments.
      Pass bound methods (`task.loss`, `solution.reduce`) or functions defined once, so that repeated calls reuse the
      compiled program.
    - `key`: a PRNG key, needed by random rules only.
    - `solver`, `stepsize_controller`, `dt0`, `event`, `adjoint`, `max_steps`, `throw`, `progress_meter`: as in
      `diffrax.diffeqsolve`. Defaults: `Tsit5`, which hands over to `tx.solvers.Automatic` when stability limits the
      steps of a gradient flow (not under `jax.jit`, `grad` or `vmap`, where nothing can be measured on the way: name a
      solver there); `stats["methods"]` and `stats["stiffness"]` say what happened and why; `PIDController` with
      `rtol=1e-8, atol=1e-12` (float32: `1e-5, 1e-8`); `RecursiveCheckpointAdjoint`; 131072 steps; no meter. Of these,
      step rules use `adjoint` (`ForwardMode` for `jax.jvp`, otherwise reverse mode), `throw` and `progress_meter`, and
      refuse the others.

    **Returns:**

    A `tx.Trajectory`.

    **Raises:**

    `ValueError` for times that are negative, unordered or not finite, a rule of an unknown kind, or an option that the
    rule cannot use. A run that fails raises an error with its causes and remedies, or with `throw=False` returns with
    its `result` set. Inside `tx.ensemble` it never raises: what it recorded and trained is NaN then.
    """
    params, static = eqx.partition(model, eqx.is_inexact_array)
    leaves = jax.tree.leaves(params)
    if not isinstance(task, AbstractTask):
        raise ValueError(f"`task` must be a task, a subclass of tx.AbstractTask; got {type(task).__name__}.")
    if not leaves:
        raise ValueError("`model` must contain floating-point arrays to train; it has none.")
    if any(jnp.iscomplexobj(leaf) for leaf in leaves):
        # Their gradients are conjugate to the direction of ascent.
        raise ValueError("`model` must contain real arrays to train; it has complex ones.")
    ts = check_times("ts", ts, jnp.finfo(jnp.result_type(*leaves)).dtype)
    note_state(sum(leaf.size for leaf in leaves))
    # In an ensemble one failure must not stop the others.
    on_failure = "mask" if inside_ensemble() else "raise" if throw else "return"
    objective = Objective(task, static)
    if observe is not None:
        check_observe(observe)
    adjoint = _ADJOINT if adjoint is None else adjoint
    meter = _METER if progress_meter is None else progress_meter
    if isinstance(rule, AbstractFlowRule):
        options = {
            # An array, since a Python number would be compiled into the program.
            "dt0": None if dt0 is None else jnp.asarray(dt0, ts.dtype),
            "event": event,
            "adjoint": adjoint,
            "max_steps": 2**17 if max_steps is None else max_steps,
            "progress_meter": meter,
        }
        free = solver is None and may_choose((params, objective, ts, observe), rule, stepsize_controller, options)
        solver = _SOLVER if solver is None else solver
        if free:
            controller = stepsize_controller
            return integrate_by_choice(params, objective, rule, ts, observe, controller, solver, on_failure, options)
        return integrate(params, objective, rule, ts, observe, key, stepsize_controller, solver, on_failure, options)
    if isinstance(rule, AbstractStepRule):
        unused = {
            "solver": solver,
            "stepsize_controller": stepsize_controller,
            "dt0": dt0,
            "event": event,
            "max_steps": max_steps,
        }
        given = [name for name, option in unused.items() if option is not None]
        if given:
            raise ValueError(f"`{given[0]}` applies to flow rules only; {type(rule).__name__} takes discrete steps.")
        return iterate(params, objective, rule, ts, observe, key, adjoint, on_failure, meter)
    raise ValueError(f"`rule` must be a flow rule or a step rule, such as tx.GradientFlow(); got {rule!r}.")
