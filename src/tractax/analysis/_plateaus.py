"""Where a curve rests."""

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float

from ..core import check_matrix, check_positive, check_times


class Plateaus(NamedTuple):
    """Stretches of a curve on which it hardly moves, NumPy arrays of one entry each.

    **Attributes:**

    - `start`, `end`: when it rests.
    - `level`: its median there.
    """

    start: Float[np.ndarray, " plateaus"]
    end: Float[np.ndarray, " plateaus"]
    level: Float[np.ndarray, " plateaus"]


def plateaus(ts: ArrayLike, values: ArrayLike, *, rate: ArrayLike, duration: ArrayLike) -> Plateaus:
    """Where a recorded curve rests, from left to right; for known values, not under `jax.jit`.

    **Arguments:**

    - `ts`: times, increasing, shape `(times,)`.
    - `values`: the curve at these times.
    - `rate`: how fast it may move on a plateau from one time to the next, in units of its first value per time.
    - `duration`: how long a plateau must last.

    **Raises:**

    `ValueError` for wrong shapes, times that do not increase, or a rate or duration that is not positive.
    """
    ts = np.asarray(check_times("ts", ts))
    values = np.asarray(check_matrix("values", values, ts.shape))
    slowest = float(check_positive("rate", rate)) * abs(float(values[0]))
    duration = float(check_positive("duration", duration))
    rests = np.abs(np.diff(values)) <= slowest * np.diff(ts)
    # Where resting begins and ends.
    turns = np.diff(np.concatenate([[False], rests, [False]]).astype(int))
    starts, ends = np.flatnonzero(turns == 1), np.flatnonzero(turns == -1)
    long = ts[ends] - ts[starts] >= duration
    starts, ends = starts[long], ends[long]
    levels = [np.median(values[i : j + 1]) for i, j in zip(starts, ends, strict=True)]
    return Plateaus(ts[starts], ts[ends], np.asarray(levels, values.dtype))
