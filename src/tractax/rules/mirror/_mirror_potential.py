"""Convex potentials, whose curvature says how fast each number of a model moves."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ...core import check_positive, require


class AbstractMirrorPotential(eqx.Module):
    r"""A potential $\varphi(w)$ of one number, strictly convex; of a model, its sum over all numbers."""

    @abc.abstractmethod
    def dual(self, w: Float[Array, "..."]) -> Float[Array, "..."]:
        r"""$\varphi'(w)$, the number that gradients are subtracted from."""

    @abc.abstractmethod
    def speed(self, w: Float[Array, "..."]) -> Float[Array, "..."]:
        r"""$1/\varphi''(w)$."""

    @abc.abstractmethod
    def moved(self, w: Float[Array, "..."], change: Float[Array, "..."]) -> Float[Array, "..."]:
        """The number whose dual is that of `w` plus `change`."""

    def checked(self, params: PyTree, value: PyTree) -> PyTree:
        """A value that the rule goes on to use, if the potential is defined for the parameters."""
        del params
        return value


class Entropy(AbstractMirrorPotential):
    r"""$\varphi(w) = w\ln w - w$, for positive numbers: steps multiply by $e^{-\eta g}$ (exponentiated gradients)."""

    def dual(self, w: Float[Array, "..."]) -> Float[Array, "..."]:
        r"""$\ln w$."""
        return jnp.log(w)

    def speed(self, w: Float[Array, "..."]) -> Float[Array, "..."]:
        """$w$."""
        return w

    def moved(self, w: Float[Array, "..."], change: Float[Array, "..."]) -> Float[Array, "..."]:
        """$w$ times the exponential of the change."""
        return w * jnp.exp(change)

    def checked(self, params: PyTree, value: PyTree) -> PyTree:
        """The value, if the parameters are positive."""
        lowest = jnp.min(jnp.stack([jnp.min(x) for x in jax.tree.leaves(params)]))
        return require(value, lowest > 0, "`model` must have positive parameters for the potential Entropy.")


class HyperbolicEntropy(AbstractMirrorPotential):
    r"""$\varphi(w) = w\,\mathrm{arsinh}(w/s) - \sqrt{w^2 + s^2}$, for numbers of both signs.

    Below the scale $s$ it is quadratic, and steps are those of gradient descent with the learning rate $\eta s$; far
    above it is the entropy of $|w|$. Mirror flow with $s = 2\alpha^2$ is what a diagonal linear network of depth 2 with
    initial weights $\alpha$ does to its predictor, four times as fast.

    **Arguments:**

    - `scale`: $s > 0$.
    """

    scale: Float[Array, ""]

    def __init__(self, scale: ArrayLike = 1.0):
        self.scale = check_positive("scale", scale, scalar=True)

    def dual(self, w: Float[Array, "..."]) -> Float[Array, "..."]:
        r"""$\mathrm{arsinh}(w/s)$."""
        return jnp.arcsinh(w / self.scale.astype(w.dtype))

    def speed(self, w: Float[Array, "..."]) -> Float[Array, "..."]:
        r"""$\sqrt{w^2 + s^2}$."""
        # Unlike the square root, not to be differentiated at zero, and free of overflow.
        return jnp.hypot(w, self.scale.astype(w.dtype))

    def moved(self, w: Float[Array, "..."], change: Float[Array, "..."]) -> Float[Array, "..."]:
        r"""$s\sinh(\mathrm{arsinh}(w/s) + \text{change})$."""
        return w * jnp.cosh(change) + self.speed(w) * jnp.sinh(change)


def check_potential(potential: PyTree) -> AbstractMirrorPotential:
    """The potential, if it is one."""
    if not isinstance(potential, AbstractMirrorPotential):
        raise ValueError(
            "`potential` must be a mirror potential such as tx.rules.HyperbolicEntropy(); got "
            f"{type(potential).__name__}."
        )
    return potential
