"""The rate at which an error falls."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Scaling(eqx.Module):
    """A power law fitted to errors.

    **Attributes:**

    - `sizes`, `errors`: the data, shape `(sizes,)`; where `f` returned repeats, `errors` is their root mean square.
    - `exponent`: the slope of log error against log size.
    - `interval`: its confidence interval, `(low, high)`.
    """

    sizes: Float[Array, " sizes"]
    errors: Float[Array, " sizes"]
    exponent: Float[Array, ""]
    interval: tuple[Float[Array, ""], Float[Array, ""]]

    def contains(self, exponent: float) -> bool:
        """Whether the interval contains a predicted exponent."""
        return bool((self.interval[0] <= exponent) & (exponent <= self.interval[1]))


def scaling(
    f: Callable[[Any], Float[Array, "*repeats"]],
    sizes: Sequence[float] | Sequence[int] | np.ndarray,
    *,
    correction: float | None = None,
    confidence: float = 0.95,
) -> Scaling:
    r"""Fits $\text{error} \propto \text{size}^p$ and says how well $p$ is known.

    **Arguments:**

    - `f`: the error at one size: a scalar, or repeats (one per random draw) of shape `(repeats,)`. Sizes may be widths,
      learning rates, initial scales, …
    - `sizes`: three sizes or more, positive and different; four or more with `correction`.
    - `correction`: the exponent $q$ of a known next order, $\text{error} \propto \text{size}^p(1 + c\,\text{size}^q)$;
      $c$ is then fitted too. Negative for sizes that grow, positive for sizes that shrink.
    - `confidence`: of the interval. With repeats the interval comes from resampling them (bootstrap), otherwise from
      the scatter about the fit (Student's t).

    **Returns:**

    A `Scaling`.

    **Raises:**

    `ValueError` for too few or bad sizes, or errors that are not positive and finite.
    """
    x = np.asarray(sizes, dtype=float)
    needed = 3 if correction is None else 4
    if x.ndim != 1 or x.size < needed or np.any(~np.isfinite(x)) or np.any(x <= 0) or np.unique(x).size != x.size:
        raise ValueError(f"`sizes` must be at least {needed} different positive numbers; got {sizes}.")
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must lie between 0 and 1; got {confidence}.")
    samples = [np.atleast_1d(np.asarray(f(size), dtype=float)) for size in np.asarray(sizes).tolist()]
    errors = np.array([_rms(sample) for sample in samples])
    if np.any(~np.isfinite(errors)) or np.any(errors <= 0):
        raise ValueError(f"`f` must return positive finite errors to fit a power law; got {errors}.")
    columns = [np.ones_like(x), np.log(x)] + ([] if correction is None else [x**correction / np.max(x**correction)])
    design = np.stack(columns, axis=1)
    pseudo_inverse = np.linalg.pinv(design)
    exponent = (pseudo_inverse @ np.log(errors))[1]
    if all(sample.size > 1 for sample in samples):
        low, high = _bootstrap(samples, pseudo_inverse[1], confidence)
    else:
        low, high = _student(np.log(errors), design, pseudo_inverse, confidence)
    return Scaling(jnp.asarray(x), jnp.asarray(errors), jnp.asarray(exponent), (jnp.asarray(low), jnp.asarray(high)))


def _rms(sample: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(sample))))


def _bootstrap(samples: list[np.ndarray], slope: np.ndarray, confidence: float) -> tuple[float, float]:
    generator = np.random.default_rng(0)
    draws = [np.sqrt(np.mean(np.square(generator.choice(s, (2000, s.size))), axis=1)) for s in samples]
    exponents = slope @ np.log(np.stack(draws))
    low, high = np.quantile(exponents, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _student(logs: np.ndarray, design: np.ndarray, pseudo_inverse: np.ndarray, confidence: float) -> tuple[float, float]:
    coefficients = pseudo_inverse @ logs
    freedom = logs.size - design.shape[1]
    variance = np.sum(np.square(logs - design @ coefficients)) / freedom
    margin = _student_quantile(confidence, freedom) * np.sqrt(variance) * np.linalg.norm(pseudo_inverse[1])
    return coefficients[1] - margin, coefficients[1] + margin


def _student_quantile(confidence: float, freedom: int) -> float:
    """The t with P(|T| <= t) = confidence, by bisection of the incomplete beta function."""

    def outside(t):
        return float(jax.scipy.special.betainc(freedom / 2, 0.5, freedom / (freedom + t * t)))

    low, high = 0.0, 1.0
    while outside(high) > 1 - confidence:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if outside(middle) > 1 - confidence else (low, middle)
    return high
