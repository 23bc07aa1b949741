r"""Exponentials of a sample covariance $S = X^\top X/n$, in the limit of large samples of known covariance $\Sigma$.

As $n\to\infty$ with $c_jn$ inputs of variance $s_j$, the resolvent of the sample becomes that of the population at a
renormalised argument, $z\,(S + z)^{-1} \simeq \kappa\,(\Sigma + \kappa)^{-1}$, with

$$z = \kappa\,\Big(1 - \sum_j\frac{c_js_j}{s_j + \kappa}\Big),\qquad \kappa\simeq z\ \text{at infinity},$$

and $1/\kappa$ is the mean eigenvalue of $(XX^\top/n + z)^{-1}$, over the $n$ examples. What $e^{-tS}$ does is then an
inverse Laplace transform, with $G = 1/(s + \kappa)$; what two of them do is one in two variables $z$ and $z'$:

$$u^\top e^{-tS}\,\Sigma\,e^{-tS}u\quad\text{is that of}\quad \frac{\kappa\kappa'}{zz'}\,
\frac{\sum_j\lVert u_j\rVert^2s_jG_jG'_j}{1 - \sum_jc_js_j^2G_jG'_j}.$$

With steps of gradient descent, $(1 - \eta S)^k$ takes the place of $e^{-tS}$ and $(1 + \eta z)^k$ that of $e^{tz}$.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from ..special import talbot

# Newton's method needs 28 of these at the worst: at the critical ratio, from z = 1 down to z = 1e-15.
_ITERATIONS = 48
# Up to so many steps of descent the contour is a circle, which must contain more points than steps.
_FEW_STEPS, _CIRCLE = 16, 96


class Nodes(NamedTuple):
    """Where transforms are evaluated for one time, and what they are made of there."""

    t: Float[Array, ""]
    points: Complex[Array, " nodes"]
    weights: Complex[Array, " nodes"]
    rise: Complex[Array, " nodes"]
    kappa: Complex[Array, " nodes"]
    resolvent: Complex[Array, "nodes levels"]


class LargeSample(eqx.Module):
    r"""A sample of many Gaussian inputs. Results are real and in double precision, at times from zero to infinity.

    Vectors enter by their share in each level, `risk` $= s_j\lVert u_j\rVert^2$, and times by their `nodes(t)`.

    **Arguments:**

    - `variances`: $s_j \ge 0$, one for each level.
    - `ratios`: $c_j$, how many inputs a level has for each example.
    - `step`: $\eta$ of gradient descent, whose times are $\eta k$; `None` for gradient flow.

    **Attributes:**

    - `ridge`: $\kappa(0)$, what having fewer examples than inputs is worth; zero with more.
    """

    variances: Float[Array, " levels"]
    ratios: Float[Array, " levels"]
    ridge: Float[Array, ""]
    step: Float[Array, ""] | None

    def __init__(self, variances: Array, ratios: Array, step: Array | None = None):
        # Inputs that are always zero do not count, and any variance serves.
        seen = variances > 0
        self.variances = jnp.where(seen, variances, jnp.max(variances)).astype(jnp.float64)
        self.ratios = jnp.where(seen, ratios, 0.0).astype(jnp.float64)
        self.ridge = _ridge_at_zero(self.variances, self.ratios)
        self.step = None if step is None else step.astype(jnp.float64)

    def decay(self, risk: Float[Array, " levels"], now: Nodes) -> Float[Array, ""]:
        r"""$v^\top\Sigma\,e^{-tS}u$, with $s_j\,v_j\cdot u_j$ = `risk`."""
        value = (now.weights * now.kappa / now.points) @ now.resolvent @ _complex(risk)
        return _between(now.t, jnp.sum(risk), value, jnp.sum(risk * self.ridge / (self.variances + self.ridge)))

    def bias(self, risk: Float[Array, " levels"], now: Nodes) -> Float[Array, ""]:
        r"""$u^\top e^{-tS}\,\Sigma\,e^{-tS}u$."""
        left = jnp.sum(risk * (self.ridge / (self.variances + self.ridge)) ** 2)
        left = left / jnp.where(self.ridge > 0, self._unfitted, 1.0)
        signal, noise = _complex(risk)[None, :], _complex(self.ratios * self.variances**2)[None, :]
        factors = now.weights * now.kappa / now.points
        pairs = (signal * now.resolvent) @ now.resolvent.T / (1 - (noise * now.resolvent) @ now.resolvent.T)
        return _between(now.t, jnp.sum(risk), factors @ pairs @ factors, left)

    def variance(self, now: Nodes, twice: Nodes) -> Float[Array, ""]:
        r"""$\tfrac1n\mathrm{tr}\,\Sigma\,(1 - e^{-tS})^2S^{-1}$: what unit label noise adds to twice the excess risk.

        `twice` are the nodes for $2t$. Infinite at $t = \infty$ and the critical ratio, $\sum_jc_j = 1$.
        """
        unfitted = self._unfitted
        left = jnp.where(unfitted > 0, 1 / jnp.where(unfitted > 0, unfitted, 1.0) - 1, jnp.inf)
        # The transform of (κ − z)/z², but for a part κ(0) t that cancels in the difference.
        once, later = (n.weights @ ((n.rise - n.points) / n.points**2) for n in (now, twice))
        return _between(now.t, jnp.zeros_like(left), 2 * once - later, left)

    def train(self, risk: Float[Array, " levels"], noise: Float[Array, ""], twice: Nodes) -> Float[Array, ""]:
        r"""$u^\top S\,e^{-2tS}u$ and what label noise of variance `noise` adds: the mean squared error on the sample.

        `twice` are the nodes for $2t$.
        """
        value = twice.weights @ (twice.resolvent @ _complex(risk) + _complex(noise) / twice.kappa)
        return _between(twice.t, jnp.sum(risk) + noise, value, noise * jnp.maximum(1 - jnp.sum(self.ratios), 0.0))

    @property
    def _unfitted(self) -> Float[Array, ""]:
        """1 − Σ c s²/(s + κ(0))²."""
        return 1 - jnp.sum(self.ratios * (self.variances / (self.variances + self.ridge)) ** 2)

    def nodes(self, t: Float[Array, ""]) -> Nodes:
        """Evaluates what all transforms have in common."""
        # Far below and above all time scales nothing changes, and powers of t keep within range.
        fastest = jnp.max(self.variances) * (1 + jnp.sum(self.ratios))
        shortest = 1e-30 / fastest if self.step is None else self.step
        points, weights = self._contour(jnp.clip(t, shortest, 1e60 / fastest))
        rise = self._rise(points)
        kappa = _complex(self.ridge) + rise
        return Nodes(t, points, weights, rise, kappa, 1 / (_complex(self.variances)[None, :] + kappa[:, None]))

    def _contour(self, t: Float[Array, ""]) -> tuple[Array, Array]:
        """Points and weights, the latter including e^{tz} or, for descent, (1 + ηz)^k."""
        points, weights = talbot()
        few = None if self.step is None else t < (_FEW_STEPS + 0.5) * self.step
        t = _complex(t)
        if self.step is None:
            return points / t, weights / t
        step = _complex(self.step)
        bend = points * step / t
        radius = 1.6
        angles = jnp.asarray(radius * np.exp(2j * np.pi * (np.arange(_CIRCLE) + 0.5) / _CIRCLE))
        return (
            jnp.concatenate([jnp.expm1(bend) / step, (angles - 1) / step]),
            jnp.concatenate(
                [
                    jnp.where(few, 0.0, weights * jnp.exp(bend) / t),
                    jnp.where(few, angles ** (1 + jnp.where(few, t / step, 0.0)) / (_CIRCLE * step), 0.0),
                ]
            ),
        )

    def _rise(self, points: Complex[Array, " nodes"]) -> Complex[Array, " nodes"]:
        """κ(z) − κ(0), with full relative accuracy as z → 0."""
        s, c = self.variances, self.ratios
        outside = _complex(jnp.maximum(1 - jnp.sum(c), 0.0))
        share = _complex(c * jnp.where(self.ridge > 0, s / (s + self.ridge), 1.0))
        levels, ridge = _complex(s + self.ridge), _complex(self.ridge)

        def equation(rise):
            # z(κ) − z(κ(0)), without its cancellation; convex on the real axis, where Newton from above cannot fail.
            pull = jnp.sum(share[None, :] / (levels[None, :] + rise[:, None]), axis=1)
            return (ridge + rise) * (outside + rise * pull) - points

        return _newton(equation, points + _complex(jnp.sum(c * s)) - ridge)


@jax.jit
def largest_eigenvalue(s: Float[Array, " levels"], c: Float[Array, " levels"]) -> Float[Array, ""]:
    """The upper edge of the eigenvalues of the sample covariance, for levels of variance s and ratio c."""
    top = jnp.argmax(s)

    def equation(x):
        # Where −z(−x) is lowest. Concave, and straight for a single level.
        return 1 / jnp.sqrt(jnp.sum(c[None, :] * (s[None, :] / (x[:, None] - s[None, :])) ** 2, axis=1)) - 1

    x = _newton(equation, (s[top] * (1 + jnp.sqrt(c[top])))[None])[0]
    return x * (1 + jnp.sum(c * s / (x - s)))


def _ridge_at_zero(s: Float[Array, " levels"], c: Float[Array, " levels"]) -> Float[Array, ""]:
    """The root of Σ c s/(s + κ) = 1, if there are fewer examples than inputs."""
    fewer = jnp.sum(c) > 1
    c = jnp.where(fewer, c, 2.0)

    def equation(kappa):
        # The inverse of the sum is concave, and straight for a single level.
        return 1 / jnp.sum((c * s)[None, :] / (s[None, :] + kappa[:, None]), axis=1) - 1

    return jnp.where(fewer, jnp.maximum(_newton(equation, jnp.zeros_like(s[:1]))[0], 0.0), 0.0)


def _complex(x: Array) -> Complex[Array, "..."]:
    return x.astype(jnp.complex128)


def _between(t: Array, start: Array, value: Array, left: Array) -> Array:
    return jnp.where(t == 0, start, jnp.where(jnp.isinf(t), left, jnp.real(value)))


def _newton(equation, start: Array) -> Array:
    """The root of each entry's own equation, differentiable."""

    def solve(f, x):
        def improve(_, x):
            value, slope = jax.jvp(f, (x,), (jnp.ones_like(x),))
            return x - value / slope

        return jax.lax.fori_loop(0, _ITERATIONS, improve, x)

    return jax.lax.custom_root(equation, start, solve, lambda g, y: y / g(jnp.ones_like(y)))
