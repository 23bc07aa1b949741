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
      observables and the result codes are taken.
    - `dims`: names of the leading axes that all arrays share: `("member",)` for an ensemble, `()` for a single run. The
      times of a trajectory are called `time` by themselves; further axes are numbered by variable.
    - `coords`: values along named axes, such as `{"member": scales}`.

    **Returns:**

    A data set with a variable for every array, named by its place in the PyTree.

    **Raises:**

    `ValueError` if xarray is not installed, or arrays have fewer axes than `dims`.
    """
    try:
        import xarray
    except ImportError as error:
        raise ValueError("`to_xarray` needs xarray: pip install xarray.") from error
    dims, coords, codes = tuple(dims), dict(coords or {}), {}
    if isinstance(results, Trajectory):
        coords.setdefault("time", np.asarray(results.ts).reshape(-1, results.ts.shape[-1])[0])
        codes = {"result": (dims, np.asarray(jax.tree.leaves(results.result)[0]))}
        dims, results = (*dims, "time"), results.observed
    found = {}
    for place, leaf in jax.tree_util.tree_leaves_with_path(eqx.filter(results, eqx.is_array)):
        name = jax.tree_util.keystr(place, simple=True, separator=".") or "value"
        if leaf.ndim < len(dims):
            raise ValueError(f"`results` must have the axes {dims} in every array; {name} has shape {leaf.shape}.")
        own = tuple(f"{name}_{axis}" for axis in range(leaf.ndim - len(dims)))
        found[name] = ((*dims, *own), np.asarray(leaf))
    return xarray.Dataset({**found, **codes}, coords=coords)
