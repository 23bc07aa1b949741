r"""The triple momentum method: the fastest known first-order method for smooth, strongly convex losses.

For curvatures between $\mu$ and $\ell$ let $\rho = 1 - \sqrt{\mu/\ell}$ and $\alpha = (1 + \rho)/\ell$,
$\beta = \rho^2/(2 - \rho)$, $\gamma = \rho^2/((1 + \rho)(2 - \rho))$, $\delta = \rho^2/(1 - \rho^2)$. Then

$$\xi_{k+1} = (1 + \beta)\xi_k - \beta\xi_{k-1} - \alpha\nabla L\big((1 + \gamma)\xi_k - \gamma\xi_{k-1}\big),\qquad
\theta_k = (1 + \delta)\xi_k - \delta\xi_{k-1}$$

converges as $\lVert\theta_k - \theta_*\rVert = O(\rho^k)$, from $\xi_0 = \xi_{-1} = \theta_0$.

Time: a step takes $\sqrt\alpha$; $k$ steps are $t = k\sqrt\alpha$.

Source: Van Scoy, Freeman, Lynch 2018.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ...core import AbstractStepRule, Objective
from ..descent._weight_decay import check_decay
from ._heavy_ball import check_curvatures, root_step


class TripleMomentum(AbstractStepRule[tuple[PyTree, PyTree]]):
    r"""The method that is tuned by the range of curvatures alone, and converges as $\rho^k$ for every loss within it.

    **Arguments:**

    - `smoothness`: $\ell$, the largest curvature; may be an array under `vmap`, as the others.
    - `convexity`: $\mu > 0$, the smallest.
    - `weight_decay`: $\gamma \ge 0$, the coefficient of the penalty $\tfrac\gamma2\lVert\theta\rVert^2$. It is part of
      both curvatures, which are those of the loss with its penalty.
    - `time_per_step`: flow time per step; `None` for $\sqrt\alpha$, the root of the learning rate.

    **Attributes:**

    - `rate`: $\rho$, by which the distance to the minimum shrinks in a step, in the worst case.
    - `learning_rate`, `momentum`: $\alpha$ and $\beta$.
    - `lookahead`, `readout`: $\gamma$ and $\delta$, how far ahead of $\xi$ the gradient is taken and the parameters are.

    **Raises:**

    `ValueError` unless $0 < \mu \le \ell$, for a time that is not positive, or a negative decay.
    """

    rate: Float[Array, ""]
    learning_rate: Float[Array, ""]
    momentum: Float[Array, ""]
    lookahead: Float[Array, ""]
    readout: Float[Array, ""]
    weight_decay: Float[Array, ""]
    time_per_step: Float[Array, ""]

    def __init__(
        self,
        smoothness: ArrayLike,
        convexity: ArrayLike,
        *,
        weight_decay: ArrayLike = 0.0,
        time_per_step: ArrayLike | None = None,
    ):
        largest, smallest = check_curvatures(smoothness, convexity)
        rho = 1 - jnp.sqrt(smallest / largest)
        self.rate = rho
        self.learning_rate = (1 + rho) / largest
        self.momentum = rho**2 / (2 - rho)
        self.lookahead = rho**2 / ((1 + rho) * (2 - rho))
        self.readout = rho**2 / (1 - rho**2)
        self.weight_decay = check_decay(weight_decay)
        self.time_per_step = root_step(self.learning_rate, time_per_step)

    @property
    def random(self) -> bool:
        """Nothing is."""
        return False

    def init(self, params: PyTree) -> tuple[PyTree, PyTree]:
        r"""$\xi_0$ and $\xi_{-1}$, both at the parameters."""
        return params, params

    def step(
        self, params: PyTree, state: tuple[PyTree, PyTree], objective: Objective, *, key: PRNGKeyArray | None
    ) -> tuple[PyTree, tuple[PyTree, PyTree]]:
        """One step."""
        del params, key
        now, before = state
        gradient = objective.penalised(self.weight_decay).gradient(_ahead(self.lookahead, now, before))
        after = jax.tree.map(
            lambda x, g: x - self.learning_rate.astype(x.dtype) * g, _ahead(self.momentum, now, before), gradient
        )
        return _ahead(self.readout, after, now), (after, now)


def _ahead(factor: Float[Array, ""], now: PyTree, before: PyTree) -> PyTree:
    """Beyond the present value, by this factor of the last change."""
    return jax.tree.map(lambda x, y: x + factor.astype(x.dtype) * (x - y), now, before)
