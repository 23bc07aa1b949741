"""In how many directions a trajectory of parameters moves."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from ..core import require


class TrajectoryPCA(eqx.Module):
    """The principal components of a trajectory about its mean.

    **Attributes:**

    - `singular_values`: $s_1 \\ge s_2 \\ge \\dots$ of the centred trajectory, shape `(components,)`.
    - `scores`: where each checkpoint lies along each component, shape `(times, components)`.
    - `directions`: the components, orthonormal; the recorded PyTree, with a leading axis over components in place of that
      over times. Components that do not vary are zero.
    """

    singular_values: Float[Array, " components"]
    scores: Float[Array, "times components"]
    directions: PyTree[Float[Array, "components ..."]]

    @property
    def explained(self) -> Float[Array, " components"]:
        """The share of every component in the variance; NaN if nothing varies."""
        variances = self.singular_values**2
        return variances / jnp.sum(variances)

    @property
    def participation_ratio(self) -> Float[Array, ""]:
        r"""$(\sum_is_i^2)^2/\sum_is_i^4$, between 1 and the number of components; NaN if nothing varies."""
        return 1 / jnp.sum(self.explained**2)

    def dimension(self, share: float = 0.9) -> Int[Array, ""]:
        """The least number of components that hold this share of the variance, `0 < share < 1`; 0 if nothing varies."""
        if not 0 < share < 1:
            raise ValueError(f"`share` must lie between 0 and 1; got {share}.")
        held = jnp.cumsum(self.singular_values**2)
        return jnp.sum(held < share * held[-1]) + (held[-1] > 0).astype(int)

    def leading(self, number: int) -> PyTree[Float[Array, "number ..."]]:
        """The directions of the first few components.

        **Raises:**

        `ValueError` for less than one, or more than there are.
        """
        if not isinstance(number, int) or not 1 <= number <= self.singular_values.shape[0]:
            raise ValueError(f"`number` must be between 1 and {self.singular_values.shape[0]}; got {number!r}.")
        return jax.tree.map(lambda x: x[:number], self.directions)


def trajectory_pca(recorded: PyTree) -> TrajectoryPCA:
    """Principal component analysis of recorded parameters, from the inner products of checkpoints.

    Its cost is quadratic in the number of checkpoints, linear in that of parameters.

    **Arguments:**

    - `recorded`: a PyTree whose floating-point arrays all have a leading axis over times, such as the `observed` of
      `tx.train(..., observe=lambda model: model)`.

    **Returns:**

    A `TrajectoryPCA` of `min(times - 1, parameters)` components.

    **Raises:**

    `ValueError` for less than two checkpoints, arrays that disagree about their number, or numbers that are not finite.
    """
    arrays = eqx.filter(recorded, eqx.is_inexact_array)
    leaves = jax.tree.leaves(arrays)
    times = {leaf.shape[0] if leaf.ndim else 0 for leaf in leaves}
    if len(times) != 1 or max(times) < 2:
        raise ValueError(
            "`recorded` must hold arrays with one leading axis over at least two times; got leading axes "
            f"{[leaf.shape[:1] for leaf in leaves]}."
        )
    centred = jax.tree.map(lambda x: x - jnp.mean(x, axis=0, keepdims=True), arrays)
    products = sum(_flat(x) @ _flat(x).T for x in jax.tree.leaves(centred))
    products = require(products, jnp.all(jnp.isfinite(products)), "`recorded` must be finite; it has NaN or infinity.")
    values, vectors = jnp.linalg.eigh(products)
    components = min(max(times) - 1, sum(math.prod(leaf.shape[1:]) for leaf in leaves))
    values, vectors = values[::-1][:components], vectors[:, ::-1][:, :components]
    # What rounding leaves of a component that does not vary.
    varies = values > values.shape[0] * jnp.finfo(values.dtype).eps * values[0]
    singular = jnp.where(varies, jnp.sqrt(jnp.where(varies, values, 1.0)), 0.0)
    weights = jnp.where(varies[None, :], vectors / jnp.where(varies, singular, 1.0)[None, :], 0.0)
    directions = jax.tree.map(lambda x: jnp.tensordot(weights.T, x, 1), centred)
    return TrajectoryPCA(singular, vectors * singular[None, :], directions)


def _flat(x: Float[Array, "times ..."]) -> Float[Array, "times entries"]:
    return x.reshape(x.shape[0], -1)
