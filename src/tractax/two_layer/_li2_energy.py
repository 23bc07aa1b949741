r"""How features of a group emerge: hidden units climb an energy whose maxima are representations.

Set-up. Inputs are pairs $(g, h)$ of elements of a group of order $M$, $X\in\{0,1\}^{n\times2M}$ their concatenated
one-hots, $Y$ the one-hots of the products $gh$. Features $F = \phi(XW)$, a readout $V$, the loss $\tfrac12\lVert\tilde
Y - \tilde FV\rVert^2 + \tfrac\eta2\lVert V\rVert^2$, where the tilde removes the mean over pairs.

Theory. Once the readout has converged, what it sends back to the features is, with $A = (\tilde F\tilde F^\top +
\eta)^{-1}$,

$$G_F = \eta\,A\,\tilde Y\tilde Y^\top\!A\,\tilde F.$$

With many random features $A$ is nearly a multiple of the identity. Hidden units are then independent of each other, and
each climbs the energy

$$E(w) = \tfrac12\lVert\tilde Y^\top\phi(Xw)\rVert^2.$$

For $\phi(z) = z^2$, all $M^2$ pairs and $\lVert w\rVert = 1$ its local maxima are single representations of the group,
with $E = M/2d$ for one of real type and dimension $d$ (the trivial one excepted), and $E = M/4d$ for a conjugate pair of
complex type. In a cyclic group these are single frequencies. With too few pairs, $n \lesssim M\ln M$, ascent ends
elsewhere: units memorise.

Source: Tian 2025, arXiv 2509.21519, whose normalisation of $E$ differs by a factor. Representations of dimension 3 and
more, and those of quaternionic type, have not been checked.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

from ..core import check_count, check_matrix, check_positive, require
from ._finite_group import FiniteGroup
from ._modular_network import same_function


class Li2Energy(eqx.Module):
    """The energy of one hidden unit that learns to multiply in a group, as a function of its input weights.

    **Arguments:**

    - `group`: a `FiniteGroup`, such as `cyclic_group(7)`.
    - `pairs`: the pairs $(g, h)$ of the training set, shape `(pairs, 2)`; all of them by default.
    - `activation`: $\\phi$, a function of arrays; `jnp.square` by default.

    **Raises:**

    `ValueError` for pairs that are not of the group.
    """

    group: FiniteGroup
    pairs: Int[Array, "pairs 2"]
    activation: Callable = eqx.field(static=True)

    def __init__(self, group: PyTree, pairs: ArrayLike | None = None, activation: PyTree = jnp.square):
        if not isinstance(group, FiniteGroup):
            raise ValueError(f"`group` must be a FiniteGroup, such as cyclic_group(7); got {type(group).__name__}.")
        if not callable(activation):
            raise ValueError(f"`activation` must be a function of arrays, such as jnp.square; got {activation!r}.")
        g, h = np.divmod(np.arange(group.order**2), group.order)
        chosen = np.stack([g, h], axis=1) if pairs is None else np.asarray(pairs)
        whole = np.issubdtype(chosen.dtype, np.integer)
        if chosen.ndim != 2 or chosen.shape[0] < 1 or chosen.shape[1] != 2 or not whole:
            raise ValueError(f"`pairs` must be whole numbers of shape (pairs, 2); got {chosen.shape}.")
        if chosen.min() < 0 or chosen.max() >= group.order:
            raise ValueError(f"`pairs` must be elements of the group, from 0 to {group.order - 1}.")
        self.group, self.pairs, self.activation = group, jnp.asarray(chosen), activation

    @property
    def inputs(self) -> Float[Array, "pairs inputs"]:
        """$X$, concatenated one-hots."""
        left, right = (jax.nn.one_hot(self.pairs[:, i], self.group.order) for i in (0, 1))
        return jnp.concatenate([left, right], axis=1)

    @property
    def targets(self) -> Float[Array, "pairs order"]:
        """$Y$, the one-hots of the products."""
        return jax.nn.one_hot(self.group.table[self.pairs[:, 0], self.pairs[:, 1]], self.group.order)

    @eqx.filter_jit
    def __call__(self, weights: Float[Array, " inputs"]) -> Float[Array, ""]:
        """$E(w)$, for weights of shape `(2 * order,)`."""
        if weights.shape != (2 * self.group.order,):
            raise ValueError(f"`weights` must have shape ({2 * self.group.order},); got {weights.shape}.")
        features = self.activation(weights[self.pairs[:, 0]] + weights[self.group.order + self.pairs[:, 1]])
        products = self.group.table[self.pairs[:, 0], self.pairs[:, 1]]
        # Ỹᵀ φ = Yᵀ (φ − mean φ), by adding up what belongs to each product.
        sums = jax.ops.segment_sum(features - jnp.mean(features), products, num_segments=self.group.order)
        return jnp.sum(sums**2) / 2

    @property
    def maxima(self) -> Float[Array, " maxima"]:
        """The energies of the local maxima on the unit sphere, increasing: for squares on all pairs.

        **Raises:**

        `ValueError` for another activation, a part of the pairs, or a group without `real_dimensions` and
        `complex_dimensions`.
        """
        if not same_function(self.activation, jnp.square):
            raise ValueError(f"`activation` must be jnp.square for `maxima`; got {self.activation!r}.")
        order = self.group.order
        if np.unique(np.asarray(self.pairs) @ np.asarray([order, 1])).size != order**2 or len(self.pairs) != order**2:
            raise ValueError(f"`pairs` must be all {order**2} pairs, once each, for `maxima`.")
        found = {order / (2 * d) for d in self.group.real_dimensions}
        found |= {order / (4 * d) for d in self.group.complex_dimensions}
        if not found:
            raise ValueError("`group` must know the dimensions of its representations for `maxima`.")
        return jnp.asarray(sorted(found))

    def ascend(self, weights: ArrayLike, steps: int = 1000) -> Float[Array, " inputs"]:
        r"""Climbs on the unit sphere, by $w \to (w + \nabla E/\lVert\nabla E\rVert)$, normalised.

        **Arguments:**

        - `weights`: where to start; not zero.
        - `steps`: how many.

        **Returns:**

        The weights at the end, of norm one.
        """
        weights = check_matrix("weights", weights, (2 * self.group.order,))
        size = jnp.linalg.norm(weights)
        return _ascend(
            self, require(weights, size > 0, "`weights` must not all be zero.") / size, check_count("steps", steps)
        )


@eqx.filter_jit
def _ascend(energy: Li2Energy, start: Float[Array, " inputs"], steps: int) -> Float[Array, " inputs"]:
    def step(_, w: Array) -> Array:
        slope = jax.grad(energy)(w)
        size = jnp.linalg.norm(slope)
        w = w + slope / jnp.where(size == 0, 1.0, size)
        return w / jnp.linalg.norm(w)

    return jax.lax.fori_loop(0, steps, step, start)


def ridge_readout(features: ArrayLike, targets: ArrayLike, penalty: ArrayLike) -> Float[Array, "units outputs"]:
    r"""$V = (\tilde F^\top\tilde F + \eta)^{-1}\tilde F^\top\tilde Y$, the readout with the least penalised loss.

    **Arguments:**

    - `features`: $F$, one pair a row, shape `(pairs, units)`.
    - `targets`: $Y$, shape `(pairs, outputs)`.
    - `penalty`: $\eta > 0$.
    """
    f, y, eta = _centred(features, targets, penalty)
    return jnp.linalg.solve(f.T @ f + eta * jnp.eye(f.shape[1], dtype=f.dtype), f.T @ y)


def feature_gradient(features: ArrayLike, targets: ArrayLike, penalty: ArrayLike) -> Float[Array, "pairs units"]:
    r"""$G_F = \eta A\tilde Y\tilde Y^\top\!A\tilde F$, minus the gradient by the features at the best readout.

    **Arguments:**

    - `features`: $F$, one pair a row, shape `(pairs, units)`.
    - `targets`: $Y$, shape `(pairs, outputs)`.
    - `penalty`: $\eta > 0$.
    """
    f, y, eta = _centred(features, targets, penalty)
    kernel = f @ f.T + eta * jnp.eye(f.shape[0], dtype=f.dtype)
    solved = jnp.linalg.solve(kernel, jnp.concatenate([y, f], axis=1))
    left, right = solved[:, : y.shape[1]], solved[:, y.shape[1] :]
    return eta * left @ (y.T @ right)


def _centred(features: Any, targets: Any, penalty: Any) -> tuple[Array, Array, Array]:
    features = check_matrix("features", features)
    targets = check_matrix("targets", targets, (features.shape[0], None)).astype(features.dtype)
    penalty = check_positive("penalty", penalty, scalar=True).astype(features.dtype)
    return features - jnp.mean(features, axis=0)[None], targets - jnp.mean(targets, axis=0)[None], penalty
