r"""Activation functions that know their Gaussian averages.

Fields $u$ are jointly normal with mean zero and covariance $C$; $a, b, c, d$ are indices into them, arrays that broadcast
against each other, so that one call returns a whole table of averages. In the notation of Saad and Solla 1995 (Phys. Rev.
E 52, 4225) `pair` is $I_2$, `slopes` $J_2$, `drift` $I_3$ and `diffusion` $I_4$. The averages of the rectifier that are
not elementary follow from Price's theorem, as one integral over the strength of the correlations.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Indices = Int[Array, "..."]


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
    def drift(self, covariance: Float[Array, "n n"], a: Indices, b: Indices, c: Indices) -> Float[Array, "..."]:
        """$\\mathbb E\\,g'(u_a)\\,u_b\\,g(u_c)$."""

    @abc.abstractmethod
    def diffusion(
        self, covariance: Float[Array, "n n"], a: Indices, b: Indices, c: Indices, d: Indices
    ) -> Float[Array, "..."]:
        """$\\mathbb E\\,g'(u_a)\\,g'(u_b)\\,g(u_c)\\,g(u_d)$."""

    def diffusion_of_sum(
        self, covariance: Float[Array, "n n"], a: Int[Array, " pairs"], b: Int[Array, " pairs"], s: Float[Array, " n"]
    ) -> Float[Array, " pairs"]:
        """$\\mathbb E\\,g'(u_a)\\,g'(u_b)\\,\\big(\\sum_c s_c\\,g(u_c)\\big)^2$: `diffusion`, summed over c and d."""
        c, d, weight = _symmetric_products(s)
        return self.diffusion(covariance, a[:, None], b[:, None], c[None, :], d[None, :]) @ weight


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

    def drift(self, covariance, a, b, c):
        """$C_{bc}$."""
        return covariance[b, c] * jnp.ones_like(covariance[a, b])

    def diffusion(self, covariance, a, b, c, d):
        """$C_{cd}$."""
        return covariance[c, d] * jnp.ones_like(covariance[a, b])

    def diffusion_of_sum(self, covariance, a, b, s):
        """$s^\\top C s$."""
        return s @ covariance @ s * jnp.ones_like(covariance[a, b])


