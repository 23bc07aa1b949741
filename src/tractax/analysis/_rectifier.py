r"""The rectifier with its Gaussian averages.

Averages over up to three fields are elementary, made of the roots $\delta_{xy} = \sqrt{C_{xx}C_{yy} - C_{xy}^2}$ and the
angles $\arctan(C_{xy}/\delta_{xy})$; since the angles come from the same roots, nothing is lost where fields nearly
coincide. The one over four fields follows from Price's theorem, as one integral over the strength of the correlations.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..special import circle_angle, safe_sqrt
from ._activations import AbstractActivation
from ._index_kinds import by_kind, known_indices


class ReLU(AbstractActivation):
    r"""$g(u) = \max(0, u)$, with $g'(0) = 0$.

    `diffusion` at four different indices is an integral done by 24 Gauss-Legendre nodes: accurate to 1e-13, and to 1e-8
    where the covariance is nearly but not exactly singular.
    """

    def __call__(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The rectifier."""
        return jax.nn.relu(u)

    def pair(self, covariance, a, b):
        """$\\sqrt{C_{aa}C_{bb}}\\,(\\sin\\theta + (\\pi-\\theta)\\cos\\theta)/2\\pi$, with $\\theta$ the angle."""
        aa, bb, ab = covariance[a, a], covariance[b, b], covariance[a, b]
        return _root(aa, bb, ab) / (2 * np.pi) + ab * _quadrant(aa, bb, ab)

    def slopes(self, covariance, a, b):
        """$\\tfrac14 + \\arcsin(\\cos\\theta)/2\\pi$."""
        return _quadrant(covariance[a, a], covariance[b, b], covariance[a, b])

    def curvature(self, covariance, a, b):
        """$\\sqrt{C_{aa}C_{bb} - C_{ab}^2}/2\\pi C_{aa}$: the mean of $g(u_b)$ at the kink of $g(u_a)$."""
        aa = covariance[a, a]
        return _root(aa, covariance[b, b], covariance[a, b]) * _inverse(aa) / (2 * np.pi)

    def diffusion(self, covariance, a, b, c, d):
        """Elementary where an index occurs twice, and otherwise one integral."""
        a, b, c, d = known_indices(covariance.shape[0], a, b, c, d)
        repeated = [a == b, a == c, a == d, b == c, b == d]
        # The field that is only a step, and those that are rectified, where a step is taken twice or is also rectified.
        step = np.select(repeated, [a, b, b, a, a]).ravel()
        first = np.select(repeated, [c, a, a, b, b]).ravel()
        second = np.select(repeated, [d, d, c, d, c]).ravel()
        kinds = np.where(np.any(repeated, axis=0), 0, np.where(c == d, 1, 2)).ravel()
        fields = np.stack([a.ravel(), b.ravel(), c.ravel(), d.ravel()])

        def average(kind, where):
            if kind == 2:
                return _four(covariance[fields[:, None, where], fields[None, :, where]])
            xyz = fields[:3, where] if kind == 1 else np.stack([step[where], first[where], second[where]])
            return (_two_steps if kind == 1 else _one_step)(covariance[xyz[:, None], xyz[None, :]])

        return by_kind(kinds, average).reshape(a.shape)


def _inverse(x: Array) -> Array:
    """1/x of a variance; a field that does not vary is correlated with nothing, so that 0 stands for 1/0."""
    return jnp.where(x > 0, 1 / jnp.where(x > 0, x, 1.0), 0.0)


def _root(xx: Array, yy: Array, xy: Array) -> Array:
    """The root of a determinant, of which rounding alone leaves nothing."""
    product = xx * yy
    square = product - xy**2
    return safe_sqrt(jnp.where(square > 4 * jnp.finfo(square.dtype).eps * product, square, 0.0))


def _quadrant(xx: Array, yy: Array, xy: Array) -> Array:
    """The probability that both of two fields are positive."""
    return jnp.where((xx > 0) & (yy > 0), 0.25 + _angle(xx, yy, xy, _root(xx, yy, xy)) / (2 * np.pi), 0.0)


def _angle(xx: Array, yy: Array, xy: Array, root: Array) -> Array:
    """The inverse sine of a correlation."""
    scale = safe_sqrt(_inverse(xx) * _inverse(yy))
    return circle_angle(xy * scale, root * scale)


