r"""Where a perceptron under SGD ends: constant noise, and a signal that grows as a power of time.

Set-up as in `NoisyPerceptron`: exponent $\chi$ of the density near the boundary, hinge loss with margin $\kappa$,
temperature $T$, time $t$ = learning rate times steps.

Theory. Late, when only examples near the boundary count, let $s = \lambda\lvert x_1\rvert/r$ and
$m_p(b) = \int_0^\infty s^p\varphi(s-b)\,ds$. The noise saturates and the signal does not:

$$r = \frac T2\,\frac{m_{\chi+1}(\kappa/r)}{(\chi+1)\,m_\chi(\kappa/r)},\qquad
\lambda^{3+\chi}\to
(3+\chi)\,\frac{2\,m_{\chi+2}(\kappa/r)}{(\chi+2)\,2^{(\chi+1)/2}\,\Gamma(\frac{\chi+1}2)}\,r^{2+\chi}\,t .$$

For a margin much smaller than the noise,
$r = \frac T2\,\sqrt2\,\Gamma(\frac{\chi+2}2)/\big((\chi+1)\Gamma(\frac{\chi+1}2)\big)$. A train set of $P$ examples is
fitted once the nearest one to the boundary is, $(r/\lambda)^{1+\chi}\sim1/P$: with weights $\sim T\,P^{1/(1+\chi)}$, at a
time $\sim T\,P^{1+2/(1+\chi)}$, unless the noise is too weak to matter, $T < T_c\sim P^{-1/(1+\chi)}$. These are laws of
scaling, without their constants.

Source: Sclocchi, Geiger and Wyart 2023, arXiv 2301.13703, for the exponents; prefactors are derived here.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import check_finite, check_positive, require
from ._noisy_perceptron import PerceptronState
from ._perceptron_task import PerceptronTask

_NODES = 4000


def late_perceptron(task: PyTree, temperature: ArrayLike, t: ArrayLike) -> PerceptronState:
    r"""Signal and noise at large times: the noise constant, the signal growing as $t^{1/(3+\chi)}$.

    **Arguments:**

    - `task`: a `PerceptronTask`; its size has no effect.
    - `temperature`: $T = \eta d/B$, positive.
    - `t`: one time or an array of them, not negative.

    **Raises:**

    `ValueError` for another task, a temperature that is not positive, or a negative time.
    """
    if not isinstance(task, PerceptronTask):
        raise ValueError(f"`task` must be a PerceptronTask; got {type(task).__name__}.")
    chi = task.exponent
    kappa = task.margin_loss.threshold.astype(chi.dtype)
    temperature = check_positive("temperature", temperature).astype(chi.dtype)
    t = check_positive("t", t, zero=True).astype(chi.dtype)
    noise = _late_noise(chi, kappa, temperature)
    log_density = jnp.log(2.0).astype(chi.dtype) * (1 - chi) / 2 - gammaln((chi + 1) / 2)
    rate = (3 + chi) / (2 + chi) * _moment(chi + 2, kappa / noise) * jnp.exp(log_density + (2 + chi) * jnp.log(noise))
    return PerceptronState((rate * t) ** (1 / (3 + chi)), jnp.broadcast_to(noise**2, t.shape))


class FittingScales(NamedTuple):
    """How quantities scale with the size of the train set, up to constants of order one.

    **Attributes:**

    - `weight`: of the weights when all examples are fitted.
    - `time`: until then.
    - `temperature`: below which noise does not matter.
    """

    weight: Float[Array, "..."]
    time: Float[Array, "..."]
    temperature: Float[Array, "..."]


def fitting_scales(examples: ArrayLike, temperature: ArrayLike, exponent: ArrayLike) -> FittingScales:
    r"""$T\,P^{1/(1+\chi)}$, $T\,P^{1+2/(1+\chi)}$ and $P^{-1/(1+\chi)}$, for a train set of $P$ examples.

    **Arguments:**

    - `examples`: $P$.
    - `temperature`: $T$.
    - `exponent`: $\chi > -1$.

    **Raises:**

    `ValueError` for numbers that are not positive, or an exponent of -1 or less.
    """
    chi = check_finite("exponent", exponent)
    chi = require(chi, jnp.all(chi > -1), f"`exponent` must be greater than -1; got {exponent}.")
    p = check_positive("examples", examples).astype(chi.dtype)
    temperature = check_positive("temperature", temperature).astype(chi.dtype)
    power = 1 / (1 + chi)
    return FittingScales(temperature * p**power, temperature * p ** (1 + 2 * power), p**-power)


@jax.jit
def _late_noise(chi: Array, kappa: Array, temperature: Array) -> Array:
    """The root r of r = T/2 ρ(κ/r)/(χ + 1), ρ the ratio of two moments, which falls with r."""
    scale = temperature / (2 * (chi + 1))

    def excess(log_noise, chi=chi, kappa=kappa, scale=scale):
        b = kappa * jnp.exp(-log_noise)
        return log_noise - jnp.log(scale * _moment(chi + 1, b) / _moment(chi, b))

    fixed = jax.lax.stop_gradient((chi, kappa, scale))
    low = jnp.log(fixed[2] * _moment(fixed[0] + 1, 0 * fixed[1]) / _moment(fixed[0], 0 * fixed[1]))
    high = jnp.logaddexp(low, jnp.log(fixed[2] * fixed[1] + jnp.finfo(low.dtype).tiny) / 2) + 2

    def halve(_, bracket):
        low, high = bracket
        middle = (low + high) / 2
        above = excess(middle, *fixed) > 0
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    low, _ = jax.lax.fori_loop(0, 50, halve, (low - 1e-3, high))
    # One step of Newton's method gives the root its derivatives.
    slope = jax.grad(excess)(low, *fixed)
    return jnp.exp(low - excess(low) / slope)


@jax.jit
def _moment(p: Array, b: Array) -> Array:
    """∫₀^∞ sᵖ φ(s − b) ds for p > −1 and b ≥ 0."""
    grid = jnp.linspace(0, 1, _NODES, dtype=b.dtype)
    step = 1 / (_NODES - 1)
    # Near zero the power may be singular: evenly spaced in ln s. Far from it, evenly spaced in s.
    low, high = -37 / (p + 1), jnp.log(jnp.minimum(b, 10.0) + jnp.sqrt(p + 1) + 9)
    logs = low + (high - low) * grid
    near = jnp.sum(jnp.exp((p + 1) * logs - (jnp.exp(logs) - jnp.minimum(b, 10.0)) ** 2 / 2)) * (high - low)
    wide = 9 + jnp.sqrt(jnp.maximum(p, 0.0))
    offsets = -9 + (9 + wide) * grid
    far = jnp.sum(jnp.exp(p * jnp.log(jnp.maximum(b, 10.0) + offsets) - offsets**2 / 2)) * (9 + wide)
    return jnp.where(b < 10.0, near, far) * step / jnp.sqrt(2 * jnp.pi).astype(b.dtype)
