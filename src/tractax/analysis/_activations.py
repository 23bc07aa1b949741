r"""Activation functions that know their Gaussian averages.

Fields $u$ are jointly normal with mean zero and covariance $C$; $a, b, c, d$ are indices into them that broadcast against
each other, so that one call returns a whole table of averages. In the notation of Saad and Solla 1995 (Phys. Rev. E 52,
4225) `pair` is $I_2$, `slopes` $J_2$, `drift` $I_3$ and `diffusion` $I_4$.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..core import check_count
from ..special import circle_angle, safe_sqrt
from ._index_kinds import by_kind, known_indices

Indices = Int[Array, "..."] | Int[np.ndarray, "..."] | int


class AbstractActivation(eqx.Module):
    """An activation function $g$ with its averages over Gaussian fields."""

    @abc.abstractmethod
    def __call__(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """$g(u)$."""

    @abc.abstractmethod
    def pair(self, covariance: Float[Array, "n n"], a: Indices, b: Indices) -> Float[Array, "..."]:
        """$\\mathbb E\\,g(u_a)\\,g(u_b)$."""

    @abc.abstractmethod
    def slopes(self, covariance: Float[Array, "n n"], a: Indices, b: Indices) -> Float[Array, "..."]:
        """$\\mathbb E\\,g'(u_a)\\,g'(u_b)$."""

    @abc.abstractmethod
    def curvature(self, covariance: Float[Array, "n n"], a: Indices, b: Indices) -> Float[Array, "..."]:
        """$\\mathbb E\\,g''(u_a)\\,g(u_b)$, where kinks count."""

    @abc.abstractmethod
    def diffusion(
        self, covariance: Float[Array, "n n"], a: Indices, b: Indices, c: Indices, d: Indices
    ) -> Float[Array, "..."]:
        """$\\mathbb E\\,g'(u_a)\\,g'(u_b)\\,g(u_c)\\,g(u_d)$, at indices that are known when JAX traces.

        **Raises:**

        `ValueError` for traced indices, where formulas differ between equal and different fields.
        """

    def drift(self, covariance: Float[Array, "n n"], a: Indices, b: Indices, c: Indices) -> Float[Array, "..."]:
        """$\\mathbb E\\,g'(u_a)\\,u_b\\,g(u_c)$."""
        # Stein's lemma: u_b stands for a derivative by every field that it is correlated with.
        return covariance[a, b] * self.curvature(covariance, a, c) + covariance[b, c] * self.slopes(covariance, a, c)

    def diffusion_of_sum(self, covariance: Float[Array, "n n"], s: Float[Array, " n"], units: int) -> Float[Array, "k k"]:
        """$\\mathbb E\\,g'(u_a)\\,g'(u_b)\\,\\big(\\sum_c s_c\\,g(u_c)\\big)^2$ for a and b among the first `units`."""
        (a, b), (c, d) = np.triu_indices(units), np.triu_indices(s.shape[0])
        weight = jnp.asarray(np.where(c == d, 1.0, 2.0), s.dtype) * s[c] * s[d]
        return _symmetric(self.diffusion(covariance, a[:, None], b[:, None], c[None, :], d[None, :]) @ weight, units)


