r"""Convex functions $K$ of an array, with their gradients and conjugates $K^*(y) = \sup_x(\langle x, y\rangle - K(x))$.

All of them are even and vanish at zero, and so do their conjugates. Where the slope of $K$ is bounded, the conjugate is
infinite beyond.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ...core import check_positive, require


class AbstractConvexFunction(eqx.Module):
    """A convex function of an array of any shape."""

    @abc.abstractmethod
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, ""]:
        """$K(x)$."""

    @abc.abstractmethod
    def conjugate(self, y: Float[Array, "..."]) -> Float[Array, ""]:
        """$K^*(y)$; infinite outside of its domain."""

    def gradient(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        r"""$\nabla K(x)$; where there is a corner, the shortest of all subgradients."""
        return jax.grad(self.__call__)(x)

    def conjugate_gradient(self, y: Float[Array, "..."]) -> Float[Array, "..."]:
        r"""$\nabla K^*(y)$, within its domain."""
        return jax.grad(self.conjugate)(y)

    def bottom_support(self, x: Float[Array, "..."]) -> Float[Array, ""]:
        r"""$\lim_{\lambda\to0}K^*(\lambda x)/\lambda$, the largest $\langle x, z\rangle$ where $K(z) = 0$.

        It is zero unless $K$ is flat at its bottom.
        """
        return jnp.zeros((), x.dtype)


class HalfSquare(AbstractConvexFunction):
    r"""$\tfrac12\lVert x\rVert^2$, its own conjugate."""

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, ""]:
        """$K(x)$."""
        return jnp.sum(x**2) / 2

    def conjugate(self, y: Float[Array, "..."]) -> Float[Array, ""]:
        """$K^*(y)$."""
        return jnp.sum(y**2) / 2


class AbsoluteValue(AbstractConvexFunction):
    r"""$\lVert x\rVert_1$, of gradient $\operatorname{sign}x$; the conjugate is zero for $|y_i| \le 1$."""

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, ""]:
        """$K(x)$."""
        return jnp.sum(jnp.abs(x))

    def gradient(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The signs, 0 at zero."""
        return jnp.sign(x)

    def conjugate(self, y: Float[Array, "..."]) -> Float[Array, ""]:
        """$K^*(y)$."""
        return _within(y, jnp.zeros_like(y))


class Huber(AbstractConvexFunction):
    r"""$\sum_ix_i^2/(2e)$ where $|x_i| \le e$, else $|x_i| - e/2$; the conjugate is $\sum_iey_i^2/2$ for $|y_i| \le 1$.

    **Arguments:**

    - `width`: $e > 0$.
    """

    width: Float[Array, ""]

    def __init__(self, width: ArrayLike):
        self.width = check_positive("width", width, scalar=True)

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, ""]:
        """$K(x)$."""
        e, size = self.width.astype(x.dtype), jnp.abs(x)
        return jnp.sum(jnp.where(size <= e, x**2 / (2 * e), size - e / 2))

    def conjugate(self, y: Float[Array, "..."]) -> Float[Array, ""]:
        """$K^*(y)$."""
        return _within(y, self.width.astype(y.dtype) * y**2 / 2)


class SmoothAbsolute(AbstractConvexFunction):
    r"""$\sum_i(\sqrt{x_i^2 + e^2} - e)$; the conjugate is $\sum_ie(1 - \sqrt{1 - y_i^2})$ for $|y_i| \le 1$.

    **Arguments:**

    - `width`: $e > 0$.
    """

    width: Float[Array, ""]

    def __init__(self, width: ArrayLike):
        self.width = check_positive("width", width, scalar=True)

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, ""]:
        """$K(x)$."""
        e = self.width.astype(x.dtype)
        # The difference of roots without cancellation.
        return jnp.sum(x**2 / (jnp.sqrt(x**2 + e**2) + e))

    def conjugate(self, y: Float[Array, "..."]) -> Float[Array, ""]:
        """$K^*(y)$."""
        inside = jnp.abs(y) < 1
        root = jnp.where(inside, jnp.sqrt(1 - jnp.where(inside, y, 0.0) ** 2), 0.0)
        return _within(y, self.width.astype(y.dtype) * (1 - root))


