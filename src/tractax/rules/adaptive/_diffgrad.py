r"""diffGrad: Adam that slows down where the gradient does not change.

$$\theta\leftarrow\theta - \eta\,\xi_t\,\frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon},\qquad
\xi_t = \sigma(\lvert g_t - g_{t-1}\rvert),\quad g_0 = 0,$$

with Adam's moments $\hat m$, $\hat v$ and the logistic function $\sigma$. A constant gradient moves a parameter by
$\eta\,\sigma(\lvert g\rvert)$ in the first step and by $\eta/2$ in every other one, for $\epsilon = 0$.

Source: Dubey, Chakraborty, Roy, Mukherjee, Singh, Chaudhuri 2019, arXiv 1909.11015.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from ._adam_moments import check_decay, check_number, running_mean, without_bias, zeros


class DiffGradState(NamedTuple):
    """Steps taken, the two moments, and the gradient of the step before."""

    count: Int[Array, ""]
    first: PyTree
    second: PyTree
    previous: PyTree


def diffgrad(
    learning_rate: PyTree, b1: PyTree = 0.9, b2: PyTree = 0.999, eps: PyTree = 1e-8
) -> optax.GradientTransformation:
    r"""diffGrad as an optax transformation, for `tx.GradientDescent(learning_rate, tx.rules.diffgrad)`.

    **Arguments:**

    - `learning_rate`: $\eta$, a number, an array or an optax schedule.
    - `b1`, `b2`: the decay of the two moments, from 0, below 1.
    - `eps`: $\epsilon\ge 0$.

    **Raises:**

    `ValueError` for a decay outside of its range or a negative `eps`.
    """
    b1, b2 = check_decay("b1", b1), check_decay("b2", b2)
    eps = check_number("eps", eps, zero=True)

    def init(params: PyTree) -> DiffGradState:
        return DiffGradState(jnp.zeros((), jnp.int32), zeros(params), zeros(params), zeros(params))

    def update(gradients: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, DiffGradState]:
        del params
        count = state.count + 1
        first = running_mean(state.first, gradients, b1)
        second = running_mean(state.second, jax.tree.map(jnp.square, gradients), b2)

        def direction(m: Array, v: Array, g: Array, before: Array) -> Array:
            # A moment that has seen nothing but zeros asks for no step, without eps too.
            size = jnp.sqrt(v) + eps
            return jax.nn.sigmoid(jnp.abs(g - before)) * m / jnp.where(size == 0, 1.0, size)

        unbiased = without_bias(first, b1, count), without_bias(second, b2, count)
        updates = jax.tree.map(direction, *unbiased, gradients, state.previous)
        return updates, DiffGradState(count, first, second, gradients)

    return optax.chain(optax.GradientTransformation(init, update), optax.scale_by_learning_rate(learning_rate))
