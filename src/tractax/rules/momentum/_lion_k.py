r"""Lion-K: descent by the gradient of a convex function of the momentum, with decoupled weight decay.

$$c = \beta_1m + (1 - \beta_1)g,\qquad \theta \leftarrow \theta - \eta(\nabla K(c) + \lambda\theta),\qquad
m \leftarrow \beta_2m + (1 - \beta_2)g.$$

$K = \lVert\cdot\rVert_1$ is Lion, the nuclear norm orthogonalises as Muon does. In the time $\eta$ per step it follows

$$\dot\theta = \nabla K(\tilde m) - \lambda\theta,\qquad \dot m = -\alpha g - \gamma m,\qquad
\tilde m = m - \varepsilon(\alpha g + \gamma m),$$

with the sign of $m$ changed, $\alpha = \gamma = (1 - \beta_2)/\eta$ and $\varepsilon = (1 - \beta_1)/\gamma$. This flow
minimises $\alpha L(\theta) + \tfrac\gamma\lambda K^*(\lambda\theta)$: along it

$$H = \alpha L + \tfrac\gamma\lambda K^*(\lambda\theta) + \tfrac{1 - \varepsilon\gamma}{1 + \varepsilon\lambda}
\big(K^*(\lambda\theta) + K(m) - \lambda\,m\cdot\theta\big)$$

never increases where it is finite. For Lion that is the box $|\theta_i| \le 1/\lambda$.

Source: Chen, Liu, Liang, Liu 2023 (arXiv 2310.05898).
"""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ...core import AbstractFlowRule, AbstractStepRule, Objective, check_fraction, check_positive, require
from ..descent._weight_decay import check_decay
from ._convex_functions import AbsoluteValue, AbstractConvexFunction

_LION = AbsoluteValue()


class LionK(AbstractStepRule[PyTree]):
    """Steps of Lion-K, by default of Lion itself, as `optax.lion` takes them.

    `LionK(...).flow()` is the flow that it follows where $K$ is smooth.

    **Arguments:**

    - `learning_rate`: $\\eta > 0$, the time of a step; may be an array under `vmap`, as the others.
    - `function`: $K$, of each trainable array by itself.
    - `b1`, `b2`: $0 \\le \\beta < 1$, the weight of the momentum in the step, and of the past in the momentum.
    - `weight_decay`: $\\lambda \\ge 0$.

    **Raises:**

    `ValueError` for a learning rate that is not positive, a weight outside of $[0, 1)$, a negative decay, or something
    else than a convex function.
    """

    learning_rate: Float[Array, ""]
    function: AbstractConvexFunction
    b1: Float[Array, ""]
    b2: Float[Array, ""]
    weight_decay: Float[Array, ""]

    def __init__(
        self,
        learning_rate: ArrayLike,
        function: PyTree = _LION,
        *,
        b1: ArrayLike = 0.9,
        b2: ArrayLike = 0.99,
        weight_decay: ArrayLike = 0.0,
    ):
        self.learning_rate = check_positive("learning_rate", learning_rate, scalar=True)
        self.function = _check_function(function)
        self.b1, self.b2 = check_fraction("b1", b1), check_fraction("b2", b2)
        self.weight_decay = check_decay(weight_decay)

    @property
    def time_per_step(self) -> Float[Array, ""]:
        """The learning rate."""
        return self.learning_rate

    @property
    def random(self) -> bool:
        """Nothing is."""
        return False

    def init(self, params: PyTree) -> PyTree:
        """No momentum yet."""
        return jax.tree.map(jnp.zeros_like, params)

    def step(
        self, params: PyTree, state: PyTree, objective: Objective, *, key: PRNGKeyArray | None
    ) -> tuple[PyTree, PyTree]:
        """One step."""
        del key
        gradient = objective.gradient(params)

        def move(w: Array, m: Array, g: Array) -> Array:
            rate, b1, decay = (x.astype(w.dtype) for x in (self.learning_rate, self.b1, self.weight_decay))
            return w - rate * (self.function.gradient(b1 * m + (1 - b1) * g) + decay * w)

        def remember(m: Array, g: Array) -> Array:
            b2 = self.b2.astype(m.dtype)
            return b2 * m + (1 - b2) * g

        return jax.tree.map(move, params, state, gradient), jax.tree.map(remember, state, gradient)

    def flow(self) -> "LionKFlow":
        """The flow that these steps follow."""
        rate = self.learning_rate
        memory = (1 - self.b2.astype(rate.dtype)) / rate
        return LionKFlow(
            self.function,
            gradient_rate=memory,
            momentum_decay=memory,
            lookahead=(1 - self.b1.astype(rate.dtype)) / memory,
            weight_decay=self.weight_decay,
        )


class LionState(eqx.Module):
    """Parameters and momentum, which points downhill."""

    params: PyTree
    momentum: PyTree


