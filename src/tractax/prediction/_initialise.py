"""The network that a training run starts from."""

from typing import Literal

import numpy as np
from jaxtyping import ArrayLike, PRNGKeyArray

from ..core import check_positive
from ..deep_linear import DeepLinear, LinearTask, aligned, balanced, lambda_balanced

Start = Literal["balanced", "aligned", "lambda"]


def initialise(
    task: LinearTask,
    *,
    start: Start = "balanced",
    depth: int = 2,
    width: int | None = None,
    init_scale: ArrayLike | None = None,
    lam: ArrayLike = 0.0,
    key: PRNGKeyArray,
) -> DeepLinear:
    """An initial network.

    **Arguments:**

    - `task`: the task.
    - `start`: `"balanced"`, random and balanced; `"aligned"`, balanced and aligned with the task; `"lambda"`, two random
      layers with $W_2^\\top W_2 - W_1W_1^\\top = \\lambda I$. Half of the random starts of a square network lead to a
      saddle, since its determinant keeps its sign; they are mirrored into the other half.
    - `depth`: the number of layers of weights.
    - `width`: of the hidden layers; `None` for the smaller one of the numbers of inputs and outputs.
    - `init_scale`: the size of each layer's singular values (for `"lambda"`, of the smaller layer's entries); `None` for
      0.001, and for `0.001 ** (1 / depth)` beyond two layers, where it takes the map as long to grow.
    - `lam`: $\\lambda$, for `"lambda"` only.
    - `key`: draws the weights.

    **Raises:**

    `ValueError` for options that do not go together.
    """
    n_out, n_in = task.optimum.shape
    width = min(n_in, n_out) if width is None else width
    if depth < 1 or width < 1:
        raise ValueError(f"`depth` and `width` must be at least 1; got {depth} and {width}.")
    if init_scale is None:
        init_scale = 1e-3 if depth <= 2 else 1e-3 ** (1 / depth)
    scale = check_positive("init_scale", init_scale)
    if start == "lambda":
        if depth != 2:
            raise ValueError(f"`depth` must be 2 for a lambda-balanced start; got {depth}.")
        return _mirrored(lambda_balanced((n_in, width, n_out), lam=lam, scale=scale, key=key), task)
    if float(lam) != 0:
        raise ValueError(f"`lam` is for start 'lambda' only; got {float(lam)} with {start!r}.")
    hidden = (width,) * (depth - 1)
    if start == "aligned":
        return aligned(task, hidden, strength=scale**depth, key=key)
    if start == "balanced":
        return _mirrored(balanced((n_in, *hidden, n_out), scale=scale, key=key), task)
    raise ValueError(f"`start` must be 'balanced', 'aligned' or 'lambda'; got {start!r}.")


def _mirrored(model: DeepLinear, task: LinearTask) -> DeepLinear:
    """Its first input mirrored, which changes no balance, if the determinants of map and task differ in sign."""
    n_out, n_in = task.optimum.shape
    if n_in != n_out or min(model.sizes) < n_in:
        return model
    signs = [np.linalg.slogdet(np.asarray(w))[0] for w in (model.product, task.optimum)]
    first, *rest = model.weights
    return DeepLinear((first.at[:, 0].multiply(-1.0), *rest)) if signs[0] * signs[1] < 0 else model