def _octant(table: Array) -> tuple[Array, Array, Array, Array]:
    """The probability that three fields are all positive, and the roots of the pairs (x, y), (x, z), (y, z)."""
    pairs = ((0, 1), (0, 2), (1, 2))
    roots = [_root(table[i, i], table[j, j], table[i, j]) for i, j in pairs]
    angles = [_angle(table[i, i], table[j, j], table[i, j], root) for (i, j), root in zip(pairs, roots, strict=True)]
    return 1 / 8 + (angles[0] + angles[1] + angles[2]) / (4 * np.pi), *roots


def _one_step(table: Array) -> Array:
    """E 1(x>0) relu(y) relu(z)."""
    octant, xy, xz, yz = _octant(table)
    roots = yz + (table[0, 1] * xz + table[0, 2] * xy) * _inverse(table[0, 0])
    return jnp.where(table[0, 0] > 0, table[1, 2] * octant + roots / (4 * np.pi), 0.0)


def _two_steps(table: Array) -> Array:
    """E 1(x>0) 1(y>0) relu(z)²."""
    octant, xy, xz, yz = _octant(table)
    on_x, on_y = table[0, 2] * _inverse(table[0, 0]), table[1, 2] * _inverse(table[1, 1])
    across = 2 * table[0, 2] * table[1, 2] - table[0, 1] * (table[0, 2] * on_x + table[1, 2] * on_y)
    roots = on_x * xz + on_y * yz + across * _inverse(xy)
    alive = (table[0, 0] > 0) & (table[1, 1] > 0)
    return jnp.where(alive, table[2, 2] * octant + roots / (4 * np.pi), 0.0)


def _four(table: Array) -> Array:
    """E 1(a>0) 1(b>0) relu(c) relu(d): correlations are switched on from 0 to 1, each adding its own derivative."""
    nodes, weights = np.polynomial.legendre.leggauss(24)
    # The substitution s = sin(πu/2) takes away the singularity at s = 1, where fields may coincide.
    u = (1 + nodes) / 2
    strength = jnp.asarray(np.sin(np.pi * u / 2), table.dtype)
    weight = jnp.asarray(weights * np.pi / 4 * np.cos(np.pi * u / 2), table.dtype)
    start = safe_sqrt(table[2, 2] * table[3, 3]) / (8 * np.pi) + table[2, 3] / 16
    alive = jnp.all(jnp.diagonal(table) > 0, axis=-1)
    return jnp.where(alive, start + weight @ _switching_on(table[:, :, None, :], strength[:, None]), 0.0)


def _switching_on(full: Array, s: Array) -> Array:
    table = [[full[i, j] if i == j else s * full[i, j] for j in range(4)] for i in range(4)]

    def given(i, k, l):
        """The covariance of fields k and l, given that i is zero."""
        return table[k][l] - table[k][i] * table[i][l] * _inverse(table[i][i])

    def given_both(i, j, k, l):
        """The same, given that i and j are zero."""
        return given(i, k, l) - given(i, k, j) * given(i, j, l) * _inverse(given(i, j, j))

    def with_step(i, j):
        """The derivatives by the correlations of i, a step, with c and d, where j is zero too."""
        return full[i, 2] * given(i, 3, j) + full[i, 3] * given(i, 2, j)

    # Two fields at zero and the other two positive: how much each such case weighs.
    total = jnp.zeros_like(s)
    for i, j, k, l in ((0, 1, 2, 3), (0, 2, 1, 3), (0, 3, 1, 2), (1, 2, 0, 3), (1, 3, 0, 2), (2, 3, 0, 1)):
        density = safe_sqrt(_inverse(table[i][i] * given(i, j, j))) / (2 * np.pi)
        kk, ll, kl = given_both(i, j, k, k), given_both(i, j, l, l), given_both(i, j, k, l)
        # The probability that all four are positive, by its own derivative; 1 - s integrates it by parts.
        weight = full[2, 3] * (1 - s) * full[i, j]
        if i < 2:
            weight = weight + with_step(i, j)
        if j < 2:
            weight = weight + with_step(j, i) + full[i, j] * kl
            total = total + full[i, j] * density * _root(kk, ll, kl) / (2 * np.pi)
        total = total + density * weight * _quadrant(kk, ll, kl)
    return total
