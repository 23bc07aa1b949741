"""Simulate many independent training runs."""

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree

from ..core import check_count
from ._archive import Archive, fingerprint_of_arrays, fingerprint_of_program, versions
from ._member import as_member, largest_state
from ._reductions import Reduce, Statistics
from ._workers import in_parallel, places

_LOG = logging.getLogger("tractax")
# Networks with more numbers than this are faster one by one than side by side on a CPU (benchmarks/ensembles.py).
_LARGE_STATE = 1024

Method = Literal["vmap", "map"]


def ensemble(
    f: Callable[[PyTree], Any],
    members: PyTree,
    *,
    chunk_size: int | None = None,
    method: Method | None = None,
    devices: Sequence[Any] | jax.sharding.Mesh | None = None,
    reduce: Reduce | None = None,
    path: str | Path | None = None,
    progress: Callable[[int, int], None] | bool = False,
) -> Any:
    """Evaluates `f` on every member of a PyTree with a leading axis, in chunks of bounded memory.

    Chunks run side by side on all devices, and on all cores of a CPU. Calls with the same function (the same object, such
    as one defined at the top of a script) and shapes reuse the compiled program. A training run that fails stops nobody:
    `tx.train` does not raise inside an ensemble, what it recorded is NaN instead, and its `result` says why.

    **Arguments:**

    - `f`: one run, for instance `lambda key: tx.train(initialise(key), task, rule, ts).observed`.
    - `members`: a PyTree of arrays with a common leading axis (keys, initial scales, learning rates, tasks, …).
    - `chunk_size`: members evaluated in one compiled call. `None` for a size that suits the method.
    - `method`: `"vmap"` runs the members of a chunk side by side; `"map"` one after the other, which suits large members,
      and members that take very different numbers of steps. `None` chooses by the size of the trained networks and the
      device, and says so in the log (`logging.getLogger("tractax")`, level INFO).
    - `devices`: where to run: devices, or a `jax.sharding.Mesh` of them. `None` for all devices of this process. Under
      `jax.distributed` every process runs its share, and all return everything; they must share `path`.
    - `reduce`: statistics to return instead of the members, such as `tx.Mean()` or
      `{"mean": tx.Mean(), "range": tx.Quantiles((0.1, 0.9))}`, of every array of numbers. Members with anything that is
      not finite count as failed and are left out.
    - `path`: a folder for the results of finished chunks. If the run is interrupted, at whatever moment, the same call
      goes on where it stopped, with the same results to the last bit. A call with other members, another function,
      chunk size, method, reduction or version of JAX is refused.
    - `progress`: `True` for a progress bar (needs tqdm, as in `pip install "tractax[cli]"`), or a function called as
      `progress(done, total)` after each chunk.

    **Returns:**

    What `f` returns, every array with a leading axis over members; or, with `reduce`, the statistic in the place of each
    array, in a dictionary if `reduce` is one.

    **Raises:**

    `ValueError` if `members` has no arrays or they disagree in their leading axis, for a bad option, if `f` returns PRNG
    keys, under `jax.jit`, `jax.vmap` or `jax.grad` or in another ensemble, and if `path` holds the results of something
    else, or a damaged file.
    """
    if not callable(f):
        raise ValueError(f"`f` must be a function of one member; got {type(f).__name__}.")
    arrays, static = eqx.partition(members, eqx.is_array)
    _check_concrete(arrays)
    if not all(isinstance(leaf, jax.Array) or leaf.dtype.kind in "biufcV" for leaf in jax.tree.leaves(arrays)):
        raise ValueError("`members` must hold arrays of numbers or PRNG keys; got a NumPy array of other objects.")
    sizes = {leaf.shape[0] if leaf.ndim else 0 for leaf in jax.tree.leaves(arrays)}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(f"`members` must hold arrays with one common leading axis; got leading sizes {sorted(sizes)}.")
    (total,) = sizes
    if chunk_size is not None:
        chunk_size = check_count("chunk_size", chunk_size)
    if method not in ("vmap", "map", None):
        raise ValueError(f"`method` must be 'vmap', 'map' or None; got {method!r}.")
    if path is None and jax.process_count() > 1:
        raise ValueError("`path` must be a folder that all processes share, to run an ensemble on several hosts.")
    statistics = None if reduce is None else Statistics(reduce)
    workers = places(devices)
    if method is None:
        method = _choose(f, arrays, static, workers)
    chunk = min(_default_chunk(method, total, workers) if chunk_size is None else chunk_size, total)
    starts = range(0, total, chunk)
    _LOG.info("%d members, method %s, %d chunks of %d, %d workers", total, method, len(starts), chunk, len(workers))

    double, members_on = _double(), {}

    def begin(number: int, device: Any) -> tuple[PyTree, Any]:
        if device in members_on:
            return members_on[device], None
        # The first chunk compiles; later ones run at the same time, each called from a thread of its own.
        members_on[device] = jax.device_put(arrays, device)
        return members_on[device], (_evaluate(f, static, method, chunk, members_on[device], np.int32(starts[number])),)

    def finish(number: int, begun: tuple[PyTree, Any]) -> list[np.ndarray]:
        on_device, first = begun
        # `jax.enable_x64` may have been set for the caller's thread only.
        with contextlib.nullcontext() if _double() == double else jax.enable_x64(double):
            start = np.int32(starts[number])
            result = _evaluate(f, static, method, chunk, on_device, start) if first is None else first[0]
        _check_concrete(result)
        leaves = [np.asarray(x) for x in jax.tree.leaves(eqx.filter(result, eqx.is_array))]
        leaves = [x[: min(chunk, total - starts[number])] for x in leaves]
        return leaves if statistics is None else statistics.partial(leaves)

    shapes = eqx.filter_eval_shape(_evaluate, f, static, method, chunk, arrays, np.int32(0))
    _check_results(shapes, reduced=statistics is not None)
    archive = None
    if path is not None:
        program = _evaluate.lower(f, static, method, chunk, arrays, np.int32(0)).as_text()
        archive = Archive(
            path,
            {
                "members": fingerprint_of_arrays(arrays),
                "total": total,
                "function": fingerprint_of_program(program),
                "chunk_size": chunk,
                "method": method,
                "reduce": None if statistics is None else statistics.description,
                **versions(),
            },
        )
    done: dict[int, list[np.ndarray]] = {}
    todo = []
    for number in range(len(starts)):
        found = None if archive is None else archive.read(number)
        if found is not None:
            done[number] = found
        elif number % jax.process_count() == jax.process_index():
            todo.append(number)
    report = _reporter(progress, total)
    count = sum(min(chunk, total - starts[number]) for number in done)
    if count:
        report(count)
    for number, result in in_parallel(begin, finish, todo, workers):
        if archive is not None:
            archive.write(number, result)
        done[number] = result
        count += min(chunk, total - starts[number])
        report(count)
    while len(done) < len(starts):
        # What other processes do.
        time.sleep(0.2)
        for number in set(range(len(starts))) - set(done):
            found = archive.read(number)  # pyright: ignore
            if found is not None:
                done[number] = found
    parts = [done[number] for number in range(len(starts))]
    return _stacked(shapes, parts) if statistics is None else statistics.finish(shapes, parts)


