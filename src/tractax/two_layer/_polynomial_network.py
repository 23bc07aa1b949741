"""Networks whose units are polynomials of second degree, and the polynomials that they compute."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ..core import check_count, check_finite, check_key, check_matrix, check_positive, standard_normal


class QuadraticPolynomial(eqx.Module):
    r"""$q(x) = l\cdot x + \tfrac12x^\top Qx$.

    **Arguments:**

    - `linear`: $l$, shape `(in,)`.
    - `quadratic`: $Q$, shape `(in, in)`; only its symmetric part matters.
    """

    linear: Float[Array, "*times in"]
    quadratic: Float[Array, "*times in in"]

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, ""]:
        """The value at one input."""
        return self.linear @ x + x @ self.quadratic @ x / 2

    def __sub__(self, other: "QuadraticPolynomial") -> "QuadraticPolynomial":
        """The difference of two polynomials."""
        return jax.tree.map(jnp.subtract, self, other)

    def __add__(self, other: "QuadraticPolynomial") -> "QuadraticPolynomial":
        """The sum of two polynomials."""
        return jax.tree.map(jnp.add, self, other)

    @property
    def power(self) -> Float[Array, ""]:
        r"""$\mathbb E\,q(x)^2$ for normal inputs of covariance $I/D$."""
        inputs = self.linear.shape[0]
        trace, square = jnp.trace(self.quadratic), jnp.sum(self.quadratic * (self.quadratic + self.quadratic.T))
        return jnp.sum(self.linear**2) / inputs + (trace**2 + square) / (4 * inputs**2)


def squared_projection(direction: PyTree) -> QuadraticPolynomial:
    r"""The target $\tfrac12(\beta\cdot x)^2$.

    **Arguments:**

    - `direction`: $\beta$, shape `(in,)`.
    """
    beta = check_matrix("direction", direction, (None,))
    return QuadraticPolynomial(jnp.zeros_like(beta), beta[:, None] * beta[None, :])


class PolynomialNetwork(eqx.Module):
    r"""$f(x) = \frac\alpha N\sum_i\phi(w_i\cdot x)$ with $\phi(h) = h + \tfrac\epsilon2h^2$; only the $w_i$ are trained.

    **Arguments:**

    - `first`: the $w_i$, one hidden unit a row, shape `(hidden, in)`.
    - `output_scale`: $\alpha > 0$. Large, training is lazy: a small relative change of the weights is enough.
    - `curvature`: $\epsilon$.

    **Raises:**

    `ValueError` for wrong shapes, NaN, or a scale that is not positive.
    """

    first: Float[Array, "hidden in"]
    output_scale: Float[Array, ""]
    curvature: Float[Array, ""]

    def __init__(self, first: PyTree, output_scale: ArrayLike, curvature: ArrayLike):
        self.first = check_matrix("first", first)
        self.output_scale = check_positive("output_scale", output_scale, scalar=True).astype(self.first.dtype)
        self.curvature = check_finite("curvature", curvature, scalar=True).astype(self.first.dtype)

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, "1"]:
        """The output for one input."""
        # What is not trained has no gradient.
        scale, curvature = jax.lax.stop_gradient((self.output_scale, self.curvature))
        fields = self.first @ x
        return scale * jnp.mean(fields + curvature / 2 * fields**2, keepdims=True)

    @property
    def polynomial(self) -> QuadraticPolynomial:
        """What the network computes."""
        scale, curvature = self.output_scale, self.curvature
        second = self.first.T @ self.first / self.first.shape[0]
        return QuadraticPolynomial(scale * jnp.mean(self.first, axis=0), scale * curvature * second)

    @property
    def time_constant(self) -> Float[Array, ""]:
        r"""$\alpha^2/N$. With `GradientFlow` of this time constant outputs move at a speed that depends on neither."""
        return self.output_scale**2 / self.first.shape[0]


def gaussian_polynomial_network(
    inputs: int, hidden: int, output_scale: ArrayLike, curvature: ArrayLike, *, key: PRNGKeyArray | None
) -> PolynomialNetwork:
    """A `PolynomialNetwork` with independent standard normal weights.

    **Arguments:**

    - `inputs`, `hidden`: the sizes.
    - `output_scale`, `curvature`: $\\alpha$ and $\\epsilon$.
    - `key`: for the weights.

    **Raises:**

    `ValueError` for a size below one, or what `PolynomialNetwork` refuses.
    """
    inputs, hidden = check_count("inputs", inputs), check_count("hidden", hidden)
    check_key(key)
    return PolynomialNetwork(standard_normal(key, (hidden, inputs)), output_scale, curvature)
