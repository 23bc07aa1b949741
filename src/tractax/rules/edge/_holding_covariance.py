r"""Oscillations that hold several eigenvalues at the edge of stability: a semidefinite complementarity problem.

Given how fast the Hessian would grow on the span of its leading eigenvectors, a symmetric matrix $G$, and how
oscillations of covariance $\Sigma$ there resist, by $B\Sigma$ with $\langle\Sigma, B\Sigma\rangle\ge0$, find

$$\Sigma\succeq0,\qquad G - B\Sigma\preceq0,\qquad \langle\Sigma, G - B\Sigma\rangle = 0.$$

With $Y = B\Sigma - G$ this is $\Sigma Y = 0$ for two matrices that share their eigenvectors. The problem
$\Sigma Y = \mu I$ is smooth, solved by $\Sigma = \tfrac12\big(Z + \sqrt{Z^2 + 4\mu}\big)$ and $Y = \Sigma - Z$, and
Newton's method follows $Z$ from $\mu = 1$, where it is well conditioned, down to $\mu$ near rounding.

Sources: Chen, Harker 1993, Kanzow 1996 and Smale 1987 for the smoothing; Cohen et al. 2024 (arXiv 2410.24206) for the
problem.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_STEPS = 40


def holding_covariance(growth: Float[Array, "k k"], resistance: Float[Array, "k k k k"]) -> Float[Array, "k k"]:
    r"""$\Sigma$, for $G$ and $B$; zero where nothing grows. Where nothing resists, it is large."""
    k, eps = growth.shape[0], jnp.finfo(growth.dtype).eps
    resists = jnp.linalg.norm(jnp.ravel(resistance))
    fastest = jnp.linalg.eigvalsh(growth)[-1]
    held = (fastest > 0) & (resists > 0)
    # Numbers of order one, and a little resistance of its own to what does not matter for the loss.
    units = jax.lax.stop_gradient((jnp.where(held, fastest, 1.0), jnp.where(held, resists, 1.0)))
    g = jnp.ravel(growth) / units[0]
    b = resistance.reshape(k * k, k * k) / units[1] + eps**0.75 * jnp.eye(k * k, dtype=growth.dtype)
    frozen = jax.lax.stop_gradient((g, b))

    def step(i: Any, z: Array) -> Array:
        mu = (eps ** (0.65 * jnp.minimum(i / (_STEPS - 5), 1.0))).astype(z.dtype)
        return z + _newton(z, mu, *frozen)[2]

    z = jax.lax.fori_loop(0, _STEPS, step, jnp.zeros_like(growth))
    # A last step, whose derivative is that of the solution.
    covariance, slope, change = _newton(z, jnp.asarray(eps**0.65, z.dtype), g, b)
    return jnp.where(held, (covariance + slope @ jnp.ravel(change)).reshape(k, k) * (units[0] / units[1]), 0.0)


def _newton(z: Array, mu: Array, g: Array, b: Array) -> tuple[Array, Array, Array]:
    """Σ, its derivative by Z, and the change of Z that solves the linearised problem."""
    values, vectors = jnp.linalg.eigh(z)
    roots = jnp.sqrt(values**2 + 4 * mu)
    positive = values > 0
    # Without cancellation for negative ones.
    smooth = jnp.where(positive, (values + roots) / 2, 2 * mu / jnp.where(positive, 1.0, roots - values))
    covariance = jnp.ravel((vectors * smooth[None, :]) @ vectors.T)
    # Divided differences of Σ as a function of the eigenvalues of Z, between 0 and 1.
    differences = (1 + (values[:, None] + values[None, :]) / (roots[:, None] + roots[None, :])) / 2
    turn = jnp.kron(vectors, vectors)
    slope = (turn * jnp.ravel(differences)[None, :]) @ turn.T
    excess = b @ covariance - g - covariance + jnp.ravel(z)
    change = -jnp.linalg.solve(b @ slope + jnp.eye(g.size, dtype=g.dtype) - slope, excess).reshape(z.shape)
    return covariance, slope, (change + change.T) / 2