class Erf(AbstractActivation):
    r"""$g(u) = \mathrm{erf}(u/\sqrt2)$."""

    def __call__(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The error function, with a slope of $\\sqrt{2/\\pi}$ at zero."""
        return jax.scipy.special.erf(u / 2**0.5)

    def pair(self, covariance, a, b):
        """$\\tfrac2\\pi\\arcsin\\big(C_{ab}/\\sqrt{(1+C_{aa})(1+C_{bb})}\\big)$."""
        product = (1 + covariance[a, a]) * (1 + covariance[b, b])
        return 2 / np.pi * _arcsin(covariance[a, b] / jnp.sqrt(product))

    def slopes(self, covariance, a, b):
        """$\\tfrac2\\pi\\big((1+C_{aa})(1+C_{bb}) - C_{ab}^2\\big)^{-1/2}$."""
        square = (1 + covariance[a, a]) * (1 + covariance[b, b]) - covariance[a, b] ** 2
        return 2 / np.pi / jnp.sqrt(square)

    def drift(self, covariance, a, b, c):
        """Elementary; see Saad and Solla 1995."""
        wide = 1 + covariance[a, a]
        square = wide * (1 + covariance[c, c]) - covariance[a, c] ** 2
        return 2 / np.pi * (covariance[b, c] * wide - covariance[a, b] * covariance[a, c]) / (wide * jnp.sqrt(square))

    def diffusion(self, covariance, a, b, c, d):
        """Elementary; see Saad and Solla 1995."""
        # Given g'(u_a) g'(u_b), which is a Gaussian weight, u_c and u_d are again jointly normal.
        wide_a, wide_b = 1 + covariance[a, a], 1 + covariance[b, b]
        ab = covariance[a, b]
        square = wide_a * wide_b - ab**2

        def reduced(i, j):
            ai, bi, aj, bj = covariance[a, i], covariance[b, i], covariance[a, j], covariance[b, j]
            return covariance[i, j] - (bi * bj * wide_a + ai * aj * wide_b - ab * (ai * bj + aj * bi)) / square

        angle = _arcsin(reduced(c, d) / jnp.sqrt((1 + reduced(c, c)) * (1 + reduced(d, d))))
        return 4 / np.pi**2 * angle / jnp.sqrt(square)

    def diffusion_of_sum(self, covariance, a, b, s):
        """`diffusion` without looking up every single entry of the covariance, which is what its time goes into."""
        c, d, weight = _symmetric_products(s)
        own, ab = jnp.diagonal(covariance), covariance[a, b][:, None]
        wide_a, wide_b = 1 + own[a][:, None], 1 + own[b][:, None]
        square = wide_a * wide_b - ab**2
        to_a, to_b = covariance[a], covariance[b]
        share_a, share_b = (to_a * wide_b - ab * to_b) / square, (to_b * wide_a - ab * to_a) / square
        reduced = covariance[None, :, :] - to_a[:, :, None] * share_a[:, None, :] - to_b[:, :, None] * share_b[:, None, :]
        scale = jax.lax.rsqrt(1 + own[None, :] - to_a * share_a - to_b * share_b)
        correlation = reduced * scale[:, :, None] * scale[:, None, :]
        return 4 / np.pi**2 * (_arcsin(correlation[:, c, d]) @ weight) / jnp.sqrt(square[:, 0])


class ReLU(AbstractActivation):
    r"""$g(u) = \max(0, u)$, with $g'(0) = 0$.

    `diffusion` is an integral done by 24 Gauss-Legendre nodes: accurate to 1e-13, and to 1e-10 where the covariance is
    nearly but not exactly singular.
    """

    def __call__(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The rectifier."""
        return jax.nn.relu(u)

    def pair(self, covariance, a, b):
        """$\\sqrt{C_{aa}C_{bb}}\\,(\\sin\\theta + (\\pi-\\theta)\\cos\\theta)/2\\pi$, with $\\theta$ the angle."""
        return _relu_pair(covariance[a, a], covariance[b, b], covariance[a, b])

    def slopes(self, covariance, a, b):
        """$\\tfrac14 + \\arcsin(\\cos\\theta)/2\\pi$."""
        return _quadrant(covariance[a, a], covariance[b, b], covariance[a, b])

    def drift(self, covariance, a, b, c):
        """$C_{ab}\\sqrt{C_{aa}C_{cc} - C_{ac}^2}/(2\\pi C_{aa}) + C_{bc}\\,\\mathbb E\\,g'(u_a)g'(u_c)$."""
        aa, cc, ac = covariance[a, a], covariance[c, c], covariance[a, c]
        ratio = covariance[a, b] * _inverse(aa)
        return ratio * _sqrt(aa * cc - ac**2) / (2 * np.pi) + covariance[b, c] * _quadrant(aa, cc, ac)

    def diffusion(self, covariance, a, b, c, d):
        """One integral over the strength of the correlations."""
        index = jnp.stack(jnp.broadcast_arrays(a, b, c, d), axis=-1)
        tables = covariance[index[..., :, None], index[..., None, :]]
        return jax.vmap(_relu_diffusion)(tables.reshape(-1, 4, 4)).reshape(index.shape[:-1])


class Custom(AbstractActivation):
    """Any activation function, its averages by Gauss-Hermite quadrature.

    Accurate for smooth functions only: a kink costs all but three digits. `error` measures how far the averages can be
    trusted.

    **Arguments:**

    - `function`: $g$, from numbers to numbers, differentiable by JAX.
    - `nodes`: in each direction; `diffusion` sums over `nodes**4` points.
    """

    function: Callable[[Any], Any] = eqx.field(static=True)
    nodes: int = eqx.field(static=True, default=16)

    def __check_init__(self):
        if self.nodes < 2:
            raise ValueError(f"`nodes` must be at least 2; got {self.nodes}.")

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

    def drift(self, covariance, a, b, c):
        """By quadrature over three fields."""
        return self._average(lambda u: self._slope(u[0]) * u[1] * self.function(u[2]), covariance, a, b, c)

    def diffusion(self, covariance, a, b, c, d):
        """By quadrature over four fields."""

        def integrand(u):
            return self._slope(u[0]) * self._slope(u[1]) * self.function(u[2]) * self.function(u[3])

        return self._average(integrand, covariance, a, b, c, d)

    def error(self, covariance: Float[Array, "n n"]) -> Float[Array, ""]:
        """How much $\\mathbb E\\,(g'g)^2$ of any field changes when two nodes more are used: the scale of the error."""
        n = jnp.arange(covariance.shape[0])
        finer = Custom(self.function, self.nodes + 2)
        return jnp.max(jnp.abs(self.diffusion(covariance, n, n, n, n) - finer.diffusion(covariance, n, n, n, n)))

    def _average(self, integrand, covariance, *indices):
        index = jnp.stack(jnp.broadcast_arrays(*indices), axis=-1)
        dimension = index.shape[-1]
        nodes, weights = np.polynomial.hermite_e.hermegauss(self.nodes)
        points = jnp.asarray(np.stack(np.meshgrid(*[nodes] * dimension, indexing="ij")), covariance.dtype)
        weight = jnp.asarray(np.prod(np.meshgrid(*[weights / weights.sum()] * dimension), axis=0), covariance.dtype)

        def one(table):
            # A symmetric root, which exists where fields repeat and a Cholesky factor does not.
            values, vectors = jnp.linalg.eigh(table)
            root = vectors * _sqrt(values)[None, :]
            return jnp.sum(weight * integrand(jnp.tensordot(root, points, 1)))

        tables = covariance[index[..., :, None], index[..., None, :]].reshape(-1, dimension, dimension)
        return jax.lax.map(one, tables).reshape(index.shape[:-1])


def _symmetric_products(s: Float[Array, " n"]) -> tuple[np.ndarray, np.ndarray, Float[Array, " products"]]:
    """Indices c <= d, and the weights with which their products make up the square of a sum."""
    c, d = np.triu_indices(s.shape[0])
    return c, d, jnp.asarray(np.where(c == d, 1.0, 2.0), s.dtype) * s[c] * s[d]


def _arcsin(x: Array) -> Array:
    """The inverse sine of a correlation; at ±1, up to rounding, its infinite slope counts as zero."""
    inside = jnp.abs(x) < 1
    x = jnp.where(inside, x, jnp.sign(x))
    # The inverse tangent takes half the time of the inverse sine.
    near = jnp.where(inside, x, 0.0)
    return jnp.where(inside, jnp.arctan(near / jnp.sqrt((1 - near) * (1 + near))), x * (np.pi / 2))


def _sqrt(x: Array) -> Array:
    """The root of what is negative by rounding only."""
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1.0)), 0.0)