class Linear(AbstractActivation):
    """$g(u) = u$."""

    def __call__(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The identity."""
        return u

    def pair(self, covariance, a, b):
        """$C_{ab}$."""
        return covariance[a, b]

    def slopes(self, covariance, a, b):
        """One."""
        return jnp.ones_like(covariance[a, b])

    def curvature(self, covariance, a, b):
        """Zero."""
        return jnp.zeros_like(covariance[a, b])

    def diffusion(self, covariance, a, b, c, d):
        """$C_{cd}$."""
        return covariance[c, d] * jnp.ones_like(covariance[a, b])

    def diffusion_of_sum(self, covariance, s, units):
        """$s^\\top C s$."""
        return s @ covariance @ s * jnp.ones_like(covariance[:units, :units])


class Erf(AbstractActivation):
    r"""$g(u) = \mathrm{erf}(u/\sqrt2)$."""

    def __call__(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The error function, with a slope of $\\sqrt{2/\\pi}$ at zero."""
        return jax.scipy.special.erf(u / 2**0.5)

    def pair(self, covariance, a, b):
        """$\\tfrac2\\pi\\arcsin\\big(C_{ab}/\\sqrt{(1+C_{aa})(1+C_{bb})}\\big)$."""
        return 2 / np.pi * _arcsin(covariance[a, b] * _inverse_width(covariance[a, a]) * _inverse_width(covariance[b, b]))

    def slopes(self, covariance, a, b):
        """$\\tfrac2\\pi\\big((1+C_{aa})(1+C_{bb}) - C_{ab}^2\\big)^{-1/2}$."""
        square = (1 + covariance[a, a]) * (1 + covariance[b, b]) - covariance[a, b] ** 2
        return 2 / np.pi / jnp.sqrt(square)

    def curvature(self, covariance, a, b):
        """$-C_{ab}/(1+C_{aa})$ of `slopes`."""
        return -covariance[a, b] / (1 + covariance[a, a]) * self.slopes(covariance, a, b)

    def diffusion(self, covariance, a, b, c, d):
        """Elementary; see Saad and Solla 1995."""
        # Given g'(u_a) g'(u_b), which is a Gaussian weight, u_c and u_d are again jointly normal.
        wide_a, wide_b = 1 + covariance[a, a], 1 + covariance[b, b]
        ab = covariance[a, b]
        square = wide_a * wide_b - ab**2

        def reduced(i, j):
            ai, bi, aj, bj = covariance[a, i], covariance[b, i], covariance[a, j], covariance[b, j]
            return covariance[i, j] - (bi * bj * wide_a + ai * aj * wide_b - ab * (ai * bj + aj * bi)) / square

        angle = _arcsin(reduced(c, d) * _inverse_width(reduced(c, c)) * _inverse_width(reduced(d, d)))
        return 4 / np.pi**2 * angle / jnp.sqrt(square)

    def diffusion_of_sum(self, covariance, s, units):
        """`diffusion` with what depends on a pair of fields computed once for the pair."""
        a, b = np.triu_indices(units)
        own, ab = jnp.diagonal(covariance), covariance[a, b][:, None]
        to_a, to_b = covariance[a], covariance[b]
        wide_a, wide_b = 1 + own[a][:, None], 1 + own[b][:, None]
        square = wide_a * wide_b - ab**2
        share_a, share_b = (to_a * wide_b - ab * to_b) / square, (to_b * wide_a - ab * to_a) / square
        cd = covariance[None, :, :] - to_a[:, :, None] * share_a[:, None, :] - to_b[:, :, None] * share_b[:, None, :]
        scale = _inverse_width(own[None, :] - to_a * share_a - to_b * share_b)
        angle = _arcsin(cd * scale[:, :, None] * scale[:, None, :])
        of_square = jnp.sum(angle * s[None, :, None] * s[None, None, :], axis=(1, 2))
        return _symmetric(4 / np.pi**2 * of_square / jnp.sqrt(square[:, 0]), units)


class Custom(AbstractActivation):
    """Any activation function, its averages by Gauss-Hermite quadrature, at indices that are known when JAX traces.

    Accurate for smooth functions only: a kink costs all but three digits. `error` measures how far the averages can be
    trusted.

    **Arguments:**

    - `function`: $g$, from numbers to numbers, differentiable by JAX.
    - `nodes`: in each direction; `diffusion` of four different fields sums over `nodes**4` points.

    **Raises:**

    `ValueError` for a function that JAX cannot trace or that changes shapes, less than two nodes, or indices that are
    traced (all averages take only known ones).
    """

    function: Callable[[Any], Any] = eqx.field(static=True)
    nodes: int = eqx.field(static=True, default=16)

    def __check_init__(self):
        check_count("nodes", self.nodes, least=2)
        numbers = jax.ShapeDtypeStruct((self.nodes,), jnp.result_type(float))
        try:
            shape = jax.eval_shape(self.function, numbers).shape
        except (TypeError, AttributeError) as error:
            raise ValueError(f"`function` must map arrays by JAX, entry by entry; got {self.function!r}.") from error
        if shape != numbers.shape:
            raise ValueError(f"`function` must keep shapes, entry by entry; from {numbers.shape} it made {shape}.")

    def __call__(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The function."""
        return self.function(u)

    def _slope(self, u):
        return jax.jvp(self.function, (u,), (jnp.ones_like(u),))[1]

    def pair(self, covariance, a, b):
        """By quadrature over two fields."""
        return self._average(lambda u: self.function(u[0]) * self.function(u[1]), covariance, a, b)

    def slopes(self, covariance, a, b):
        """By quadrature over two fields."""
        return self._average(lambda u: self._slope(u[0]) * self._slope(u[1]), covariance, a, b)

    def curvature(self, covariance, a, b):
        """By quadrature over two fields; from $\\mathbb E\\,g'(u_a)\\,u_a\\,g(u_b)$, in which kinks count."""
        moment = self._average(lambda u: self._slope(u[0]) * u[0] * self.function(u[1]), covariance, a, b)
        variance = covariance[a, a]
        rest = moment - covariance[a, b] * self.slopes(covariance, a, b)
        return jnp.where(variance > 0, rest / jnp.where(variance > 0, variance, 1.0), 0.0)

    def diffusion(self, covariance, a, b, c, d):
        """By quadrature over the fields that differ."""

        def integrand(u):
            return self._slope(u[0]) * self._slope(u[1]) * self.function(u[2]) * self.function(u[3])

        return self._average(integrand, covariance, a, b, c, d)

    def error(self, covariance: Float[Array, "n n"]) -> Float[Array, ""]:
        """How much $\\mathbb E\\,(g'g)^2$ of any field changes when two nodes more are used: the scale of the error."""
        n = np.arange(covariance.shape[0])
        finer = Custom(self.function, self.nodes + 2)
        return jnp.max(jnp.abs(self.diffusion(covariance, n, n, n, n) - finer.diffusion(covariance, n, n, n, n)))

    def _average(self, integrand, covariance, *indices):
        index = np.stack(known_indices(covariance.shape[0], *indices), axis=-1)
        tuples = index.reshape(-1, len(indices))

        def over(dimension, positions):
            fields = np.stack([np.unique(row) for row in tuples[positions]])
            places = np.argmax(tuples[positions][:, :, None] == fields[:, None, :], axis=2)
            nodes, weights = np.polynomial.hermite_e.hermegauss(self.nodes)
            points = jnp.asarray(np.stack(np.meshgrid(*[nodes] * dimension, indexing="ij")), covariance.dtype)
            weight = jnp.asarray(np.prod(np.meshgrid(*[weights / weights.sum()] * dimension), axis=0), covariance.dtype)

            def one(case):
                table, place = case
                # A symmetric root, which exists where fields coincide and a Cholesky factor does not.
                values, vectors = jnp.linalg.eigh(table)
                root = vectors * safe_sqrt(values)[None, :]
                return jnp.sum(weight * integrand(jnp.tensordot(root, points, 1)[place]))

            return jax.lax.map(one, (covariance[fields[:, :, None], fields[:, None, :]], jnp.asarray(places)))

        # Fields that are the same need no second direction.
        return by_kind(np.asarray([len(set(row)) for row in tuples.tolist()]), over).reshape(index.shape[:-1])


def _inverse_width(variance: Array) -> Array:
    return jax.lax.rsqrt(1 + variance)


def _arcsin(x: Array) -> Array:
    """The inverse sine of a correlation; at ±1, up to rounding, its infinite slope counts as zero."""
    square = (1 - x) * (1 + x)
    inside = square > 0
    return circle_angle(x, jnp.where(inside, jnp.sqrt(jnp.where(inside, square, 1.0)), 0.0))


def _symmetric(upper: Array, size: int) -> Array:
    """The symmetric matrix with this upper triangle, row after row."""
    place = np.zeros((size, size), int)
    place[np.triu_indices(size)] = np.arange(len(upper))
    return upper[np.maximum(place, place.T)]
