"""Simulate many independent training runs."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree


def ensemble(
    f: Callable[[PyTree], Any],
    members: PyTree,
    *,
    chunk_size: int | None = None,
    method: Literal["vmap", "map"] = "vmap",
    progress: Callable[[int, int], None] | None = None,
) -> Any:
    """Evaluates `f` on every member of a PyTree with a leading axis, on one device, in chunks of bounded memory.

    **Arguments:**

    - `f`: one run, for instance `lambda key: tx.train(initialise(key), task, rule, ts).observed`. It is compiled once.
    - `members`: a PyTree of arrays with a common leading axis (keys, initial scales, learning rates, …).
    - `chunk_size`: members evaluated in one compiled call; `None` for all of them.
    - `method`: `"vmap"` runs the members of a chunk side by side; `"map"` one after the other, which suits large
      members and members that take very different numbers of steps.
    - `progress`: called as `progress(done, total)` after each chunk.

    **Returns:**

    What `f` returns, every array with a leading axis over members.

    **Raises:**

    `ValueError` if `members` has no arrays or they disagree in their leading axis, or `chunk_size < 1`.
    """
    arrays, static = eqx.partition(members, eqx.is_array)
    sizes = {leaf.shape[0] if leaf.ndim else 0 for leaf in jax.tree.leaves(arrays)}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(f"`members` must hold arrays with one common leading axis; got leading sizes {sorted(sizes)}.")
    (total,) = sizes
    chunk = total if chunk_size is None else min(chunk_size, total)
    if chunk < 1:
        raise ValueError(f"`chunk_size` must be at least 1; got {chunk_size}.")
    if method not in ("vmap", "map"):
        raise ValueError(f"`method` must be 'vmap' or 'map'; got {method!r}.")

    @eqx.filter_jit
    def run(part):
        def one(x):
            return f(eqx.combine(x, static))

        return eqx.filter_vmap(one)(part) if method == "vmap" else _sequential(one, part)

    results = []
    for start in range(0, total, chunk):
        # The last chunk is filled up by repeating members, so that one compiled program serves all chunks.
        index = jnp.minimum(jnp.arange(start, start + chunk), total - 1)
        result = run(jax.tree.map(lambda x: x[index], arrays))  # noqa: B023
        kept = min(chunk, total - start)
        results.append(jax.tree.map(lambda x: x[:kept] if eqx.is_array(x) else x, result))  # noqa: B023
        if progress is not None:
            jax.block_until_ready(eqx.filter(result, eqx.is_array))
            progress(min(start + chunk, total), total)
    return jax.tree.map(lambda *parts: jnp.concatenate(parts) if eqx.is_array(parts[0]) else parts[0], *results)


def _sequential(function: Callable, xs: PyTree) -> Any:
    first = jax.tree.map(lambda x: x[0], xs)
    static = eqx.filter(
        eqx.filter_eval_shape(function, first), lambda x: isinstance(x, jax.ShapeDtypeStruct), inverse=True
    )
    return eqx.combine(jax.lax.map(lambda x: eqx.filter(function(x), eqx.is_array), xs), static)
