"""The gradient of a loss with weight decay."""

import jax
from jaxtyping import Array, Float, PyTree

from ...core import Objective


def penalised_gradient(objective: Objective, params: PyTree, weight_decay: Float[Array, ""]) -> PyTree:
    r"""The gradient of $L + \tfrac\gamma2\lVert\theta\rVert^2$."""
    return jax.tree.map(lambda w, g: g + weight_decay.astype(g.dtype) * w, params, objective.gradient(params))
