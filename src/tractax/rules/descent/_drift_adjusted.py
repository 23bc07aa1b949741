r"""Drift-adjusted learning rates: steps as long as the curvature along the gradient allows.

Set-up: gradient descent with the learning rate $h(\theta) = 2/\lVert H\hat g\rVert^p$, where $\hat g = g/\lVert g\rVert$
is the direction of the gradient and $H$ the Hessian, up to a maximum. The leading error of a step against gradient flow
is $\tfrac{h^2}2Hg$. Along an eigenvector of curvature $\lambda$ the rate is $2/\lambda^p$: the edge of stability for
$p = 1$, more careful for larger $p$ where curvature is high, plain descent of rate 2 for $p = 0$.

Source: Rosca, Wu, Qin, Dherin 2023 (arXiv 2302.01952).
"""

from collections.abc import Callable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float, PyTree

from ...core import check_positive


def drift_adjusted_rate(
    loss: Callable[[PyTree], Any], params: PyTree, power: ArrayLike = 1.0, maximum: ArrayLike = 5.0
) -> Float[Array, ""]:
    r"""The learning rate $2/\lVert H\hat g\rVert^p$, from one product of the Hessian with a vector.

    **Arguments:**

    - `loss`: a function of the parameters.
    - `params`: a PyTree of floating-point arrays.
    - `power`: $p \ge 0$.
    - `maximum`: the largest rate, positive. It is returned where nothing bends, and at a stationary point.

    **Returns:**

    The rate.

    **Raises:**

    `ValueError` for a negative power or a maximum that is not positive.
    """
    gradient, product = jax.linearize(jax.grad(loss), params)
    return _rate(gradient, product, *_check(power, maximum))


def drift_adjusted(power: ArrayLike = 1.0, maximum: ArrayLike = 5.0) -> optax.GradientTransformationExtraArgs:
    r"""Gradient descent with drift-adjusted learning rates, as an optax transformation.

    `tx.GradientDescent(1.0, drift_adjusted())` trains with it, on the full loss or on mini-batches; its learning rate
    then only says that a step takes the time 1. In a loop of your own, pass the loss:
    `update(gradient, state, params, value_fn=loss)`.

    **Arguments:**

    - `power`: $p \ge 0$.
    - `maximum`: the largest rate, positive.

    **Returns:**

    An `optax.GradientTransformationExtraArgs` without state.

    **Raises:**

    `ValueError` for a negative power or a maximum that is not positive.
    """
    numbers = _check(power, maximum)

    def init(params: PyTree) -> optax.EmptyState:
        del params
        return optax.EmptyState()

    def update(
        updates: PyTree, state: optax.EmptyState, params: PyTree = None, *, value_fn: Any = None, **extra: Any
    ) -> tuple[PyTree, optax.EmptyState]:
        del extra
        if params is None or value_fn is None:
            _missing()
        # The gradient is known: what is left is the derivative of its function along it.
        rate = _rate(updates, lambda v: jax.jvp(jax.grad(value_fn), (params,), (v,))[1], *numbers)
        return jax.tree.map(lambda g: -rate.astype(g.dtype) * g, updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def _rate(gradient: PyTree, product: Callable[[PyTree], PyTree], power: Array, maximum: Array) -> Array:
    size = _norm(gradient)
    still = size == 0
    direction = jax.tree.map(lambda g: g / jnp.where(still, 1.0, size).astype(g.dtype), gradient)
    bend = _norm(product(direction))
    power, maximum = power.astype(bend.dtype), maximum.astype(bend.dtype)
    flat = bend == 0
    rate = 2 * jnp.where(flat, 1.0, bend) ** -power
    return jnp.where(flat & (power > 0), maximum, jnp.minimum(rate, maximum))


def _norm(tree: PyTree) -> Array:
    return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)))


def _check(power: ArrayLike, maximum: ArrayLike) -> tuple[Array, Array]:
    return check_positive("power", power, zero=True, scalar=True), check_positive("maximum", maximum, scalar=True)


def _missing() -> NoReturn:
    raise ValueError("`update` needs the parameters and the loss: update(gradient, state, params, value_fn=loss).")
