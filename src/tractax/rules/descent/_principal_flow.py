r"""Principal flow: gradient descent in continuous time, with every correction that the Hessian alone makes.

$$\dot\theta = \sum_i\frac{\log(1 - h\lambda_i)}{h\lambda_i}\,(u_i\cdot\nabla L)\,u_i,$$

with $\lambda_i, u_i$ the eigenvalues and eigenvectors of the Hessian. It follows gradient descent exactly where the loss
is quadratic; elsewhere derivatives of the Hessian are missing, an error of $O(h^3)$ a step.

Assumes $h\lambda_i < 1$: beyond, the logarithm is complex. Time: a step of descent takes the flow time $h$.

Source: Rosca, Wu, Qin, Dherin 2023 (arXiv 2302.01952).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, PyTree

from ...core import AbstractParameterFlow, Objective, check_positive
from ._weight_decay import check_decay


def log_ratio(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """-log(1 - x)/x, continued by 1 at zero; NaN for x >= 1."""
    inside = (x < 1) & (x != 0)
    safe = jnp.where(inside, x, 0.5)
    return jnp.where(inside, -jnp.log1p(-safe) / safe, jnp.where(x == 0, 1.0, jnp.nan))


class PrincipalFlow(AbstractParameterFlow):
    r"""The flow that gradient descent of learning rate $h$ follows exactly on a quadratic loss.

    Compare it with `tx.GradientDescent(learning_rate)` at the times $t = hk$ of its steps; on other losses they differ
    by $O(h^2)$ at a fixed time.

    The velocity is real while $h\lambda < 1$ for every eigenvalue of the Hessian. From $h\lambda = 1$ on descent jumps
    over the minimum of that direction, which a real flow cannot do: the velocity is NaN there, and `tx.train` ends with
    `tx.RESULTS.diverged` (with `throw=False` it keeps what came before). On quadratic losses `QuadraticDescent`
    evaluates the complex flow.

    The Hessian of all parameters is formed and diagonalised at every evaluation, so networks must be small. Gradients
    through the flow are those of an eigendecomposition, undefined where eigenvalues coincide; `ModifiedFlow` has no such
    limits.

    **Arguments:**

    - `learning_rate`: $h > 0$; may be an array under `vmap`.
    - `weight_decay`: $\gamma \ge 0$, the coefficient of the penalty $\tfrac\gamma2\lVert\theta\rVert^2$.

    **Raises:**

    `ValueError` for a learning rate that is not positive, or a negative decay.
    """

    learning_rate: Float[Array, ""]
    weight_decay: Float[Array, ""]

    def __init__(self, learning_rate: ArrayLike, *, weight_decay: ArrayLike = 0.0):
        self.learning_rate = check_positive("learning_rate", learning_rate, scalar=True)
        self.weight_decay = check_decay(weight_decay)

    def vector_field(self, t: Any, params: PyTree, objective: Objective) -> PyTree:
        """The velocity of the parameters."""
        del t
        flat, unravel = ravel_pytree(params)
        objective = objective.penalised(self.weight_decay)

        def loss(flat: Array) -> Array:
            return objective.loss(unravel(flat))

        curvatures, directions = jnp.linalg.eigh(jax.hessian(loss)(flat))
        strength = log_ratio(self.learning_rate.astype(flat.dtype) * curvatures)
        return unravel(-directions @ (strength * (directions.T @ jax.grad(loss)(flat))))