class LionKFlow(AbstractFlowRule[LionState]):
    r"""$\dot\theta = \nabla K(\tilde m) - \lambda\theta$, $\dot m = -\alpha\nabla L - \gamma m$ from $m = 0$, with
    $\tilde m = m - \varepsilon(\alpha\nabla L + \gamma m)$.

    Integrate it with a smooth $K$; where its gradient jumps, as that of `AbsoluteValue` at zero, take the steps of
    `LionK`.

    `lyapunov` and `dissipation` need the momentum: `tx.train(..., observe=tx.OfState(flow.lyapunov))` records them.

    **Arguments:**

    - `function`: $K$, of each trainable array by itself.
    - `gradient_rate`: $\alpha > 0$.
    - `momentum_decay`: $\gamma > 0$.
    - `lookahead`: $\varepsilon \ge 0$, with $\varepsilon\gamma \le 1$.
    - `weight_decay`: $\lambda \ge 0$.

    **Raises:**

    `ValueError` for numbers out of these ranges, or something else than a convex function.
    """

    function: AbstractConvexFunction
    gradient_rate: Float[Array, ""]
    momentum_decay: Float[Array, ""]
    lookahead: Float[Array, ""]
    weight_decay: Float[Array, ""]

    def __init__(
        self,
        function: PyTree,
        *,
        gradient_rate: ArrayLike = 1.0,
        momentum_decay: ArrayLike = 1.0,
        lookahead: ArrayLike = 0.0,
        weight_decay: ArrayLike = 0.0,
    ):
        self.function = _check_function(function)
        self.gradient_rate = check_positive("gradient_rate", gradient_rate, scalar=True)
        self.momentum_decay = check_positive("momentum_decay", momentum_decay, scalar=True)
        ahead = check_positive("lookahead", lookahead, zero=True, scalar=True)
        product = ahead * self.momentum_decay.astype(ahead.dtype)
        rounding = 4 * jnp.finfo(ahead.dtype).eps
        message = "`lookahead` must be at most 1 / momentum_decay."
        self.lookahead = require(ahead, jnp.all(product <= 1 + rounding), message)
        self.weight_decay = check_decay(weight_decay)

    def init(self, params: PyTree) -> LionState:
        """No momentum yet."""
        return LionState(params, jax.tree.map(jnp.zeros_like, params))

    def params(self, state: LionState) -> PyTree:
        """The parameters alone."""
        return state.params

    def vector_field(self, t: Any, state: LionState, objective: Objective) -> LionState:
        """The velocities of parameters and momentum."""
        del t
        push = self._push(state, objective)

        def velocity(w: Array, m: Array, p: Array) -> Array:
            ahead = m + self.lookahead.astype(w.dtype) * p
            return self.function.gradient(ahead) - self.weight_decay.astype(w.dtype) * w

        return LionState(jax.tree.map(velocity, state.params, state.momentum, push), push)

    def terms(self, state: LionState, t0: Any, t1: Any, *, key: PRNGKeyArray | None) -> diffrax.ODETerm:
        """One `diffrax.ODETerm`."""
        del state, t0, t1, key
        return diffrax.ODETerm(self.vector_field)

    def lyapunov(self, t: Any, state: LionState, objective: Objective) -> Float[Array, ""]:
        """$H$, which never increases; infinite outside of the domain of $K^*(\\lambda\\theta)$."""
        del t
        loss = objective.loss(state.params)
        alpha, gamma, epsilon, decay = self._numbers(loss)

        def of_array(w: Array, m: Array) -> Array:
            pull, safe = self.function.conjugate(decay * w), jnp.where(decay == 0, 1.0, decay)
            held = gamma * jnp.where(decay == 0, self.function.bottom_support(w), pull / safe)
            gap = pull + self.function(m) - decay * jnp.sum(m * w)
            return held + (1 - epsilon * gamma) / (1 + epsilon * decay) * gap

        return alpha * loss + sum(jax.tree.leaves(jax.tree.map(of_array, state.params, state.momentum)))

    def dissipation(self, t: Any, state: LionState, objective: Objective) -> Float[Array, ""]:
        r"""$-dH/dt \ge 0$, in closed form:

        $$\tfrac{\lambda + \gamma}{1 + \varepsilon\lambda}(\tilde m - \nabla K^*(\lambda\theta))\cdot
        (\nabla K(\tilde m) - \lambda\theta) + \tfrac{1 - \varepsilon\gamma}{\varepsilon(1 + \varepsilon\lambda)}
        (\tilde m - m)\cdot(\nabla K(\tilde m) - \nabla K(m)).$$
        """
        del t
        push = self._push(state, objective)

        def of_array(w: Array, m: Array, p: Array) -> Array:
            _, gamma, epsilon, decay = self._numbers(w)
            ahead = m + epsilon * p
            slope = self.function.gradient(ahead)
            held = self.function.conjugate_gradient(decay * w)
            held = jnp.where(decay == 0, jax.grad(self.function.bottom_support)(w), held)
            first = jnp.sum((ahead - held) * (slope - decay * w))
            # (ahead - m)/ε is the push, without lookahead too.
            second = jnp.sum(p * (slope - self.function.gradient(m)))
            return ((decay + gamma) * first + (1 - epsilon * gamma) * second) / (1 + epsilon * decay)

        parts = jax.tree.leaves(jax.tree.map(of_array, state.params, state.momentum, push))
        return sum(parts[1:], parts[0])

    def _push(self, state: LionState, objective: Objective) -> PyTree:
        """The velocity of the momentum."""

        def push(m: Array, g: Array) -> Array:
            return -self.gradient_rate.astype(m.dtype) * g - self.momentum_decay.astype(m.dtype) * m

        return jax.tree.map(push, state.momentum, objective.gradient(state.params))

    def _numbers(self, like: Array) -> list[Array]:
        numbers = (self.gradient_rate, self.momentum_decay, self.lookahead, self.weight_decay)
        return [x.astype(like.dtype) for x in numbers]


def _check_function(function: PyTree) -> AbstractConvexFunction:
    if not isinstance(function, AbstractConvexFunction):
        raise ValueError(f"`function` must be a convex function, such as tx.rules.Huber(0.1); got {function!r}.")
    return function
