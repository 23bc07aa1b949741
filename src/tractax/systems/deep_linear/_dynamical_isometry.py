"""Spectra of deep products: orthogonal layers keep every singular value at one, Gaussian ones do not."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ...analysis import Scaling, scaling
from ...core import Kind
from ...deep_linear import (
    fuss_catalan_density,
    fuss_catalan_moment,
    gaussian,
    jacobian_singular_values,
    orthogonal,
)
from ...training import ensemble
from .._system import AbstractSystem, Citation, Exponent, Tolerance


class OrthogonalIsometrySystem(AbstractSystem):
    """Fifty orthogonal layers of forty units."""

    name: ClassVar[str] = "orthogonal_isometry"
    family: ClassVar[str] = "deep_linear"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "orthogonal layers keep all singular values at one, at any depth"
    citation: ClassVar[Citation] = Citation("Saxe, McClelland, Ganguli", 2013, "1312.6120")
    claim: ClassVar[Tolerance] = Tolerance(1e-12, "largest |σ - 1|")

    def measure(self) -> jax.Array:
        """The largest deviation of a singular value of the product from one."""
        values = jacobian_singular_values(orthogonal((40,) * 51, key=jax.random.key(0)))
        return jnp.max(jnp.abs(values - 1))

    def draw(self, figure: Any) -> None:
        """Sorted singular values of orthogonal and of Gaussian products at three depths."""
        size, keys = 100, jax.random.split(jax.random.key(0), 2)
        left, right = figure.subplots(1, 2)
        rank = np.arange(1, size + 1) / size
        for depth, colour in ((1, "C0"), (10, "C1"), (50, "C2")):
            sizes = (size,) * (depth + 1)
            gaussian_values = jacobian_singular_values(gaussian(sizes, scale=size**-0.5, key=keys[0]))
            left.plot(rank, jacobian_singular_values(orthogonal(sizes, key=keys[1])), color=colour, label=f"L = {depth}")
            right.semilogy(rank, jnp.maximum(gaussian_values, 1e-14), ".", ms=3, color=colour, label=f"L = {depth}")
            # Theory: the fraction of eigenvalues above each value, from the Fuss–Catalan density.
            log_x, density = (np.asarray(x) for x in fuss_catalan_density(depth, 2001))
            above = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2 * -np.diff(log_x))])
            seen = log_x > 2 * np.log(1e-14)
            right.semilogy(above[seen], np.exp(log_x[seen] / 2), color=colour, lw=1)
        left.set(xlabel="rank / N", ylabel="singular value", title="Orthogonal layers", ylim=(0, 2))
        right.set(xlabel="rank / N", title="Gaussian layers (line: N → ∞)", ylim=(1e-14, 1e3))
        for axes in (left, right):
            axes.legend(fontsize=8, frameon=False)


class GaussianSpectrumSystem(AbstractSystem):
    """The second moment of the spectrum of two Gaussian layers."""

    name: ClassVar[str] = "gaussian_spectrum"
    family: ClassVar[str] = "deep_linear"
    kind: ClassVar[Kind] = "asymptotic"
    summary: ClassVar[str] = "moments of products of Gaussian layers approach Fuss–Catalan numbers as 1/N"
    citation: ClassVar[Citation] = Citation("Saxe, McClelland, Ganguli", 2013, "1312.6120")
    claim: ClassVar[Exponent] = Exponent(-1.0, "exponent in N of the error of a moment")

    def measure(self) -> Scaling:
        """Bias and fluctuations of tr (WWᵀ)²/N, both of order 1/N, in root mean square."""
        expected = fuss_catalan_moment(2, 2)

        def deviations(size: int):
            def one(key):
                product = gaussian((size,) * 3, scale=size**-0.5, key=key).product
                return jnp.sum((product @ product.T) ** 2) / size - expected

            return ensemble(one, jax.random.split(jax.random.key(size), 64000 // size), chunk_size=1000)

        return scaling(deviations, (32, 64, 128))

    def draw(self, figure: Any) -> None:
        """Histograms of ln σ² at three depths, against the Fuss–Catalan law."""
        size, draws = 200, 4
        axes = figure.subplots()
        for depth, colour in ((1, "C0"), (3, "C1"), (10, "C2")):
            log_x, density = fuss_catalan_density(depth, 2001)
            axes.plot(log_x, density, color=colour, label=f"L = {depth}")
            keys = jax.random.split(jax.random.key(depth), draws)
            products = [gaussian((size,) * (depth + 1), scale=size**-0.5, key=key) for key in keys]
            logs = 2 * np.log(np.concatenate([jacobian_singular_values(product) for product in products]))
            heights, edges = np.histogram(logs, bins=40, density=True)
            axes.plot((edges[1:] + edges[:-1]) / 2, heights, "o", mfc="white", ms=4, color=colour)
        axes.plot([], [], color="0.3", label="theory, N → ∞")
        axes.plot([], [], "o", mfc="white", ms=4, color="0.3", label=f"{draws} draws, N = {size}")
        axes.set(xlabel="$\\ln\\sigma^2$", ylabel="density", title="Products of L Gaussian layers", xlim=(-25, 5))
        axes.legend(fontsize=8, frameon=False)
