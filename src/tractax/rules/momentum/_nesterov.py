r"""Nesterov's accelerated gradient method.

$$y_{k+1} = \theta_k - s\nabla L(\theta_k),\qquad \theta_{k+1} = y_{k+1} + \beta_k(y_{k+1} - y_k),\qquad y_0 = \theta_0,$$

with $\beta_k = k/(k + r)$ for convex losses (usually $r = 3$), or a constant momentum for strongly convex ones.

Time: a step takes $\sqrt s$; $k$ steps are $t = k\sqrt s$.

Sources: Nesterov 1983; Su, Boyd, Candès 2016 (arXiv 1503.01243).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray, PyTree

from ...core import AbstractStepRule, Objective, check_fraction, check_positive, require
from ..descent._weight_decay import check_decay
from ._heavy_ball import root_step


class Nesterov(AbstractStepRule[tuple[PyTree, Int[Array, ""]]]):
    r"""Nesterov's method, with a momentum that grows or a constant one.

    `NesterovFlow` with the same arguments follows it.

    **Arguments:**

    - `learning_rate`: $s > 0$; may be an array under `vmap`, as the others.
    - `momentum`: $0 \le \beta < 1$, such as `strongly_convex_momentum(s, mu)`; `None` for $\beta_k = k/(k + r)$.
    - `friction`: $r$, at least 1, of the growing momentum. Acceleration needs 3 or more.
    - `weight_decay`: $\gamma \ge 0$, the coefficient of the penalty $\tfrac\gamma2\lVert\theta\rVert^2$.
    - `time_per_step`: flow time per step; `None` for $\sqrt s$.

    **Raises:**

    `ValueError` for a learning rate or time that is not positive, a momentum outside of $[0, 1)$, a friction below 1, or
    a negative decay.
    """

    learning_rate: Float[Array, ""]
    momentum: Float[Array, ""] | None
    friction: Float[Array, ""]
    weight_decay: Float[Array, ""]
    time_per_step: Float[Array, ""]

    def __init__(
        self,
        learning_rate: ArrayLike,
        momentum: ArrayLike | None = None,
        *,
        friction: ArrayLike = 3.0,
        weight_decay: ArrayLike = 0.0,
        time_per_step: ArrayLike | None = None,
    ):
        self.learning_rate = check_positive("learning_rate", learning_rate, scalar=True)
        self.momentum = None if momentum is None else check_fraction("momentum", momentum)
        self.friction = check_friction(friction)
        self.weight_decay = check_decay(weight_decay)
        self.time_per_step = root_step(self.learning_rate, time_per_step)

    @property
    def random(self) -> bool:
        """Nothing is."""
        return False

    def init(self, params: PyTree) -> tuple[PyTree, Int[Array, ""]]:
        """The auxiliary sequence starts at the parameters."""
        return params, jnp.asarray(0, jnp.int32)

    def step(
        self, params: PyTree, state: tuple[PyTree, Int[Array, ""]], objective: Objective, *, key: PRNGKeyArray | None
    ) -> tuple[PyTree, tuple[PyTree, Int[Array, ""]]]:
        """One step."""
        del key
        before, count = state
        gradient = objective.penalised(self.weight_decay).gradient(params)
        after = jax.tree.map(lambda w, g: w - self.learning_rate.astype(w.dtype) * g, params, gradient)
        momentum = self._momentum(count)
        moved = jax.tree.map(lambda y, old: y + momentum.astype(y.dtype) * (y - old), after, before)
        return moved, (after, count + 1)

    def _momentum(self, count: Int[Array, ""]) -> Float[Array, ""]:
        if self.momentum is not None:
            return self.momentum
        k = count.astype(self.friction.dtype)
        return k / (k + self.friction)


def check_friction(friction: ArrayLike) -> Array:
    """The friction of a growing momentum, if it is at least 1."""
    r = check_positive("friction", friction, scalar=True)
    return require(r, jnp.all(r >= 1), "`friction` must be at least 1.")
