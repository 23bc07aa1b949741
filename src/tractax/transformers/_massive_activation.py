r"""Massive activations: how the largest hidden activity of a transformer grows and falls back while it trains.

Set-up. Of a layer's hidden states $h$ one follows $\max|h|/\mathrm{median}|h|$ from checkpoint to checkpoint
(`activation_ratio`): a few activations come to exceed the rest by orders of magnitude.

Theory. A curve of five parameters describes the ratio over training, empirically,

$$f(t) = A\,e^{-\lambda x}\ln x + K,\qquad x = \gamma t + t_0.$$

For $\lambda > 0$ it is stationary where $x\ln x = 1/\lambda$, at $x^* = e^{W(1/\lambda)}$ with Lambert's $W$: a peak if
$A > 0$, at $t^* = (x^* - t_0)/\gamma$, none in training if $t^* < 0$. Parameters are only weakly identified together:
report the quality of a fit, not its parameters.

Source: Gallego-Feliciano et al. 2025, arXiv 2508.03616. The location of the peak is derived here.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
from jaxtyping import Array, ArrayLike, Float

from ..core import check_finite, check_matrix, check_positive, check_times
from ..special import wright_omega

# Of a fit: faster decays only rescale the amplitude by e^(λ t0), until it overflows.
_LARGEST_DECAY = 50.0


class MassiveActivationCurve(eqx.Module):
    r"""$f(t) = A\,e^{-\lambda x}\ln x + K$ with $x = \gamma t + t_0$.

    **Arguments:**

    - `amplitude`: $A$.
    - `decay`: $\lambda > 0$.
    - `time_scale`: $\gamma > 0$, per unit of the time in which training is measured.
    - `offset`: $t_0 > 0$.
    - `asymptote`: $K$, the value as t → ∞.

    **Raises:**

    `ValueError` for parameters that are no numbers, not finite, or not positive where they must be.
    """

    amplitude: Float[Array, ""]
    decay: Float[Array, ""]
    time_scale: Float[Array, ""]
    offset: Float[Array, ""]
    asymptote: Float[Array, ""]

    def __init__(
        self, amplitude: ArrayLike, decay: ArrayLike, time_scale: ArrayLike, offset: ArrayLike, asymptote: ArrayLike
    ):
        self.amplitude = check_finite("amplitude", amplitude, scalar=True)
        dtype = self.amplitude.dtype
        self.decay = check_positive("decay", decay, scalar=True).astype(dtype)
        self.time_scale = check_positive("time_scale", time_scale, scalar=True).astype(dtype)
        self.offset = check_positive("offset", offset, scalar=True).astype(dtype)
        self.asymptote = check_finite("asymptote", asymptote, scalar=True).astype(dtype)

    def __call__(self, t: Float[ArrayLike, "*times"]) -> Float[Array, "*times"]:
        """The curve at times `t >= 0`, infinity included."""
        t = jnp.asarray(t, self.amplitude.dtype)
        shape = _shape(t, self.decay, self.time_scale, self.offset)
        return self.amplitude * shape + self.asymptote

    @property
    def peak_time(self) -> Float[Array, ""]:
        """$t^*$, where the curve is stationary; negative if it has no extremum during training."""
        # x* = exp(W), W = W(1/λ).
        return (jnp.exp(wright_omega(-jnp.log(self.decay))) - self.offset) / self.time_scale

    @property
    def peak_value(self) -> Float[Array, ""]:
        r"""$f(t^*) = A\,W e^{-1/W} + K$ with $W = W(1/\lambda)$: the largest value for $A > 0$, the least for $A < 0$."""
        w = wright_omega(-jnp.log(self.decay))
        return self.amplitude * w * jnp.exp(-1 / w) + self.asymptote


class CurveFit(eqx.Module):
    """A fitted curve.

    **Attributes:**

    - `curve`: the `MassiveActivationCurve`.
    - `r_squared`: the share of the variance that it explains, $R^2$; NaN for data without variance.
    """

    curve: MassiveActivationCurve
    r_squared: Float[Array, ""]


def fit_massive_activation(ts: ArrayLike, ratios: ArrayLike) -> CurveFit:
    r"""Fits the curve by least squares.

    Amplitude and asymptote follow from the other three by linear regression; these start from the best points of a grid
    and are refined by Levenberg's and Marquardt's method, with $t_0 \ge 1$: the curve does not cross its asymptote.

    **Arguments:**

    - `ts`: times of checkpoints, increasing, shape `(times,)`; six or more.
    - `ratios`: the values there, `activation_ratio` say.

    **Returns:**

    A `CurveFit`.

    **Raises:**

    `ValueError` for less than six times, times that do not increase, or values that are not finite.
    """
    ratios = check_matrix("ratios", ratios, (None,))
    ts = check_times("ts", ts, ratios.dtype)
    if ts.shape[0] < 6 or ratios.shape != ts.shape:
        raise ValueError(
            "`ts` and `ratios` must have one shape, (times,), with six times or more for five parameters; got "
            f"{ts.shape} and {ratios.shape}."
        )
    return _fit(ts, ratios)


@eqx.filter_jit
def _fit(ts: Float[Array, " times"], ratios: Float[Array, " times"]) -> CurveFit:
    horizon = ts[-1]
    centred = ratios - jnp.mean(ratios)
    scale = jnp.sqrt(jnp.mean(centred**2))
    scaled = centred / jnp.where(scale == 0, 1.0, scale)

    def parameters(logs: Float[Array, " 3"]) -> tuple[Array, Array, Array]:
        """λ below its bound, γ from the logarithm of γT, and t0 from that of t0 - 1."""
        return _LARGEST_DECAY * jax.nn.sigmoid(logs[0]), jnp.exp(logs[1]) / horizon, 1 + jnp.exp(logs[2])

    def regression(logs: Float[Array, " 3"]) -> tuple[Array, Array, Array]:
        """The shape, its coefficient, and what is left."""
        shape = _shape(ts, *parameters(logs))
        largest = jnp.max(jnp.abs(shape))
        shape = shape / jnp.where(largest == 0, 1.0, largest)
        varying = shape - jnp.mean(shape)
        power = jnp.sum(varying**2)
        slope = jnp.sum(varying * scaled) / jnp.where(power == 0, 1.0, power)
        return slope, largest, scaled - slope * varying

    # Decays per horizon from slow to fast, little and much of the logarithm within it.
    grid = np.meshgrid([0.1, 0.5, 2.0, 6.0, 20.0], [1.0, 10.0, 1e2, 1e4], [0.1, 2.0])
    fraction = grid[0] / grid[1] / _LARGEST_DECAY
    logs = np.stack([np.log(fraction / (1 - fraction)), np.log(grid[1]), np.log(grid[2])])
    starts = jnp.asarray(logs.reshape(3, -1).T, ts.dtype)

    def residuals(logs: Float[Array, " 3"], _: Any) -> Array:
        return regression(logs)[2]

    def misfit(logs: Float[Array, " 3"]) -> Array:
        return jnp.sum(residuals(logs, None) ** 2)

    def refine(start: Float[Array, " 3"]) -> Array:
        solver = optimistix.LevenbergMarquardt(rtol=tolerance, atol=tolerance)
        return optimistix.least_squares(residuals, solver, start, max_steps=512, throw=False).value

    tolerance = float(jnp.finfo(ts.dtype).eps) ** 0.75
    promising = starts[jnp.argsort(jax.vmap(misfit)(starts))[:4]]
    # With the starts, so that the fit is never worse than they are.
    found = jnp.concatenate([jax.vmap(refine)(promising), promising])
    best = found[jnp.nanargmin(jax.vmap(misfit)(found))]
    slope, largest, left = regression(best)
    amplitude = slope * scale / jnp.where(largest == 0, 1.0, largest)
    shape = _shape(ts, *parameters(best))
    curve = MassiveActivationCurve(amplitude, *parameters(best), jnp.mean(ratios - amplitude * shape))
    return CurveFit(curve, jnp.where(scale == 0, jnp.nan, 1 - jnp.mean(left**2)))


def _shape(t: Array, decay: Array, time_scale: Array, offset: Array) -> Array:
    """e^(-λx) ln x, also at infinity."""
    x = jnp.minimum(time_scale * t + offset, jnp.finfo(t.dtype).max)
    return jnp.exp(-decay * x) * jnp.log(x)


def activation_ratio(hidden: ArrayLike) -> Float[Array, ""]:
    r"""$\max|h|/\mathrm{median}|h|$ over all entries of hidden states.

    **Arguments:**

    - `hidden`: the activity, of any shape: tokens, units, examples.

    **Returns:**

    The ratio, at least 1; infinite if more than half of the entries are zero, NaN if all are.

    **Raises:**

    `ValueError` for numbers that are not finite or an empty array.
    """
    sizes = jnp.abs(check_finite("hidden", hidden))
    if sizes.size == 0:
        raise ValueError(f"`hidden` must hold numbers; got shape {sizes.shape}.")
    return jnp.max(sizes) / jnp.median(sizes)