@eqx.filter_jit
def _evaluate(f: Callable, static: PyTree, method: Method, chunk: int, members: PyTree, start: Any) -> Any:
    """`f` on a chunk of the members."""
    total = jax.tree.leaves(members)[0].shape[0]
    # The last chunk is filled up by repeating members, so that one compiled program serves all chunks.
    index = jnp.minimum(jnp.arange(chunk, dtype=start.dtype) + start, total - 1)
    part = jax.tree.map(lambda x: x[index], members)

    def one(member):
        with as_member():
            return f(eqx.combine(member, static))

    return eqx.filter_vmap(one)(part) if method == "vmap" else _sequential(one, part)


def _check_concrete(tree: PyTree) -> None:
    """Chunks are run, and written, as they come: nothing of this can be traced."""
    if any(isinstance(x, Tracer) for x in jax.tree.leaves(tree)):
        raise ValueError(
            "`tx.ensemble` cannot be part of another program (jax.jit, jax.vmap, jax.grad, another ensemble): `members` "
            "and what `f` refers to must be known numbers. Use jax.vmap inside; transform `f` outside."
        )


def _check_results(shapes: PyTree, reduced: bool) -> None:
    """What can be stored, and reduced."""
    for x in filter(_is_shape, jax.tree.leaves(shapes)):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            raise ValueError("`f` must return arrays of numbers; got a PRNG key. Return jax.random.key_data(key).")
        if reduced and jnp.issubdtype(x.dtype, jnp.complexfloating):
            raise ValueError(
                f"`f` must return real numbers for `reduce`; got {x.dtype}. Return real and imaginary parts."
            )


