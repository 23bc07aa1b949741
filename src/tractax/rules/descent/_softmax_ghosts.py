r"""Softmax ghosts: complex zeros of the partition function, which end the Taylor series of cross-entropy along a step.

Set-up. Along a step, logits move as $z_k + a_kt$: exactly if they are linear in the parameters, otherwise to first order,
with slopes $a$ a Jacobian-vector product. The loss of an example with label $y$ is $\log F(t) - (z_y + a_yt)$,
$F = \sum_ke^{z_k + a_kt}$. It is smooth on the real line, but its Taylor series in $t$ converges only up to the nearest
complex zero of $F$.

- Two classes, with $\delta = z_1 - z_2$ and $\Delta = a_1 - a_2$: zeros at $(-\delta\pm i(2j+1)\pi)/\Delta$, radius
  $\rho = \sqrt{\delta^2 + \pi^2}/\lvert\Delta\rvert$ exactly. With $\theta$ the argument of the nearest zero,
  coefficients are $c_n\simeq-\tfrac2n\rho^{-n}\cos n\theta$.
- Any number of classes: no zero with $\lvert t\rvert<\rho_a = \pi/(\max a - \min a)$, a lower bound on the radius.

A data set has the smallest radius of its examples. Loss: cross-entropy in nats. $t$: fraction of the step.

Source: Sao 2026 (arXiv 2603.13552).
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Complex, Float, PyTree

from ...core import as_float_array, check_count, check_finite, check_matrix, check_positive


def logits_along(
    logits: Callable, model: PyTree, direction: PyTree
) -> tuple[Float[Array, "examples classes"], Float[Array, "examples classes"]]:
    """The logits of a model, and their slopes along a step.

    **Arguments:**

    - `logits`: from a model to its logits, such as the method of a `tractax.two_layer.CrossEntropyTask`.
    - `model`: any Equinox module.
    - `direction`: the step: a PyTree like the trainable arrays of the model.
    """
    params, static = eqx.partition(model, eqx.is_inexact_array)
    direction = eqx.filter(direction, eqx.is_inexact_array)
    return jax.jvp(lambda params: logits(eqx.combine(params, static)), (params,), (direction,))


def taylor_radius_bound(slopes: ArrayLike) -> Float[Array, "*examples"]:
    r"""$\rho_a = \pi/(\max_ka_k - \min_ka_k)$, below which the Taylor series of each example converges.

    Tight for two classes of equal logits. Infinite where all logits move alike.

    **Arguments:**

    - `slopes`: $a$, classes along the last axis.
    """
    return radius_bound(check_finite("slopes", slopes))


def radius_bound(slopes: Float[Array, "*examples classes"]) -> Float[Array, "*examples"]:
    """The same of slopes that are not checked, such as those of a run that may diverge."""
    spread = jnp.max(slopes, axis=-1) - jnp.min(slopes, axis=-1)
    return _over(jnp.asarray(jnp.pi, slopes.dtype), spread)


def binary_taylor_radius(logits: ArrayLike, slopes: ArrayLike) -> Float[Array, "*examples"]:
    r"""$\rho = \sqrt{\delta^2 + \pi^2}/\lvert\Delta\rvert$, the radius of convergence for two classes; exact.

    **Arguments:**

    - `logits`, `slopes`: $z$ and $a$, with two classes along the last axis.

    **Raises:**

    `ValueError` for another number of classes: the pairwise radii of more classes bound nothing.
    """
    delta, change = _differences(logits, slopes)
    return _over(jnp.hypot(delta, jnp.asarray(jnp.pi, delta.dtype)), jnp.abs(change))


def binary_ghost(logits: ArrayLike, slopes: ArrayLike) -> Complex[Array, "*examples"]:
    r"""$(-\delta + i\pi)/\Delta$, a zero of $F$ nearest to the start of the step; the other one is its conjugate.

    **Arguments:**

    - `logits`, `slopes`: $z$ and $a$, with two classes along the last axis and different slopes.

    **Raises:**

    `ValueError` for another number of classes.
    """
    delta, change = _differences(logits, slopes)
    return jax.lax.complex(-delta / change, jnp.pi / change)


def cross_entropy_coefficients(
    logits: ArrayLike, slopes: ArrayLike, label: ArrayLike, order: PyTree, scale: ArrayLike = 1.0
) -> Float[Array, " coefficients"]:
    r"""The Taylor coefficients $c_0, \dots, c_n$ of one example's loss along a step, in powers of $t/s$.

    **Arguments:**

    - `logits`, `slopes`: $z$ and $a$, shape `(classes,)`.
    - `label`: $y$.
    - `order`: $n$, a whole number.
    - `scale`: $s > 0$; with the radius of convergence, coefficients of high order neither overflow nor vanish.

    **Returns:**

    Shape `(order + 1,)`.
    """
    z, a = check_matrix("logits", logits, (None,)), as_float_array("slopes", slopes)
    a = check_matrix("slopes", a, z.shape).astype(z.dtype)
    order = check_count("order", order, least=0)
    scale = check_positive("scale", scale, scalar=True).astype(z.dtype)
    loss = jax.nn.logsumexp(z) - z[label]
    if order == 0:
        return loss[None]
    weights = jax.nn.softmax(z)
    mean = weights @ a
    # The moments of the centred slopes: F(t)/F(0) without its exponential growth.
    centred = (a - mean) * scale
    n = jnp.arange(1, order + 1).astype(z.dtype)
    moments = jnp.cumprod(centred[None, :] / n[:, None], axis=0) @ weights
    # n f_n = Σ_j j c_j f_{n-j} for F = Σ f_n tⁿ with f₀ = 1 and log F = Σ c_n tⁿ.
    padded = jnp.concatenate([jnp.zeros(order + 1, z.dtype), moments])

    def extend(i: Array, weighted: Array) -> Array:
        # Entries i - j of the moments, from j = 1 on; zero for j >= i.
        earlier = jax.lax.dynamic_slice(padded[::-1], (order - i + 1,), (order,))
        return weighted.at[i - 1].set(i.astype(z.dtype) * moments[i - 1] - weighted @ earlier)

    weighted = jax.lax.fori_loop(1, order + 1, extend, jnp.zeros(order, z.dtype))
    coefficients = jnp.concatenate([loss[None], weighted / n])
    return coefficients.at[1].add(scale * (mean - a[label]))


def _differences(logits: ArrayLike, slopes: ArrayLike) -> tuple[Array, Array]:
    z, a = check_finite("logits", logits), check_finite("slopes", slopes)
    if z.shape != a.shape or z.shape[-1:] != (2,):
        raise ValueError(f"`logits` and `slopes` must have two classes along the last axis; got {z.shape}, {a.shape}.")
    return z[..., 0] - z[..., 1], a[..., 0] - a[..., 1]


def _over(top: Array, bottom: Array) -> Array:
    return jnp.where(bottom == 0, jnp.inf, top / jnp.where(bottom == 0, 1.0, bottom))