class LogCosh(AbstractConvexFunction):
    r"""$\sum_ie\log\cosh(x_i/e)$; the conjugate is $\sum_i\tfrac e2[(1 + y_i)\log(1 + y_i) + (1 - y_i)\log(1 - y_i)]$.

    **Arguments:**

    - `width`: $e > 0$.
    """

    width: Float[Array, ""]

    def __init__(self, width: ArrayLike):
        self.width = check_positive("width", width, scalar=True)

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, ""]:
        """$K(x)$."""
        e = self.width.astype(x.dtype)
        return jnp.sum(e * (jnp.logaddexp(x / e, -x / e) - jnp.log(jnp.asarray(2.0, x.dtype))))

    def conjugate(self, y: Float[Array, "..."]) -> Float[Array, ""]:
        """$K^*(y)$."""
        inside = jnp.abs(y) < 1
        z = jnp.where(inside, y, 0.0)
        entropy = (1 + z) * jnp.log1p(z) + (1 - z) * jnp.log1p(-z)
        edge = 2 * jnp.log(jnp.asarray(2.0, y.dtype))
        return _within(y, self.width.astype(y.dtype) / 2 * jnp.where(inside, entropy, edge))


class DeadZone(AbstractConvexFunction):
    r"""$\sum_i(|x_i| - e)_+$; the conjugate is $\sum_ie|y_i|$ for $|y_i| \le 1$.

    **Arguments:**

    - `width`: $e > 0$.
    """

    width: Float[Array, ""]

    def __init__(self, width: ArrayLike):
        self.width = check_positive("width", width, scalar=True)

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, ""]:
        """$K(x)$."""
        return jnp.sum(jnp.maximum(jnp.abs(x) - self.width.astype(x.dtype), 0.0))

    def gradient(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The signs, 0 where $|x_i| \\le e$."""
        return jnp.where(jnp.abs(x) > self.width.astype(x.dtype), jnp.sign(x), 0.0)

    def conjugate(self, y: Float[Array, "..."]) -> Float[Array, ""]:
        """$K^*(y)$."""
        return _within(y, self.width.astype(y.dtype) * jnp.abs(y))

    def bottom_support(self, x: Float[Array, "..."]) -> Float[Array, ""]:
        r"""$e\lVert x\rVert_1$."""
        return self.width.astype(x.dtype) * jnp.sum(jnp.abs(x))


class Power(AbstractConvexFunction):
    r"""$\sum_i|x_i|^p/p$; the conjugate is $\sum_i|y_i|^q/q$ with $1/p + 1/q = 1$.

    **Arguments:**

    - `exponent`: $p > 1$.
    """

    exponent: Float[Array, ""]

    def __init__(self, exponent: ArrayLike):
        p = check_positive("exponent", exponent, scalar=True)
        self.exponent = require(p, jnp.all(p > 1), "`exponent` must be above 1.")

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, ""]:
        """$K(x)$."""
        return _power(x, self.exponent.astype(x.dtype))

    def conjugate(self, y: Float[Array, "..."]) -> Float[Array, ""]:
        """$K^*(y)$."""
        p = self.exponent.astype(y.dtype)
        return _power(y, p / (p - 1))


class NuclearNorm(AbstractConvexFunction):
    r"""The sum of singular values of a matrix; a vector counts as a matrix of one row.

    The gradient is $UV^\top$ of the singular value decomposition, which orthogonalises as Muon does. The conjugate is
    zero where no singular value exceeds 1.
    """

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, ""]:
        """$K(x)$."""
        return jnp.sum(jnp.linalg.svd(_as_matrix(x), compute_uv=False))

    def gradient(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """$UV^\\top$, without directions of singular value zero."""
        u, values, vt = jnp.linalg.svd(_as_matrix(x), full_matrices=False)
        rounding = max(x.shape, default=1) * jnp.finfo(x.dtype).eps * values[0]
        return ((u * (values > rounding).astype(x.dtype)[None, :]) @ vt).reshape(x.shape)

    def conjugate(self, y: Float[Array, "..."]) -> Float[Array, ""]:
        """$K^*(y)$."""
        largest = jnp.linalg.svd(_as_matrix(jax.lax.stop_gradient(y)), compute_uv=False)[0]
        # A sum that is zero, so that the gradient within the domain is.
        return jnp.where(largest <= 1, 0.0 * jnp.sum(y), jnp.inf)


def _within(y: Array, values: Array) -> Array:
    """The sum of the values, if no entry exceeds 1."""
    inside = jnp.abs(y) <= 1
    return jnp.sum(jnp.where(inside, values, jnp.inf))


def _power(x: Array, p: Array) -> Array:
    nonzero = x != 0
    return jnp.sum(jnp.where(nonzero, jnp.abs(jnp.where(nonzero, x, 1.0)) ** p, 0.0)) / p


def _as_matrix(x: Array) -> Array:
    if x.ndim > 2:
        raise ValueError(f"`model` must have no trainable array of more than two axes for NuclearNorm; got {x.shape}.")
    return x.reshape(1, -1) if x.ndim < 2 else x
