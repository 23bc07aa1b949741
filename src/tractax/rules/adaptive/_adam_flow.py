r"""The differential equation that Adam follows more closely than the flow of its signs.

Set-up: $\theta\leftarrow\theta - h\,\hat m/\sqrt{\hat v + \epsilon}$ with bias-corrected averages of gradients and of
their squares, the small number under the root. Number by number, up to $O(h^2)$ at a fixed time,

$$\dot\theta_j = -\frac{g_j + b_j}{\sqrt{g_j^2 + \epsilon}},\qquad
b_j = \frac h2\Big[\frac{1+\beta_1}{1-\beta_1} - \frac{1+\beta_2}{1-\beta_2}\Big(1 - \frac{\epsilon}{g_j^2+\epsilon}\Big)
\Big]\,\partial_j\sum_i\sqrt{g_i^2 + \epsilon}.$$

Where $\epsilon$ is small and $\beta_2 > \beta_1$, as usual, Adam climbs the one-norm of the gradient, which descent would
lower.

Assumes a loss that is smooth where training passes. Loss: the task's own. Time: a step of Adam takes the flow time $h$.

Source: Cattaneo, Klusowski, Shigida 2023 (arXiv 2309.00079).
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ...core import AbstractParameterFlow, Objective, check_fraction, check_positive
from ..descent._modified_flow import check_order
from ..descent._weight_decay import check_decay


class AdamFlow(AbstractParameterFlow):
    r"""The flow that Adam of learning rate $h$ follows up to $O(h^p)$ at a fixed time, for $p$ of 1 or 2.

    Compare it with `tx.GradientDescent(h, functools.partial(optax.adam, b1=..., b2=..., eps=0.0, eps_root=ε))` at the
    times $t = hk$ of its steps. Order 1 is $\dot\theta = -g/\sqrt{g^2+\epsilon}$, near the flow of signs.

    The averages must remember little of the run: $h/(1-\beta_2)$ has to be small next to the time in which gradients
    change. At $\beta_2 = 0.999$ that means $h$ far below 0.001; beyond, the correction is larger than what it corrects,
    and the flow of order 2 runs away.

    **Arguments:**

    - `learning_rate`: $h > 0$; may be an array under `vmap`.
    - `b1`, `b2`: the decay rates $0 \le \beta_1, \beta_2 < 1$ of the averages of gradients and of their squares.
    - `eps_root`: $\epsilon > 0$, under the root, as in `optax.adam`.
    - `order`: $p$, 1 or 2.
    - `weight_decay`: $\gamma \ge 0$, the coefficient of the penalty $\tfrac\gamma2\lVert\theta\rVert^2$, part of the
      gradient that Adam averages and squares.

    **Raises:**

    `ValueError` for numbers out of these ranges.
    """

    learning_rate: Float[Array, ""]
    b1: Float[Array, ""]
    b2: Float[Array, ""]
    eps_root: Float[Array, ""]
    weight_decay: Float[Array, ""]
    order: int = eqx.field(static=True)

    def __init__(
        self,
        learning_rate: ArrayLike,
        b1: ArrayLike = 0.9,
        b2: ArrayLike = 0.999,
        *,
        eps_root: ArrayLike,
        order: PyTree = 2,
        weight_decay: ArrayLike = 0.0,
    ):
        self.learning_rate = check_positive("learning_rate", learning_rate, scalar=True)
        self.b1 = check_fraction("b1", b1)
        self.b2 = check_fraction("b2", b2)
        self.eps_root = check_positive("eps_root", eps_root, scalar=True)
        self.weight_decay = check_decay(weight_decay)
        self.order = check_order(order, 2)

    def vector_field(self, t: Any, params: PyTree, objective: Objective) -> PyTree:
        """The velocity of the parameters."""
        del t
        objective = objective.penalised(self.weight_decay)
        if self.order == 1:
            return jax.tree.map(lambda g: -g / self._root(g), objective.gradient(params))
        gradient, product = jax.linearize(objective.gradient, params)
        # The gradient of the softened one-norm of the gradient.
        slope = product(jax.tree.map(lambda g: g / self._root(g), gradient))
        return jax.tree.map(self._velocity, gradient, slope)

    def _root(self, g: Array) -> Array:
        return jnp.sqrt(g**2 + self.eps_root.astype(g.dtype))

    def _velocity(self, g: Array, slope: Array) -> Array:
        h, b1, b2 = (x.astype(g.dtype) for x in (self.learning_rate, self.b1, self.b2))
        root = self._root(g)
        # 1 - ε/(g² + ε) is (g/root)².
        weight = (1 + b1) / (1 - b1) - (1 + b2) / (1 - b2) * (g / root) ** 2
        return -(g + h / 2 * weight * slope) / root
