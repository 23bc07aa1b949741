"""Escape from a saddle that is left algebraically, and saturation."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ._broadcast import broadcast


def quintic_escape(t: ArrayLike, x0: ArrayLike, k: ArrayLike, g: ArrayLike) -> Float[Array, "..."]:
    r"""The solution of $\dot x = k\,x^2(1 - g\,x^3)$ with $x(0) = x_0$, below its fixed point $x = g^{-1/3}$.

    A plateau of length $\approx 1/(k x_0)$, then a sudden rise. With $y = g^{1/3}x$ and $z = \ln\frac{y}{1 - y}$,

    $$k g^{-1/3}\,t = H(z) - H(z_0),\qquad H(z) = -\frac1y + \frac{\ln(1 + e^z)}3 + \frac{\ln(1 + y + y^2)}6 -
    \frac1{\sqrt3}\arctan\frac{2y + 1}{\sqrt3}.$$

    **Arguments:**

    - `t`: the time, possibly infinite.
    - `x0`: the value at time zero, from 0 (where it stays) up to the fixed point.
    - `k`: the rate, non-negative.
    - `g`: positive.

    **Returns:**

    $x(t)$, with the broadcast shape; differentiable in all arguments. NaN for a start outside these bounds.
    """
    t, x0, k, g = broadcast(t, x0, k, g)
    end = 1 / jnp.cbrt(g)
    y0 = x0 / end
    # A finite time, so that no derivative meets 0 · ∞.
    elapsed = k * end * jnp.minimum(t, jnp.finfo(t.dtype).max)
    at_rest = (x0 == 0) | (k == 0)
    settled = jnp.abs(1 - y0) <= 8 * jnp.finfo(y0.dtype).eps
    moving = (y0 > 0) & (y0 < 1) & ~settled & ~at_rest
    start = jnp.where(moving, y0, 0.5)
    z0 = jnp.log(start) - jnp.log1p(-start)
    z = _advance(z0, jnp.where(moving, elapsed, 0.0))
    # By the ratio of x and x0, so that nothing underflows on the plateau.
    x = x0 * jnp.exp(jax.nn.log_sigmoid(z) - jax.nn.log_sigmoid(z0))
    relaxed = end + (x0 - end) * jnp.exp(-3 * elapsed)
    return jnp.where(at_rest, x0, jnp.where(settled, relaxed, jnp.where(moving, x, jnp.nan)))


def _smooth(z: Array) -> Array:
    """H(z) + e^(-z): what is left of the integral without its pole at y = 0."""
    y, root = jax.nn.sigmoid(z), 3**0.5
    return jax.nn.softplus(z) / 3 + jnp.log1p(y + y * y) / 6 - jnp.arctan((2 * y + 1) / root) / root - 1


def _integral(z: Array) -> Array:
    """H(z)."""
    return _smooth(z) - jnp.exp(-z)


@jax.custom_jvp
def _advance(z0: Array, elapsed: Array) -> Array:
    """The z with H(z) = H(z0) + elapsed."""
    # At 1e3 nothing but rounding is left.
    c = jnp.minimum(_integral(z0) + elapsed, 1e3)
    # H is increasing and concave: from the left Newton's steps ascend to the root. Where H ≤ H(0), -e^(-z) differs from
    # H by less than smooth(0); beyond, H lies below the line of its final slope, 1/3, through smooth(0).
    top = _smooth(jnp.zeros_like(c))
    early = c <= top - 1
    start = jnp.where(early, -jnp.log(jnp.where(early, top - c, 1.0)), jnp.maximum(3 * (c - top), 0.0))
    return jax.lax.fori_loop(0, 10, lambda _, z: z + (c - _integral(z)) * _slope(z), start)


def _slope(z: Array) -> Array:
    """1/H'(z) = y (1 + y + y²)."""
    y = jax.nn.sigmoid(z)
    return y * (1 + y + y * y)


@_advance.defjvp
def _advance_jvp(primals, tangents):
    (z0, elapsed), (dz0, delapsed) = primals, tangents
    z = _advance(z0, elapsed)
    slope = _slope(z)
    return z, slope / _slope(z0) * dz0 + slope * delapsed
