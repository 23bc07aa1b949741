r"""Modified flow: the differential equation that gradient descent follows more closely than gradient flow.

Steps $\theta\leftarrow\theta + h f(\theta)$ with $f = -\nabla L$ lie, up to $O(h^{p+1})$ each, on the flow of
$f + h f_1 + \dots + h^{p-1}f_{p-1}$. Backward error analysis of Euler's method gives, with $J = f'$,

$$f_1 = -\tfrac12 Jf,\qquad f_2 = \tfrac13 J^2f + \tfrac1{12}f''(f, f),\qquad
f_3 = -\tfrac14 J^3f - \tfrac1{12}J f''(f, f) - \tfrac1{12}f''(f, Jf).$$

Order 2 is the flow of the loss $L + \tfrac h4\lVert\nabla L\rVert^2$ (implicit gradient regularisation).

Assumes a loss that is smooth where training passes. Time: a step of descent takes the flow time $h$.

Sources: Barrett, Dherin 2021 (arXiv 2009.11162); Rosca, Wu, Dherin, Barrett 2021 (arXiv 2105.13922); Hairer, Lubich,
Wanner, *Geometric Numerical Integration*, chapter IX.
"""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ...core import AbstractParameterFlow, AbstractTask, Objective, check_fraction, check_positive
from ._weight_decay import check_decay

_HIGHEST = 4


class ModifiedFlow(AbstractParameterFlow):
    r"""The flow that gradient descent of learning rate $h$ follows up to $O(h^p)$ at a fixed time.

    Compare it with `tx.GradientDescent(learning_rate)` at the times $t = hk$ of its steps. Order 1 is gradient flow,
    order 2 descends $L + \tfrac h4\lVert\nabla L\rVert^2$. On a direction of curvature $\lambda$ of a quadratic loss,
    order $p$ multiplies the gradient by $\exp(-\sum_{k\le p}(h\lambda)^k/k)$ where a step of descent multiplies it by
    $1 - h\lambda$: the flow never oscillates, and is close to descent only where $h\lambda < 1$.

    The corrections are Jacobian-vector products of the gradient, at most six of them, and no Hessian is formed.

    **Arguments:**

    - `learning_rate`: $h > 0$; may be an array under `vmap`.
    - `order`: $p$, from 1 to 4.
    - `weight_decay`: $\gamma \ge 0$ of steps $\theta\leftarrow(1 - h\gamma)\theta - h\nabla L$. It acts as the penalty
      $\tfrac\gamma2\lVert\theta\rVert^2$, of which the corrections know.

    **Raises:**

    `ValueError` for a learning rate that is not positive, an order other than 1, 2, 3 or 4, or a negative decay.
    """

    learning_rate: Float[Array, ""]
    weight_decay: Float[Array, ""]
    order: int = eqx.field(static=True)

    def __init__(self, learning_rate: ArrayLike, order: PyTree = 2, weight_decay: ArrayLike = 0.0):
        self.learning_rate = check_positive("learning_rate", learning_rate, scalar=True)
        self.order = check_order(order, _HIGHEST)
        self.weight_decay = check_decay(weight_decay)

    @classmethod
    def from_momentum(cls, learning_rate: ArrayLike, momentum: ArrayLike) -> "ModifiedFlow":
        r"""The flow that steps with momentum follow once they are under way, up to the second power of $h$.

        Steps $v\leftarrow\beta v - h\nabla L$, $\theta\leftarrow\theta + v$ forget their start within some $1/(1-\beta)$
        steps, and then lie on the flow of $L + \tfrac{h(1+\beta)}{4(1-\beta)^2}\lVert\nabla L\rVert^2$, on which each
        takes the time $h/(1-\beta)$. Compare with
        `tx.GradientDescent(h, functools.partial(optax.sgd, momentum=β), time_per_step=h / (1 - β))`; where those start
        from rest, begin the flow at `momentum_start`.

        **Arguments:**

        - `learning_rate`: $h > 0$.
        - `momentum`: $0 \le \beta < 1$.

        **Returns:**

        The flow of order 2 for the learning rate $h(1+\beta)/(1-\beta)^2$.

        **Raises:**

        `ValueError` for numbers out of these ranges.
        """
        beta = check_fraction("momentum", momentum)
        rate = check_positive("learning_rate", learning_rate, scalar=True)
        return cls(rate * ((1 + beta) / (1 - beta) ** 2).astype(rate.dtype))

    def vector_field(self, t: Any, params: PyTree, objective: Objective) -> PyTree:
        """The velocity of the parameters."""
        del t

        penalised = objective.penalised(self.weight_decay)

        def field(params: PyTree) -> PyTree:
            return jax.tree.map(lambda g: -g, penalised.gradient(params))

        corrections = _corrections(field, params, self.order)
        # Horner's scheme in the learning rate.
        velocity = corrections[-1]
        for lower in corrections[-2::-1]:
            velocity = jax.tree.map(lambda f, v: f + self.learning_rate.astype(f.dtype) * v, lower, velocity)
        return velocity