def _inverse(x: Array) -> Array:
    """1/x of a variance; a field that does not vary is correlated with nothing, so that 0 stands for 1/0."""
    return jnp.where(x > 0, 1 / jnp.where(x > 0, x, 1.0), 0.0)


def _correlation(xx: Array, yy: Array, xy: Array) -> Array:
    return xy * _sqrt(_inverse(xx) * _inverse(yy))


def _quadrant(xx: Array, yy: Array, xy: Array) -> Array:
    """The probability that both of two fields are positive."""
    both = 0.25 + _arcsin(_correlation(xx, yy, xy)) / (2 * np.pi)
    return jnp.where((xx > 0) & (yy > 0), both, 0.0)


def _relu_pair(xx: Array, yy: Array, xy: Array) -> Array:
    """E relu(x) relu(y)."""
    return _sqrt(xx * yy - xy**2) / (2 * np.pi) + xy * _quadrant(xx, yy, xy)


def _given(table: Array, i: int) -> Array:
    """The covariance of all fields given that field i is zero."""
    return table - table[:, i, None] * table[None, i, :] * _inverse(table[i, i])


def _relu_diffusion(table: Array) -> Array:
    """E 1(a>0) 1(b>0) relu(c) relu(d): correlations are switched on from 0 to 1, each adding its own derivative."""
    nodes, weights = np.polynomial.legendre.leggauss(24)
    # The substitution s = sin(πu/2) takes away the singularity at s = 1, where fields may coincide.
    u = (1 + nodes) / 2
    strength = jnp.asarray(np.sin(np.pi * u / 2), table.dtype)
    weight = jnp.asarray(weights * np.pi / 4 * np.cos(np.pi * u / 2), table.dtype)
    start = _sqrt(table[2, 2] * table[3, 3]) / (8 * np.pi) + table[2, 3] / 16
    return start + jnp.sum(weight * jax.vmap(lambda s: _switching_on(table, s))(strength))


def _switching_on(full: Array, s: Array) -> Array:
    table = jnp.where(jnp.eye(4, dtype=bool), full, s * full)

    def density(i, j):
        """Of fields i and j at zero."""
        return _sqrt(_inverse(table[i, i] * table[j, j] - table[i, j] ** 2)) / (2 * np.pi)

    given_both = _given(_given(table, 0), 1)
    total = full[0, 1] * density(0, 1) * _relu_pair(given_both[2, 2], given_both[3, 3], given_both[2, 3])
    for p, other in ((0, 1), (1, 0)):
        at_p = _given(table, p)
        for q, last in ((2, 3), (3, 2)):
            # E 1(other>0) 1(q>0) relu(last), given p = 0.
            mean = jnp.zeros_like(s)
            for j, k, m in ((other, q, last), (q, other, last), (last, other, q)):
                at_j = _given(at_p, j)
                slope = at_p[last, j] * _sqrt(_inverse(at_p[j, j])) / (2 * np.pi) ** 0.5
                mean = mean + slope * _quadrant(at_j[k, k], at_j[m, m], at_j[k, m])
            total = total + full[p, q] * _sqrt(_inverse(full[p, p])) / (2 * np.pi) ** 0.5 * mean
    # The probability that all four are positive, by its own derivative; the factor 1 - s integrates it by parts.
    for i, j, k, m in ((0, 1, 2, 3), (0, 2, 1, 3), (0, 3, 1, 2), (1, 2, 0, 3), (1, 3, 0, 2), (2, 3, 0, 1)):
        at_both = _given(_given(table, i), j)
        all_positive = _quadrant(at_both[k, k], at_both[m, m], at_both[k, m])
        total = total + full[2, 3] * (1 - s) * full[i, j] * density(i, j) * all_positive
    return total
