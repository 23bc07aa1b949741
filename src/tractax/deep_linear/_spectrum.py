r"""Spectra of $XX^\top$: of given inputs, and of random inputs in high dimension (Marchenko–Pastur)."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..core import check_matrix, check_positive

# Trapezoidal nodes x = log tan(φ/2); see `marchenko_pastur`.
_FIRST, _LAST, _STEP = -40.0, 14.0, 0.125


class Spectrum(eqx.Module):
    r"""A distribution of eigenvalues $l$ of $XX^\top$, as nodes with masses.

    **Attributes:**

    - `eigenvalues`: nonnegative nodes, shape `(nodes,)`.
    - `masses`: the fraction of all $N$ eigenvalues that each node stands for; they add up to $\min(1, \alpha)$.
    - `null_mass`: the fraction that vanishes because there are fewer examples than inputs, $\max(0, 1 - \alpha)$.
    - `edge`: the smallest of the others, or the lower end of their continuum.
    - `load`: $\alpha = P/N$.
    """

    eigenvalues: Float[Array, " nodes"]
    masses: Float[Array, " nodes"]
    null_mass: Float[Array, ""]
    edge: Float[Array, ""]
    load: Float[Array, ""]

    def mean(self, values: Float[Array, " nodes"], at_zero: ArrayLike) -> Float[Array, ""]:
        """The average over all $N$ eigenvalues of a function with these `values` at the nodes and `at_zero` at 0."""
        return jnp.sum(self.masses * values) + self.null_mass * at_zero


def empirical_spectrum(inputs: Float[ArrayLike, "in examples"]) -> Spectrum:
    """The spectrum of given inputs, one example a column."""
    inputs = check_matrix("inputs", inputs)
    n_in, examples = inputs.shape
    singular_values = jnp.linalg.svd(inputs, compute_uv=False)
    floor = max(inputs.shape) * jnp.finfo(inputs.dtype).eps * singular_values[0]
    eigenvalues = jnp.where(singular_values > floor, singular_values, 0.0) ** 2
    return Spectrum(
        eigenvalues,
        jnp.full_like(eigenvalues, 1 / n_in),
        jnp.asarray(max(0.0, 1 - examples / n_in), inputs.dtype),
        eigenvalues[-1],
        jnp.asarray(examples / n_in, inputs.dtype),
    )


def marchenko_pastur(load: ArrayLike) -> Spectrum:
    r"""The spectrum of independent inputs of variance $1/N$ as $N, P \to \infty$ at $P/N = \alpha$.

    The density is $\sqrt{(l_+ - l)(l - l_-)}/(2\pi l)$ on $l_\pm = (1 \pm \sqrt\alpha)^2$. Averages over it with these
    nodes are accurate to rounding, at every load (one included, where the density diverges at zero), for functions as
    smooth as $e^{-lt}$ at times up to about 1e20, and $1/(l+\gamma)$.

    **Arguments:**

    - `load`: $\alpha > 0$, examples per input, a scalar.

    **Raises:**

    `ValueError` if `load` is not a positive number.
    """
    load = check_positive("load", load)
    # With l = (1-√α)² + 4√α sin²(φ/2) the density is (2α/π) sin²φ/l dφ, and all that is difficult sits at φ = 0. In
    # x = log tan(φ/2) the integrand is analytic in a strip that depends on neither α nor t, so equal steps converge
    # exponentially and uniformly.
    x = jnp.arange(_FIRST, _LAST, _STEP, dtype=load.dtype)
    root = jnp.sqrt(load)
    # (1 - √α)², without its cancellation near one.
    edge = ((1 - load) / (1 + root)) ** 2
    below = jax.nn.sigmoid(2 * x)
    eigenvalues = edge + 4 * root * below
    shape = 4 * below * jax.nn.sigmoid(-2 * x) / eigenvalues
    masses = (2 * _STEP / jnp.pi) * load * shape / jnp.cosh(x)
    return Spectrum(eigenvalues, masses, jnp.maximum(0.0, 1 - load), edge, load)
