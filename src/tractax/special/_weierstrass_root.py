r"""The square root of Weierstrass's $\wp - e_1$, its real half period, and its inverse.

The function obeys $\xi'^2 = \xi^4 + a\,\xi^2 + b = (\xi^2 + k^2)(\xi^2 + l^2)$. By Gauss's transformation $\xi_1(2z) =
\tfrac12(\xi(z) - kl/\xi(z))$ obeys the same with the arithmetic and the geometric mean of $k$ and $l$, which are real
even where $k$ and $l$ are not. After a few steps the means agree, and $\xi = M\cot Mz$.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ._broadcast import broadcast
from ._carlson_rf import carlson_rf_pair

# Enough for means that differ by a factor 1/eps at first.
_STEPS = 9


def weierstrass_root(z: ArrayLike, a: ArrayLike, b: ArrayLike) -> Float[Array, "..."]:
    r"""$\xi(z) = \sqrt{\wp(z) - e_1}$: the solution of $\xi'^2 = \xi^4 + a\,\xi^2 + b$ with the pole $\xi\approx1/z$.

    It falls from infinity at $z = 0$ through zero at the real half period $\Omega$ to minus infinity at $2\Omega$. In
    terms of the roots of Weierstrass's function, of which $e_1$ is the largest real one, $a = 3e_1$ and $b = (e_1 -
    e_2)(e_1 - e_3)$. Unlike the invariants $g_2 = 12e_1^2 - 4b$ and $g_3 = 4e_1(b - 2e_1^2)$ they lose no digits where
    two roots nearly meet.

    **Arguments:**

    - `z`: from 0 to $2\Omega$, where $\Omega$ is `weierstrass_half_period(a, b)`.
    - `a`, `b`: non-negative. With $b = 0$ the period is infinite, and $\xi = \sqrt a/\sinh(\sqrt a\,z)$.

    **Returns:**

    $\xi(z)$, with the broadcast shape; differentiable in all arguments where `b` is positive.
    """
    z, a, b = broadcast(z, a, b)
    algebraic = (a == 0) & (b == 0)
    limit, means = _means(jnp.where(algebraic, 1.0, a), b)
    # Half a period is π/2. What lies n levels up is seen at 2ⁿ z; modulo π this tells the branch of each root.
    angle = limit * z
    angles = [jnp.where((b == 0) & (angle > math.pi / 2), math.pi / 2, angle)]
    for _ in means:
        doubled = 2 * angles[-1]
        angles.append(jnp.where(doubled > math.pi, doubled - math.pi, doubled))
    xi = limit / jnp.tan(angles[-1])
    for mean, angle in zip(reversed(means), reversed(angles[:-1]), strict=True):
        # The roots of x² - 2 ξ x = mean², neither by cancellation.
        larger = xi + jnp.copysign(jnp.sqrt(xi**2 + mean**2), xi)
        xi = jnp.where((angle <= math.pi / 2) == (xi > 0), larger, -(mean**2) / larger)
    return jnp.where(algebraic, 1 / z, xi)


def weierstrass_half_period(a: ArrayLike, b: ArrayLike) -> Float[Array, "..."]:
    r"""$\Omega = \int_0^\infty\frac{d\xi}{\sqrt{\xi^4 + a\,\xi^2 + b}}$, where `weierstrass_root` has its zero.

    **Arguments:**

    - `a`, `b`: non-negative; infinite for $b = 0$.
    """
    a, b = broadcast(a, b)
    endless = b == 0
    return jnp.where(endless, jnp.inf, math.pi / 2 / _means(a, jnp.where(endless, 1.0, b))[0])


def weierstrass_root_inverse(xi: ArrayLike, a: ArrayLike, b: ArrayLike) -> Float[Array, "..."]:
    r"""$z = \int_\xi^\infty\frac{dx}{\sqrt{x^4 + a\,x^2 + b}}$, where `weierstrass_root` has the value $\xi$.

    **Arguments:**

    - `xi`: any number; below zero, $z$ lies beyond half a period. Positive where $b = 0$.
    - `a`, `b`: non-negative.

    **Returns:**

    $z$, with the broadcast shape; differentiable in all arguments.
    """
    xi, a, b = broadcast(xi, a, b)
    # Close to the pole by Carlson's integral from ξ to infinity, elsewhere by that from zero to ξ.
    root = jnp.sqrt(jnp.where(b == 0, 1.0, b))
    close = (xi > 0) & ((xi**2 >= root) | (b == 0))
    x = jnp.where(close, xi, 1.0)
    u = jnp.where(close, 1 / x**2, 1.0)
    from_pole = carlson_rf_pair(1.0, 2 + a * u, 1 + u * (a + u * b)) / x
    y = jnp.where(close, 1.0, xi) / root
    scaled = jnp.where(close, 1.0, xi**2) / root
    from_zero = y * carlson_rf_pair(1.0, 2 + scaled * (a / root), 1 + scaled * (a / root + scaled))
    return jnp.where(close, from_pole, weierstrass_half_period(a, b) - from_zero)


def _means(a: Array, b: Array) -> tuple[Array, list[Array]]:
    """The arithmetic-geometric mean of k and l, and the geometric means on the way to it."""
    root = jnp.sqrt(jnp.where(b == 0, 0.0, jnp.where(b == 0, 1.0, b)))
    arithmetic = jnp.sqrt(a + 2 * root) / 2
    # A period that is longer by far than any z stands for an infinite one.
    least = jnp.finfo(a.dtype).eps * arithmetic
    small = root <= least**2
    geometric = jnp.where(small, least, jnp.sqrt(jnp.where(small, 1.0, root)))
    means = [geometric]
    for _ in range(_STEPS - 1):
        arithmetic, geometric = (arithmetic + geometric) / 2, jnp.sqrt(arithmetic * geometric)
        means.append(geometric)
    return arithmetic, means