def _double() -> bool:
    return jnp.result_type(float) == jnp.float64


def _sequential(function: Callable, xs: PyTree) -> Any:
    first = jax.tree.map(lambda x: x[0], xs)
    static = eqx.filter(eqx.filter_eval_shape(function, first), _is_shape, inverse=True)
    return eqx.combine(jax.lax.map(lambda x: eqx.filter(function(x), eqx.is_array), xs), static)


def _is_shape(x: Any) -> bool:
    return isinstance(x, jax.ShapeDtypeStruct)


def _choose(f: Callable, arrays: PyTree, static: PyTree, workers: Sequence[Any]) -> Method:
    """One by one on a CPU if the trained networks are large: batched products of matrices are slower there."""
    if workers[0].platform != "cpu":
        return "vmap"
    return "map" if eqx.filter_eval_shape(_trained_size, f, static, arrays) > _LARGE_STATE else "vmap"


@eqx.filter_jit
def _trained_size(f: Callable, static: PyTree, arrays: PyTree) -> int:
    """How many numbers the largest network has that one member trains. Looked at, never run."""
    with largest_state() as size, as_member():
        f(eqx.combine(jax.tree.map(lambda x: x[0], arrays), static))
    return size()


def _default_chunk(method: Method, total: int, workers: Sequence[Any]) -> int:
    """Small enough to bound memory and to keep a few workers busy; the number of workers must not matter to results."""
    largest = 4 if method == "map" else 32 if workers[0].platform == "cpu" else 4096
    return max(1, min(largest, -(-total // 8)))


def _reporter(progress: Callable[[int, int], None] | bool, total: int) -> Callable[[int], None]:
    if callable(progress):
        return lambda count: progress(count, total)
    if not isinstance(progress, bool):
        raise ValueError(f"`progress` must be a boolean or a function of two numbers; got {progress!r}.")
    if not progress:
        return lambda count: None
    try:
        import tqdm
    except ImportError as error:
        raise ValueError('`progress=True` needs tqdm: pip install "tractax[cli]", or pass a function.') from error
    bar = tqdm.tqdm(total=total, unit="member")

    def report(count: int) -> None:
        bar.update(count - bar.n)
        if count == total:
            bar.close()

    return report


def _stacked(shapes: PyTree, parts: list[list[np.ndarray]]) -> Any:
    """The results of all chunks, in the structure of what `f` returns."""
    arrays, static = eqx.partition(shapes, _is_shape)
    structure = jax.tree.structure(arrays)
    # NumPy's files do not know bfloat16 and its like, and give back plain bytes.
    leaves = [
        jnp.asarray(np.concatenate([part.view(shape.dtype) for part in leaf]))
        for shape, *leaf in zip(jax.tree.leaves(arrays), *parts, strict=True)
    ]
    return eqx.combine(jax.tree.unflatten(structure, leaves), static)
