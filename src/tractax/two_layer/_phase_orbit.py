r"""The orbit of one mode of modular addition, $a' = \bar ab$, $b' = \tfrac12a^2$, as an elliptic function of time.

With $C = |a|^2 - 2|b|^2$ and $I = \mathrm{Im}\,a^2\bar b$, $u = |b|^2$ obeys $u'^2 = 4u(u + \tfrac C2)^2 - I^2$. The
largest root of the cubic is the least $|b|^2$ of the whole orbit, $e = \beta_*^2$ with $2\beta_*^3 + C\beta_* = |I|$;
there $|a|^2$ is least too, $w = C + 2e$. As a square, $u = e + \xi^2$,

$$\xi'^2 = \xi^4 + (w + e)\,\xi^2 + \tfrac14w\,(w + 4e),$$

with coefficients in which nothing cancels, so that orbits that pass a saddle are no harder than others. $\xi$ increases
through zero to its pole, where both amplitudes diverge; $u' = \mathrm{Re}\,a^2\bar b$ has its sign.

Source: derived here.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from ..special import safe_sqrt, weierstrass_half_period, weierstrass_root, weierstrass_root_inverse


class PhaseOrbit(eqx.Module):
    """Orbits, as functions of time in units in which the equations above hold.

    **Arguments:**

    - `embedding`, `readout`: $|a|$ and $|b|$ at time zero, arrays of one shape.
    - `coupling`: $a^2\\bar b$ at time zero.
    """

    scale: Float[Array, "*modes"]
    least_embedding: Float[Array, "*modes"]
    least_readout: Float[Array, "*modes"]
    torsion: Float[Array, "*modes"]
    start: Float[Array, "*modes"]

    def __init__(
        self,
        embedding: Float[Array, "*modes"],
        readout: Float[Array, "*modes"],
        coupling: Complex[Array, "*modes"],
    ):
        square = embedding**2 + readout**2
        self.scale = jnp.where(square == 0, 1.0, jnp.sqrt(jnp.where(square == 0, 1.0, square)))
        alpha, beta = embedding / self.scale, readout / self.scale
        climb, self.torsion = jnp.real(coupling) / self.scale**3, jnp.imag(coupling) / self.scale**3
        size, imbalance = jnp.abs(self.torsion), alpha**2 - 2 * beta**2
        self.least_readout = _least_readout(imbalance, size)
        opposed = imbalance < 0
        self.least_embedding = jnp.where(
            opposed,
            size / jnp.where(opposed, self.least_readout, 1.0),
            jnp.where(opposed, 0.0, imbalance) + 2 * self.least_readout**2,
        )
        a, b = self._coefficients
        # ξ² from ξ² (ξ⁴ + a ξ² + b) = (u'/2)²: as a difference from the least amplitude it has no digits near its zero.
        # That of the smaller amplitude is where to begin.
        by_readout = (beta - self.least_readout) * (beta + self.least_readout)
        v = jnp.maximum(jnp.where(opposed, (alpha**2 - self.least_embedding) / 2, by_readout), 0.0)
        for _ in range(3):
            slope = b + v * (2 * a + 3 * v)
            v = v - (v * (b + v * (a + v)) - climb**2 / 4) / jnp.where(slope == 0, 1.0, slope)
        cubic = b + v * (a + v)
        self.start = climb / (2 * jnp.sqrt(jnp.where(cubic <= 0, 1.0, cubic)))

    @property
    def _coefficients(self) -> tuple[Float[Array, "*modes"], Float[Array, "*modes"]]:
        w, e = self.least_embedding, self.least_readout**2
        return w + e, w * (w + 4 * e) / 4

    @eqx.filter_jit
    def duration(self) -> Float[Array, "*modes"]:
        """The time at which the amplitudes diverge, possibly infinite."""
        return weierstrass_root_inverse(self.start, *self._coefficients) / self.scale

    @eqx.filter_jit
    def __call__(self, t: Float[Array, ""]) -> tuple[Array, Array, Array]:
        """$|a|$, $|b|$ and the argument of $a^2\\bar b$ at one time before `duration`."""
        a, b = self._coefficients
        falls = self.start < 0
        # An orbit that comes in from infinity is followed from there until half-way.
        since = weierstrass_root_inverse(jnp.where(falls, -self.start, 1.0), a, b) + self.scale * t
        left = weierstrass_root_inverse(self.start, a, b) - self.scale * t
        falls = falls & (since < weierstrass_half_period(a, b))
        xi = weierstrass_root(jnp.where(falls, since, left), a, b)
        xi = jnp.where(falls, -xi, xi)
        square = xi**2
        climb = 2 * xi * jnp.sqrt(b + square * (a + square))
        embedding = self.scale * safe_sqrt(self.least_embedding + 2 * square)
        readout = self.scale * safe_sqrt(self.least_readout**2 + square)
        undefined = (climb == 0) & (self.torsion == 0)
        angle = jnp.arctan2(jnp.where(undefined, 0.0, self.torsion), jnp.where(undefined, 1.0, climb))
        return embedding, readout, angle


def _least_readout(imbalance: Array, size: Array) -> Array:
    """The root β of 2β³ + Cβ = |I| with 2β² + C >= 0."""

    def newton(beta: Array, imbalance: Array, size: Array) -> Array:
        slope = 6 * beta**2 + imbalance
        return beta - (beta * (2 * beta**2 + imbalance) - size) / jnp.where(slope == 0, 1.0, slope)

    # From above, where the cubic is convex: β - c by the smaller of what its leading and its linear term would give,
    # with c the root for I = 0.
    c, i = jax.lax.stop_gradient((imbalance, size))
    linear = jnp.where(c < 0, -2 * c, c)
    cube = jnp.cbrt(i / 2)
    gap = jnp.where(linear * cube > i, i / jnp.where(linear == 0, 1.0, linear), cube)
    beta = jnp.sqrt(jnp.maximum(-c / 2, 0.0)) + gap
    beta = jax.lax.fori_loop(0, 8, lambda _, beta: newton(beta, c, i), beta)
    # Once more, for the derivative.
    return newton(jax.lax.stop_gradient(beta), imbalance, size)