def momentum_start(model: PyTree, task: AbstractTask, learning_rate: ArrayLike, momentum: ArrayLike) -> PyTree:
    r"""Where a flow has to begin to end up on steps with momentum that start from rest.

    To first order in $h$, steps from rest lag by $\tfrac{h\beta}{(1-\beta)^2}\nabla L$ behind those that have always been
    under way. This is shown here, not in the sources.

    **Arguments:**

    - `model`, `task`: any.
    - `learning_rate`: $h > 0$.
    - `momentum`: $0 \le \beta < 1$.

    **Returns:**

    A model, for `tx.train` with `ModifiedFlow.from_momentum`.

    **Raises:**

    `ValueError` for numbers out of these ranges.
    """
    beta = check_fraction("momentum", momentum)
    rate = check_positive("learning_rate", learning_rate, scalar=True)
    lag = rate * (beta / (1 - beta) ** 2).astype(rate.dtype)
    params, static = eqx.partition(model, eqx.is_inexact_array)
    gradient = Objective(task, static).gradient(params)
    return eqx.combine(jax.tree.map(lambda w, g: w + lag.astype(w.dtype) * g, params, gradient), static)


def check_order(order: PyTree, highest: int) -> int:
    """The order of a flow, if it is a whole number from 1 to the highest one."""
    if isinstance(order, bool) or not isinstance(order, int | np.integer) or not 1 <= order <= highest:
        raise ValueError(f"`order` must be a whole number from 1 to {highest}; got {order!r}.")
    return int(order)


def _corrections(field: Any, params: PyTree, order: int) -> list[PyTree]:
    """$f, f_1, \\dots, f_{p-1}$ at these parameters."""
    if order == 1:
        return [field(params)]
    f, jacobian = jax.linearize(field, params)
    if order == 2:
        return [f, _combine((-1 / 2, jacobian(f)))]
    # f is held fixed while Jf is differentiated, which leaves the second derivative alone.
    jf, second_along_f = jax.linearize(lambda w: jax.jvp(field, (w,), (f,))[1], params)
    jjf, bend = jacobian(jf), second_along_f(f)
    lower = [f, _combine((-1 / 2, jf)), _combine((1 / 3, jjf), (1 / 12, bend))]
    if order == 3:
        return lower
    third = _combine((-1 / 4, jacobian(jjf)), (-1 / 12, jacobian(bend)), (-1 / 12, second_along_f(jf)))
    return [*lower, third]


def _combine(*terms: tuple[float, PyTree]) -> PyTree:
    """A linear combination of PyTrees."""
    weights, trees = zip(*terms, strict=True)
    return jax.tree.map(lambda *xs: sum(w * x for w, x in zip(weights, xs, strict=True)), *trees)
