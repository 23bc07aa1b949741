"""RMSProp with one second moment for all parameters."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float, PyTree

from ...core import check_fraction, check_positive


class ScalarRMSPropState(NamedTuple):
    r"""$\nu$, the running mean of the squared gradient."""

    second_moment: Float[Array, ""]


def scalar_rmsprop(
    learning_rate: ArrayLike, decay: ArrayLike = 0.99, *, initial: ArrayLike = 0.0
) -> optax.GradientTransformation:
    r"""Gradient descent with a step size that adapts to the norm of the whole gradient.

    $\nu\leftarrow\beta\nu + (1 - \beta)\lVert g\rVert^2$, then $\theta\leftarrow\theta - \eta g/\sqrt\nu$.

    **Arguments:**

    - `learning_rate`: $\eta > 0$.
    - `decay`: $\beta$, between 0 and 1.
    - `initial`: $\nu$ before the first step, not negative.

    **Returns:**

    An `optax.GradientTransformation`, for `tx.GradientDescent(learning_rate, scalar_rmsprop)`.

    **Raises:**

    `ValueError` for a learning rate that is not positive, a decay outside $(0, 1)$ or a negative initial value.
    """
    eta, beta = check_positive("learning_rate", learning_rate, scalar=True), check_fraction("decay", decay, zero=False)
    start = check_positive("initial", initial, zero=True, scalar=True)

    def init(params: PyTree) -> ScalarRMSPropState:
        return ScalarRMSPropState(start.astype(jnp.result_type(*jax.tree.leaves(params))))

    def update(
        updates: PyTree, state: ScalarRMSPropState, params: PyTree | None = None
    ) -> tuple[PyTree, ScalarRMSPropState]:
        del params
        kept = beta.astype(state.second_moment.dtype)
        power = sum(jnp.sum(g**2) for g in jax.tree.leaves(updates))
        nu = kept * state.second_moment + (1 - kept) * power
        # Without any gradient so far there is nothing to scale.
        scale = jnp.where(nu > 0, 1 / jnp.sqrt(jnp.where(nu > 0, nu, 1.0)), 0.0)
        return jax.tree.map(lambda g: -(eta.astype(g.dtype) * scale.astype(g.dtype)) * g, updates), ScalarRMSPropState(nu)

    return optax.GradientTransformation(init, update)
