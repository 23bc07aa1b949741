"""Losses of one number: the margin, by which an answer is right."""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..core import check_positive
from ..special import wright_omega


class AbstractMarginLoss(eqx.Module):
    r"""A loss $\ell(m)$ of the margin $m = y\,f(x)$ of one example with label $y = \pm1$."""

    @abc.abstractmethod
    def __call__(self, margin: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        r"""$\ell(m)$."""

    @abc.abstractmethod
    def descend(self, margin: Float[Array, "*shape"], t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        r"""The solution of $\dot m = -\ell'(m)$ at time `t >= 0`, from `margin` at time zero."""


class Logistic(AbstractMarginLoss):
    r"""$\ell(m) = \ln(1 + e^{-m})$."""

    def __call__(self, margin: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The logistic loss."""
        return jnp.logaddexp(jnp.zeros_like(margin), -margin)

    def descend(self, margin: Float[Array, "*shape"], t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        r"""From $m + e^m$ growing at rate one: $m = c - \omega(c) = \ln\omega(c)$, $c = m_0 + e^{m_0} + t$."""
        # Where the loss is exponential to the last digit, exp(m) need not be representable.
        far = margin > 40.0
        near = jnp.where(far, 0.0, margin)
        c = near + jnp.exp(near) + t
        omega = wright_omega(c)
        # Of the two forms, the one that does not cancel (and whose slope is finite).
        right = c > 1.0
        moved = jnp.where(right, jnp.log(jnp.where(right, omega, 1.0)), c - omega)
        return jnp.where(far, Exponential().descend(margin, t), moved)


class Exponential(AbstractMarginLoss):
    r"""$\ell(m) = e^{-m}$."""

    def __call__(self, margin: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The exponential loss."""
        return jnp.exp(-margin)

    def descend(self, margin: Float[Array, "*shape"], t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        r"""$\ln(e^{m_0} + t)$."""
        # ln t would have an infinite slope at zero.
        early = t < jnp.exp(jnp.minimum(margin, jnp.log(jnp.finfo(margin.dtype).max) - 1))
        ratio = jnp.where(early, t, 0.0) * jnp.exp(-jnp.where(early, margin, 0.0))
        late = jnp.logaddexp(margin, jnp.log(jnp.where(early, 1.0, t)))
        return jnp.where(early, margin + jnp.log1p(ratio), late)


class Hinge(AbstractMarginLoss):
    r"""$\ell(m) = \max(0, \kappa - m)$, with the slope $-\tfrac12$ at $m = \kappa$.

    At $\kappa = 0$ its gradient descent is the batch perceptron algorithm.

    **Arguments:**

    - `threshold`: $\kappa \ge 0$, the margin that is enough.
    """

    threshold: Float[Array, ""]

    def __init__(self, threshold: ArrayLike = 0.0):
        self.threshold = check_positive("threshold", threshold, zero=True, scalar=True)

    def __call__(self, margin: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The hinge loss."""
        return jnp.maximum(self.threshold.astype(margin.dtype) - margin, 0.0)

    def descend(self, margin: Float[Array, "*shape"], t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        r"""$m_0 + t$, until $\kappa$ is reached."""
        return jnp.maximum(margin, jnp.minimum(margin + t, self.threshold.astype(margin.dtype)))
