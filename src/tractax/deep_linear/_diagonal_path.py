r"""Diagonal linear networks started at almost nothing: a piecewise constant path through sparse predictors.

Set-up. As in `DiagonalNetwork` with depth 2, weights $w_\pm(0) = \alpha$, $\tau = 1$, loss
$\tfrac1{2n}\lVert X\beta-y\rVert^2$, and $\alpha\to0$. In the time $\tilde t = 2t/\ln(1/\alpha)$ the predictor jumps from
one sparse vector to the next. Let $s$ accumulate the negative gradient, $ds/d\tilde t = -\nabla L(\beta)$, from $s = 0$.
Entries with $|s_j| < 1$ are still zero. Whenever another one reaches $\pm1$, the predictor jumps to the minimiser of the
loss with $\beta_j\ge0$ where $s_j = 1$, $\beta_j\le0$ where $s_j = -1$, and $\beta_j = 0$ elsewhere. The last one has the
least $\ell_1$ norm of all that fit the data. Jump times of a network differ from these by $O(1/\ln(1/\alpha))$.

Source: Pesme and Flammarion 2023, arXiv 2304.00488.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ..core import check_positive
from ._regression_task import RegressionTask


class SparsePath(eqx.Module):
    r"""The predictor as a piecewise constant function of rescaled time.

    **Attributes:**

    - `times`: when it jumps, $\tilde t = 2t/\ln(1/\alpha)$, increasing, shape `(jumps,)`.
    - `predictors`: $\beta$ before the first jump (zero), between jumps, and after the last one, shape `(jumps + 1, in)`.
    """

    times: Float[Array, " jumps"]
    predictors: Float[Array, "stages in"]

    def predictor(self, time: ArrayLike) -> Float[Array, " in"]:
        """The predictor at one rescaled time, and after the jump where there is one."""
        return self.predictors[jnp.searchsorted(self.times, jnp.asarray(time, self.times.dtype), side="right")]

    def jump_times(self, scale: ArrayLike) -> Float[Array, " jumps"]:
        r"""The jumps in units of time, $t = \tfrac12\tilde t\,\ln(1/\alpha)$, for initial weights `scale` below one."""
        return self.times * -jnp.log(check_positive("scale", scale).astype(self.times.dtype)) / 2


def sparse_path(task: RegressionTask, *, max_jumps: int = 1000) -> SparsePath:
    """The path of a diagonal linear network in the limit of vanishing initial weights.

    The number of jumps depends on the data, so this cannot be traced by `jax.jit`. Data in general position are assumed,
    such that restricted minimisers of the loss are unique.

    **Arguments:**

    - `task`: the data.
    - `max_jumps`: when to give up.

    **Raises:**

    `ValueError` if the loss is not at its minimum after `max_jumps` jumps.
    """
    dtype = task.inputs.dtype
    x, y = np.asarray(task.inputs, dtype=np.float64), np.asarray(task.targets, dtype=np.float64)
    beta, dual, time = np.zeros(x.shape[1]), np.zeros(x.shape[1]), 0.0
    times, predictors = [], [beta]
    still = 1e-10 * np.max(np.abs(x.T @ y)) / x.shape[0]
    while True:
        gradient = x.T @ (x @ beta - y) / x.shape[0]
        moving = np.abs(gradient) > still
        if not np.any(moving):
            break
        if len(times) == max_jumps:
            raise ValueError(f"`max_jumps` must be enough to reach the minimum of the loss; {max_jumps} jumps were not.")
        waits = (1 + np.sign(gradient) * dual)[moving] / np.abs(gradient[moving])
        dual = dual - np.min(waits) * np.where(moving, gradient, 0.0)
        time += float(np.min(waits))
        signs = np.where(np.abs(dual) > 1 - 1e-10, np.sign(dual), 0.0)
        dual = np.where(signs == 0, dual, signs)
        beta = _signed_least_squares(x, y, signs)
        if not np.array_equal(beta, predictors[-1]):
            times.append(time)
            predictors.append(beta)
    return SparsePath(jnp.asarray(times, dtype), jnp.asarray(np.stack(predictors), dtype))


def _signed_least_squares(x: np.ndarray, y: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """The least-squares predictor with entries of given signs or zero, by the active sets of Lawson and Hanson."""
    signed = x * signs[None, :]
    size = np.zeros(len(signs))
    support = np.zeros(len(signs), dtype=bool)
    small = 1e-12 * np.max(np.abs(x.T @ y))
    while True:
        ascent = np.where(support | (signs == 0), 0.0, signed.T @ (y - signed @ size))
        if np.max(ascent) <= small:
            return signs * size
        support[np.argmax(ascent)] = True
        while True:
            best = np.zeros_like(size)
            best[support] = np.linalg.lstsq(signed[:, support], y, rcond=None)[0]
            if np.all(best[support] > 0):
                break
            # Go as far as all entries stay positive, and drop those that vanish there.
            leaving = support & (best <= 0)
            step = np.min(size[leaving] / (size[leaving] - best[leaving]))
            size = size + step * (best - size)
            support &= ~(leaving & (size <= 1e-14 * np.max(size, initial=1.0)))
            size[~support] = 0.0
        size = best
