r"""A strongly convex loss of one number on which the heavy ball that is best for quadratics never arrives.

$$L'(x) = 25x\ (x < 1),\qquad x + 24\ (1 \le x < 2),\qquad 25x - 24\ (x \ge 2),$$

so that all curvatures lie between $\mu = 1$ and $\ell = 25$. With the learning rate $1/9$ and the momentum $4/9$ that are
best for quadratics of this range, and from rest at any $x_0 \in [3.07, 3.46]$, heavy ball tends to the cycle
$\tfrac{792}{1225}, -\tfrac{2208}{1225}, \tfrac{2592}{1225}$ around the minimum at zero.

Source: Lessard, Recht, Packard 2016 (arXiv 1408.3595).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ...core import AbstractTask


class SlopeChange(AbstractTask):
    """The loss above, summed over all trainable numbers of a model. The minimum is zero, where all of them are."""

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """The sum over all trainable numbers."""
        leaves = jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))
        losses = [jnp.sum(_loss(leaf)) for leaf in leaves]
        return sum(losses[1:], losses[0])

    @staticmethod
    def cycle() -> Float[Array, "3"]:
        """The values that heavy ball tends to, in their order."""
        return jnp.asarray([792.0, -2208.0, 2592.0]) / 1225


def _loss(x: Array) -> Array:
    middle = x**2 / 2 + 24 * x - 12
    return jnp.where(x < 1, 25 * x**2 / 2, jnp.where(x < 2, middle, 25 * x**2 / 2 - 24 * x + 36))
