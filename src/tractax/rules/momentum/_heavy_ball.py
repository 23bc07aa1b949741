r"""Heavy ball: descent with momentum, $\theta_{k+1} = \theta_k + \beta(\theta_k - \theta_{k-1}) - s\nabla L(\theta_k)$.

Time: a step takes $\sqrt s$, the unit of the oscillators that momentum methods follow; $k$ steps are $t = k\sqrt s$.

On a quadratic loss with curvatures between $\mu$ and $\ell$, $s = 4/(\sqrt\ell + \sqrt\mu)^2$ and
$\beta = ((\sqrt\ell - \sqrt\mu)/(\sqrt\ell + \sqrt\mu))^2$ converge at the best rate, $\sqrt\beta$ a step. On other
strongly convex losses with curvatures in the same range, these very numbers need not converge at all (`SlopeChange`).

Sources: Polyak 1964; Lessard, Recht, Packard 2016 (arXiv 1408.3595).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray, PyTree

from ...core import AbstractStepRule, Objective, check_fraction, check_positive, require
from ..descent._weight_decay import check_decay


class HeavyBall(AbstractStepRule[tuple[PyTree, Int[Array, ""]]]):
    r"""$v \leftarrow \beta v - s\,(\nabla L(\theta) + \gamma\theta)$, $\theta \leftarrow \theta + v$.

    `HeavyBallFlow` with the same arguments follows it.

    **Arguments:**

    - `learning_rate`: $s > 0$; may be an array under `vmap`, as the others.
    - `momentum`: $0 \le \beta < 1$. `strongly_convex_momentum` is a good one for a convex loss.
    - `first_step`: by which the learning rate of the first step is multiplied: 1 starts from rest, $1 + \beta$ as fast as
      Nesterov's method does.
    - `weight_decay`: $\gamma \ge 0$, the coefficient of the penalty $\tfrac\gamma2\lVert\theta\rVert^2$.
    - `time_per_step`: flow time per step; `None` for $\sqrt s$.

    **Raises:**

    `ValueError` for a learning rate or time that is not positive, a momentum outside of $[0, 1)$, or a negative first
    step or decay.
    """

    learning_rate: Float[Array, ""]
    momentum: Float[Array, ""]
    first_step: Float[Array, ""]
    weight_decay: Float[Array, ""]
    time_per_step: Float[Array, ""]

    def __init__(
        self,
        learning_rate: ArrayLike,
        momentum: ArrayLike = 0.9,
        *,
        first_step: ArrayLike = 1.0,
        weight_decay: ArrayLike = 0.0,
        time_per_step: ArrayLike | None = None,
    ):
        self.learning_rate = check_positive("learning_rate", learning_rate, scalar=True)
        self.momentum = check_fraction("momentum", momentum)
        self.first_step = check_positive("first_step", first_step, zero=True, scalar=True)
        self.weight_decay = check_decay(weight_decay)
        self.time_per_step = root_step(self.learning_rate, time_per_step)

    @classmethod
    def for_quadratics(cls, smoothness: ArrayLike, convexity: ArrayLike) -> "HeavyBall":
        r"""The fastest rule for quadratic losses whose curvatures lie between $\mu$ and $\ell$.

        **Arguments:**

        - `smoothness`: $\ell$, the largest curvature.
        - `convexity`: $\mu > 0$, the smallest.

        **Raises:**

        `ValueError` unless $0 < \mu \le \ell$.
        """
        largest, smallest = check_curvatures(smoothness, convexity)
        high, low = jnp.sqrt(largest), jnp.sqrt(smallest)
        return cls(4 / (high + low) ** 2, ((high - low) / (high + low)) ** 2)

    @property
    def random(self) -> bool:
        """Nothing is."""
        return False

    def init(self, params: PyTree) -> tuple[PyTree, Int[Array, ""]]:
        """No velocity yet, and no step done."""
        return jax.tree.map(jnp.zeros_like, params), jnp.asarray(0, jnp.int32)

    def step(
        self, params: PyTree, state: tuple[PyTree, Int[Array, ""]], objective: Objective, *, key: PRNGKeyArray | None
    ) -> tuple[PyTree, tuple[PyTree, Int[Array, ""]]]:
        """One step."""
        del key
        velocity, count = state
        gradient = objective.penalised(self.weight_decay).gradient(params)
        rate = self.learning_rate * jnp.where(count == 0, self.first_step.astype(self.learning_rate.dtype), 1.0)
        velocity = jax.tree.map(
            lambda v, g: self.momentum.astype(v.dtype) * v - rate.astype(v.dtype) * g, velocity, gradient
        )
        return jax.tree.map(jnp.add, params, velocity), (velocity, count + 1)


def strongly_convex_momentum(learning_rate: ArrayLike, convexity: ArrayLike) -> Float[Array, ""]:
    r"""$\beta = (1 - \sqrt{\mu s})/(1 + \sqrt{\mu s})$, Nesterov's momentum for a loss of curvature $\mu$ at least.

    **Arguments:**

    - `learning_rate`: $s > 0$.
    - `convexity`: $\mu \ge 0$, with $\mu s \le 1$.

    **Raises:**

    `ValueError` for numbers out of these ranges.
    """
    s = check_positive("learning_rate", learning_rate)
    mu = check_positive("convexity", convexity, zero=True).astype(s.dtype)
    root = jnp.sqrt(s * mu)
    root = require(root, jnp.all(root <= 1), "`convexity` must be at most 1 / learning_rate.")
    return (1 - root) / (1 + root)


def check_curvatures(smoothness: ArrayLike, convexity: ArrayLike) -> tuple[Array, Array]:
    """The largest and the smallest curvature, if they are positive and in order."""
    largest = check_positive("smoothness", smoothness, scalar=True)
    smallest = check_positive("convexity", convexity, scalar=True).astype(largest.dtype)
    message = "`convexity` must be at most `smoothness`."
    return largest, require(smallest, jnp.all(smallest <= largest), message)


def root_step(learning_rate: Float[Array, ""], time_per_step: ArrayLike | None) -> Float[Array, ""]:
    """The time of a step, by default the root of the learning rate."""
    if time_per_step is None:
        return jnp.sqrt(learning_rate)
    return check_positive("time_per_step", time_per_step, scalar=True)
