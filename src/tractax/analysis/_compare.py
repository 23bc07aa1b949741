"""How far two functions of time are apart."""

from collections.abc import Sequence

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import Trajectory, check_times, require


class Comparison(eqx.Module):
    """Errors between two functions of time, observable by observable.

    **Attributes:**

    - `ts`: the times, shape `(times,)`.
    - `absolute`: the distance of each array (Frobenius norm) at each time; the PyTree of the observables, with arrays of
      shape `(times,)`.
    - `relative`: the same divided by the largest finite norm that either function's array reaches over `ts`.

    Where a trajectory recorded nothing, after an event or a failure, both errors are infinite.
    """

    ts: Float[Array, " times"]
    absolute: PyTree[Float[Array, " times"]]
    relative: PyTree[Float[Array, " times"]]

    @property
    def worst(self) -> Float[Array, ""]:
        """The largest relative error of any observable at any time (NaN if any is NaN)."""
        return jnp.max(jnp.stack([jnp.max(leaf) for leaf in jax.tree.leaves(self.relative)]))


def compare(
    a: diffrax.AbstractPath, b: diffrax.AbstractPath, ts: ArrayLike | Sequence[float] | None = None
) -> Comparison:
    """Compares theory with simulation, two theories, or two simulations.

    **Arguments:**

    - `a`, `b`: solutions, trajectories, or any other `diffrax.AbstractPath`, whose values are PyTrees of the same
      structure and shapes.
    - `ts`: the times to compare at, shape `(times,)`; `None` for the times that `b`, or else `a`, a trajectory, recorded.
      At other times a trajectory is interpolated linearly, which has an error of its own.

    **Returns:**

    A `Comparison`; its `worst` is the one number to look at first.

    **Raises:**

    `ValueError` if the observables differ in structure or shape or hold no arrays, if `ts` is needed and missing, or if
    it leaves the times that a trajectory recorded.
    """
    if ts is None:
        recorded = [path.ts for path in (b, a) if isinstance(path, Trajectory)]
        if not recorded:
            raise ValueError("`ts` must be given when neither `a` nor `b` is a recorded trajectory.")
        ts = recorded[0]
    else:
        ts = check_times("ts", ts)
    return difference(_values(a, ts), _values(b, ts), ts)


def difference(x: PyTree, y: PyTree, ts: Float[Array, " times"]) -> Comparison:
    """Compares two PyTrees of arrays with a leading time axis."""
    if jax.tree.structure(x) != jax.tree.structure(y):
        raise ValueError(
            "`a` and `b` must have observables of the same structure; got "
            f"{jax.tree.structure(x)} and {jax.tree.structure(y)}. Train with `observe=solution.reduce`."
        )
    if not jax.tree.leaves(x):
        raise ValueError("`a` and `b` must have observables that are arrays; they have none.")
    shapes = [(p.shape, q.shape) for p, q in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True)]
    for first, second in shapes:
        if first != second:
            raise ValueError(f"`a` and `b` must have observables of the same shapes; got {first} and {second}.")
    return Comparison(ts, *_errors(x, y))


def _values(path: diffrax.AbstractPath, ts: Float[Array, " times"]) -> PyTree:
    if not isinstance(path, diffrax.AbstractPath):
        raise ValueError(f"`a` and `b` must be solutions, trajectories or other paths; got {type(path).__name__}.")
    if isinstance(path, Trajectory):
        if path.ts is ts:
            return eqx.filter(path.observed, eqx.is_array)
        ts = ts.astype(path.ts.dtype)
        inside = (ts[0] >= path.ts[0]) & (ts[-1] <= path.ts[-1])
        ts = require(ts, inside, "`ts` must lie between the first and the last time that the trajectory recorded.")
    return eqx.filter(_evaluate(path, ts), eqx.is_array)


@eqx.filter_jit
def _evaluate(path: diffrax.AbstractPath, ts: Float[Array, " times"]) -> PyTree:
    return eqx.filter_vmap(path.evaluate)(ts)


@jax.jit
def _errors(x: PyTree, y: PyTree) -> tuple[PyTree, PyTree]:
    absolute = jax.tree.map(lambda p, q: _norms(p - q), x, y)
    return absolute, jax.tree.map(_relative, absolute, x, y)


def _norms(x: Array) -> Float[Array, " times"]:
    return jnp.linalg.norm(x.reshape(x.shape[0], -1), axis=1)


def _relative(absolute: Array, x: Array, y: Array) -> Float[Array, " times"]:
    norms = jnp.maximum(_norms(x), _norms(y))
    scale = jnp.max(jnp.where(jnp.isfinite(norms), norms, 0.0))
    return absolute / jnp.where(scale == 0, 1.0, scale)
