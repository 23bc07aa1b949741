"""Diagonal linear networks."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..core import check_count, check_matrix, check_positive


class DiagonalLinear(eqx.Module):
    r"""$f(x) = \langle\beta, x\rangle$ with $\beta = w_+^D - w_-^D$, entry by entry.

    **Arguments:**

    - `positive`, `negative`: $w_+$ and $w_-$, shape `(in,)`.
    - `depth`: $D \ge 2$, how many layers share these weights.

    **Raises:**

    `ValueError` for wrong shapes or a depth below 2.
    """

    positive: Float[Array, " in"]
    negative: Float[Array, " in"]
    depth: int = eqx.field(static=True)

    def __init__(self, positive: ArrayLike, negative: ArrayLike, depth: int = 2):
        depth = check_count("depth", depth, least=2)
        self.positive = check_matrix("positive", positive, (None,))
        self.negative = check_matrix("negative", negative, self.positive.shape).astype(self.positive.dtype)
        self.depth = depth

    @classmethod
    def uniform(cls, inputs: int, *, scale: ArrayLike, depth: int = 2) -> "DiagonalLinear":
        """All weights equal to `scale`, so that the predictor is zero; the usual start.

        **Arguments:**

        - `inputs`: the number of inputs.
        - `scale`: $\\alpha > 0$.
        - `depth`: $D$.
        """
        weights = jnp.full((check_count("inputs", inputs),), check_positive("scale", scale, scalar=True))
        return cls(weights, weights, depth)

    @property
    def predictor(self) -> Float[Array, "*times in"]:
        r"""$\beta$; of a recorded trajectory of networks, at every time."""
        return self.positive**self.depth - self.negative**self.depth

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, ""]:
        """The output for one input."""
        return self.predictor @ x
