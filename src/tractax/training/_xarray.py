"""Results as xarray data sets, with named axes."""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ..core import Trajectory


def to_xarray(
    results: Any, *, dims: Sequence[str] = ("member",), coords: Mapping[str, Any] | None = None
) -> "xarray.Dataset":
    """What `tx.ensemble` or `tx.train` returned, as an `xarray.Dataset`.

    **Arguments:**

    - `results`: a PyTree of arrays, or a `tx.Trajectory` (of one run, or with an axis over members), of which the
      observables and the result codes are taken, and the times `ts` if members have times of their own.
    - `dims`: names of the leading axes that all arrays share: `("member",)` for an ensemble, `()` for a single run. The
      times of a trajectory are called `time` by themselves; further axes are numbered by variable.
    - `coords`: values along named axes, such as `{"member": scales}`.

    **Returns:**

    A data set with a variable for every array, named by its place in the PyTree.

    **Raises:**

    `ValueError` if xarray is not installed, arrays have fewer axes than `dims`, or two of them have the same name.
    """
    try:
        import xarray
    except ImportError as error:
        raise ValueError("`to_xarray` needs xarray: pip install xarray.") from error
    if isinstance(dims, str):
        raise ValueError(f"`dims` must be a sequence of names, such as ({dims!r},); got {dims!r}.")
    dims, coords, found = tuple(dims), dict(coords or {}), {}
    if isinstance(results, Trajectory):
        if not eqx.is_array(results.ts) or results.ts.ndim != len(dims) + 1:
            raise ValueError(f"`results` must be a trajectory with the axes {dims} and times, not reduced.")
        times = np.asarray(results.ts)
        first = times.reshape(-1, times.shape[-1])[0]
        if np.all(times == first):
            coords.setdefault("time", first)
        else:
            # Such as steps of different lengths, nearest to the times asked for.
            found["ts"] = ((*dims, "time"), times)
        found["result"] = (dims, np.asarray(jax.tree.leaves(results.result)[0]))
        dims, results = (*dims, "time"), results.observed
    for place, leaf in jax.tree_util.tree_leaves_with_path(eqx.filter(results, eqx.is_array)):
        name = jax.tree_util.keystr(place, simple=True, separator=".") or "value"
        if leaf.ndim < len(dims):
            raise ValueError(f"`results` must have the axes {dims} in every array; {name} has shape {leaf.shape}.")
        if name in found:
            raise ValueError(f"`results` must have names of their own; {name} is there twice.")
        own = tuple(f"{name}_{axis}" for axis in range(leaf.ndim - len(dims)))
        found[name] = ((*dims, *own), np.asarray(leaf))
    return xarray.Dataset(found, coords=coords)
