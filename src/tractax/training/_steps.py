"""Iterate a step rule, storing nothing between the recorded times."""

from collections.abc import Callable

import diffrax
import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ..core import RESULTS, AbstractStepRule, Objective, OnFailure, Trajectory, check_key, settle
from ._observe import all_finite, observer, split

# Copies of the state kept when a run is differentiated in reverse; more saves time, fewer saves memory.
_CHECKPOINTS = 64


@eqx.filter_jit
def iterate(
    params: PyTree,
    objective: Objective,
    rule: AbstractStepRule,
    ts: Float[Array, " times"],
    observe: PyTree[Callable] | None,
    key: PRNGKeyArray | None,
    adjoint: diffrax.AbstractAdjoint,
    on_failure: OnFailure,
    meter: diffrax.AbstractProgressMeter,
) -> Trajectory:
    """A scan over the recorded times with a `while_loop` of steps between them."""
    if rule.random:
        check_key(key)
    time_per_step = rule.time_per_step.astype(ts.dtype)
    first = (params, rule.init(params))
    arrays_of, static = split(observer(observe), ts[0], first, params, objective)
    counts = jnp.rint(ts / time_per_step).astype(jnp.int32)
    if isinstance(adjoint, diffrax.ForwardMode):
        kind = {"kind": "lax"}
    else:
        kind = {"kind": "checkpointed", "checkpoints": getattr(adjoint, "checkpoints", None) or _CHECKPOINTS}

    # Meters start from a number of the default precision.
    total = jnp.maximum(counts[-1], 1).astype(jnp.result_type(float))

    def body(carry):
        step, params, state, progress = carry
        step_key = jax.random.fold_in(key, step) if rule.random else None  # pyright: ignore
        params, state = rule.step(params, state, objective, key=step_key)
        step = step + 1
        return step, params, state, meter.step(progress, step.astype(total.dtype) / total)

    def advance(carry, count):
        carry = eqxi.while_loop(lambda carry: carry[0] < count, body, carry, **kind)
        step, params, state, _ = carry
        return carry, arrays_of(step.astype(ts.dtype) * time_per_step, (params, state), params, objective)

    start = (jnp.asarray(0, jnp.int32), *first, meter.init())
    (step, params, _, progress), observed = jax.lax.scan(advance, start, counts)
    meter.close(progress)
    result = RESULTS.where(all_finite(params), RESULTS.successful, RESULTS.diverged)
    stats = {"num_steps": step}
    final = objective.model(params)
    recorded = counts.astype(ts.dtype) * time_per_step
    trajectory = Trajectory(recorded, eqx.combine(observed, static), final, stats, result)
    return settle(trajectory, on_failure)
