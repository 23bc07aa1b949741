"""Theories without a closed form: a reduced flow, integrated once, is then a function of time."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ._checks import check_count, check_positive, require
from ._result import RESULTS
from ._solution import AbstractSolution

_State = TypeVar("_State")


class FlowPath(eqx.Module):
    """A state as a function of time, from `integrate_flow`.

    Inside, the arrays of the state lie in one vector: for the few numbers of a reduced flow, the time of a step would
    otherwise go into handling them one by one.

    **Attributes:**

    - `interpolation`: of the vector, on `[0, t1]`.
    - `t1`: the horizon.
    - `structure`, `shapes`: of the state.
    """

    interpolation: diffrax.DenseInterpolation
    t1: Float[Array, ""]
    structure: Any = eqx.field(static=True)
    shapes: tuple[tuple[int, ...], ...] = eqx.field(static=True)

    @property
    def dtype(self) -> Any:
        """Of the state and of time."""
        return self.interpolation.ts.dtype

    def evaluate(self, t: ArrayLike) -> PyTree:
        """The state at time `t`."""
        t = jnp.asarray(t, self.dtype)
        return _unpack(self.interpolation.evaluate(t), self.structure, self.shapes)


class AbstractReducedFlow(AbstractSolution[_State]):
    """A solution that was integrated up to the time `t1`, its horizon; later times raise.

    A theory puts `path = integrate_flow(vector_field, initial, t1)` into its `from_model(..., t1=...)`, and writes
    `reduce` and `vector_field` as every solution does. The time derivative is that of the stored polynomials, so
    `tx.residual` says how well the integration went.
    """

    path: eqx.AbstractVar["FlowPath"]

    @property
    def t1(self) -> Float[Array, ""]:
        """The horizon."""
        return self.path.t1

    def state(self, t: Float[Array, ""]) -> _State:
        """The state at time `t <= t1`."""
        return self.path.evaluate(t)


def integrate_flow(
    vector_field: Callable[[Any, PyTree], PyTree],
    initial: PyTree[Float[Array, "..."]],
    t1: ArrayLike,
    *,
    solver: diffrax.AbstractSolver | None = None,
    stepsize_controller: diffrax.AbstractStepSizeController | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    max_steps: int = 1024,
) -> FlowPath:
    """Integrates `y' = vector_field(t, y)` from time zero to `t1`.

    **Arguments:**

    - `vector_field`: a function of `(t, y)`. Bind parameters with `equinox.Partial` rather than a lambda, so that
      repeated calls reuse the compiled program.
    - `initial`: `y` at time zero, float arrays of one dtype.
    - `t1`: the horizon, positive.
    - `solver`, `stepsize_controller`, `adjoint`: as in `diffrax.diffeqsolve`. Defaults: `Dopri8`, whose dense output is
      as accurate as its steps; `PIDController` with `rtol=1e-12, atol=1e-14` (float32: `1e-6, 1e-9`);
      `RecursiveCheckpointAdjoint` that keeps every step.
    - `max_steps`: of the solver. Memory for all of them, some 14 copies of `y` each, is set aside.

    **Returns:**

    A `FlowPath` on `[0, t1]`.

    **Raises:**

    `ValueError` if `t1` is not one positive number, `max_steps` not a whole one, or the integration fails.
    """
    t1, max_steps = check_positive("t1", t1, scalar=True), check_count("max_steps", max_steps)
    dtype = jnp.result_type(*jax.tree.leaves(initial))
    if stepsize_controller is None:
        double = dtype == jnp.float64
        stepsize_controller = diffrax.PIDController(rtol=1e-12 if double else 1e-6, atol=1e-14 if double else 1e-9)
    solver = diffrax.Dopri8() if solver is None else solver
    if adjoint is None:
        # Steps computed anew in reverse may be rounded, then accepted or rejected otherwise than in the first place.
        adjoint = diffrax.RecursiveCheckpointAdjoint(checkpoints=max_steps)
    leaves, structure = jax.tree.flatten(initial)
    shapes = tuple(leaf.shape for leaf in leaves)
    t1 = t1.astype(dtype)
    path, result = _integrate(
        vector_field, initial, structure, shapes, t1, solver, stepsize_controller, adjoint, max_steps
    )
    message = (
        f"The reduced flow could not be integrated up to `t1` in {max_steps} steps: it diverges, is stiff, or needs a "
        "larger `max_steps`."
    )
    # On the numbers that every evaluation needs, not on all: a check copies what goes through it.
    path = eqx.tree_at(lambda p: p.ts_size, path, require(path.ts_size, result == RESULTS.successful, message))
    return FlowPath(path, t1, structure, shapes)


@eqx.filter_jit
def _integrate(
    vector_field, initial, structure, shapes, t1, solver, stepsize_controller, adjoint, max_steps
) -> tuple[Any, Any]:
    def flow(t, y, vector_field):
        return _pack(vector_field(t, _unpack(y, structure, shapes)))

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(flow),
        solver,
        t0=0.0,
        t1=t1,
        dt0=None,
        y0=_pack(initial),
        args=vector_field,
        saveat=diffrax.SaveAt(dense=True),
        stepsize_controller=stepsize_controller,
        adjoint=adjoint,
        max_steps=max_steps,
        throw=False,
    )
    return solution.interpolation, RESULTS.promote(solution.result)


def _pack(state: PyTree) -> Array:
    """One vector with all arrays of a state."""
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(state)])


def _unpack(y: Array, structure: Any, shapes: tuple[tuple[int, ...], ...]) -> PyTree:
    """The state whose arrays were packed into a vector."""
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    parts = zip(jnp.split(y, ends[:-1]), shapes, strict=True)
    return jax.tree.unflatten(structure, [part.reshape(shape) for part, shape in parts])
