"""Whether training forgets or magnifies small differences: the largest Lyapunov exponent of a flow."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ..core import AbstractFlowRule, AbstractRule, Objective, check_key, check_positive, standard_normal


def lyapunov_exponent(
    model: PyTree,
    task: PyTree,
    rule: AbstractRule,
    t1: ArrayLike,
    *,
    key: PRNGKeyArray,
    solver: diffrax.AbstractSolver | None = None,
    stepsize_controller: diffrax.AbstractStepSizeController | None = None,
    max_steps: int = 100_000,
) -> Float[Array, ""]:
    r"""The mean rate at which a small difference in the state grows up to `t1`; positive late in training for chaos.

    The state $y$ of the rule is integrated together with a tangent vector $v$ of random direction, $\dot v = Jv$ kept at
    length one, and the rate is the mean of $v^\top\!Jv$. The start counts as well, so that the error falls as $1/t_1$.

    **Arguments:**

    - `model`, `task`, `rule`: as in `train`, with a flow rule that has one ordinary differential equation.
    - `t1`: the duration, positive.
    - `key`: for the direction of the first difference.
    - `solver`, `stepsize_controller`, `max_steps`: as in `diffrax.diffeqsolve`; by default Tsit5 at tight tolerances.

    **Raises:**

    `ValueError` for a rule in discrete time or with noise, or a duration that is not positive.
    """
    check_key(key)
    t1 = check_positive("t1", t1)
    if not isinstance(rule, AbstractFlowRule):
        raise ValueError(f"`rule` must be a flow rule; got {type(rule).__name__}.")
    params, static = eqx.partition(model, eqx.is_inexact_array)
    objective, state = Objective(task, static), rule.init(params)
    y0, unravel = ravel_pytree(state)
    term = rule.terms(state, 0.0, t1, key=key)
    if not isinstance(term, diffrax.ODETerm):
        raise ValueError(f"`rule` must have one ordinary differential equation; got {type(term).__name__}.")

    def velocity(t: Any, y: Array) -> Array:
        return ravel_pytree(term.vector_field(t, unravel(y), objective))[0]

    def extended(t: Any, state: tuple[Array, Array, Array], args: Any) -> tuple[Array, Array, Array]:
        y, v, _ = state
        length = jnp.linalg.norm(v)
        unit = v / length
        speed, change = jax.jvp(lambda y: velocity(t, y), (y,), (unit,))
        rate = unit @ change
        # The last term keeps the length at one where neighbours come closer.
        return speed, change - rate * unit - (length - 1) * v, rate

    draw = standard_normal(key, y0.shape, y0.dtype)
    double = y0.dtype == jnp.float64
    tight = diffrax.PIDController(rtol=1e-8 if double else 1e-5, atol=1e-10 if double else 1e-7)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(extended),
        diffrax.Tsit5() if solver is None else solver,
        t0=0.0,
        t1=t1.astype(y0.dtype),
        dt0=None,
        y0=(y0, draw / jnp.linalg.norm(draw), jnp.zeros((), y0.dtype)),
        stepsize_controller=tight if stepsize_controller is None else stepsize_controller,
        max_steps=max_steps,
    )
    growth = jax.tree.leaves(solution.ys)[-1]
    return growth[-1] / t1.astype(y0.dtype)
