"""How many examples or tokens a context holds."""

import math
from typing import Any

import numpy as np


def check_length(length: Any) -> int | float:
    """The length, if it is a whole number of at least 1, or infinite."""
    if isinstance(length, int | np.integer) and not isinstance(length, bool) and length >= 1:
        return int(length)
    if isinstance(length, float) and length == math.inf:
        return math.inf
    raise ValueError(f"`length` must be a whole number of at least 1, or math.inf; got {length!r}.")
