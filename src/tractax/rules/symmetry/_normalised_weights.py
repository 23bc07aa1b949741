r"""Weights in front of a normalisation: their squared norm grows with every gradient, and decay balances it.

Set-up: a block $w$ whose length the loss does not see, under gradient descent with learning rate $\eta$ and weight decay
$\gamma$. The gradient is orthogonal to $w$ and falls with its length: $N = \lVert w\rVert^2$ times
$\lVert g\rVert^2$ is $\hat G^2$, the squared gradient at the point of unit length in the same direction.

- The modified flow of first order, $\dot w = -g - \gamma w - \tfrac\eta2Hg$, has
  $\dot N = \eta\lVert g\rVert^2 - 2\gamma N$, so that $N^2$ is an exponential moving average of squared gradients:
  $N(t)^2 = e^{-4\gamma t}N(0)^2 + 2\eta\int_0^te^{-4\gamma(t-s)}\hat G(s)^2ds$. The direction moves with the effective
  learning rate $\eta/N$, as in RMSProp. Exact for that flow; for descent, up to $O(\eta)$.
- Descent itself at constant $\hat G$, exactly: $N^2 \to \eta\hat G^2/(\gamma(2-\eta\gamma))$, and from then on every step
  turns $w$ by the angle $\arccos(1-\eta\gamma)\approx\sqrt{2\eta\gamma}$, whatever $\hat G$ is.

Loss: any, without the penalty. Time: a step takes $\eta$.

Source: Kunin, Sagastuy-Brena, Ganguli, Yamins, Tanaka 2021 (arXiv 2012.04728); Tanaka, Kunin 2021 (arXiv 2105.02716).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ...core import as_float_array, check_positive, check_times, require
from ...special import exprel


def norm_from_gradients(
    ts: ArrayLike,
    squared_gradients: ArrayLike,
    initial: ArrayLike,
    learning_rate: ArrayLike,
    weight_decay: ArrayLike = 0.0,
) -> Float[Array, "times *units"]:
    r"""$N(t) = \lVert w\rVert^2$ from the gradients met on the way,
    $N(t)^2 = e^{-4\gamma t}N(0)^2 + 2\eta\int_0^te^{-4\gamma(t-s)}\hat G(s)^2ds$.

    Between the times given, $\hat G^2$ is taken to be linear, and the integral of that is exact.

    **Arguments:**

    - `ts`: times at which gradients are known, increasing, shape `(times,)`; the first is where `initial` holds.
    - `squared_gradients`: $\hat G^2 = \lVert w\rVert^2\lVert g\rVert^2$ at these times, shape `(times,)`, or
      `(times, units)` for several blocks.
    - `initial`: $N$ at the first time, positive, a scalar or shape `(units,)`.
    - `learning_rate`, `weight_decay`: $\eta, \gamma \ge 0$.

    **Returns:**

    $N$ at every time, of the shape of `squared_gradients`.

    **Raises:**

    `ValueError` for times that do not increase, negative squares, shapes that do not fit, a norm that is not positive.
    """
    squares = check_positive("squared_gradients", squared_gradients, zero=True)
    times = check_times("ts", ts, squares.dtype)
    if squares.shape[:1] != times.shape:
        raise ValueError(f"`squared_gradients` must have one row for each of {times.size} times; got {squares.shape}.")
    start = check_positive("initial", initial).astype(squares.dtype)
    if start.shape not in ((), squares.shape[1:]):
        raise ValueError(f"`initial` must be a scalar or have shape {squares.shape[1:]}; got {start.shape}.")
    eta = check_positive("learning_rate", learning_rate, zero=True).astype(squares.dtype)
    rate = 4 * check_positive("weight_decay", weight_decay, zero=True).astype(squares.dtype)

    def advance(square: Array, interval: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        gap, before, after = interval
        x = -rate * gap
        # Weights of both ends: the integral of the kernel, and of the kernel times the line from 0 to 1.
        whole, rising = exprel(x), _rising(x)
        gained = 2 * eta * gap * ((whole - rising) * before + rising * after)
        square = jnp.exp(x) * square + gained
        return square, square

    first = jnp.broadcast_to(start, squares.shape[1:]) ** 2
    rest = jax.lax.scan(advance, first, (jnp.diff(times), squares[:-1], squares[1:]))[1]
    return jnp.sqrt(jnp.concatenate([first[None, ...], rest]))


def equilibrium_norm(learning_rate: ArrayLike, weight_decay: ArrayLike, gradient: ArrayLike) -> Float[Array, "..."]:
    r"""The squared norm $N = \hat G\sqrt{\eta/(\gamma(2-\eta\gamma))}$ at which decay and steps of descent balance.

    **Arguments:**

    - `learning_rate`, `weight_decay`: $\eta, \gamma > 0$ with $\eta\gamma < 2$.
    - `gradient`: $\hat G \ge 0$, the norm of the gradient at unit length, of any shape.

    **Returns:**

    $N$, of the shape of `gradient`.

    **Raises:**

    `ValueError` for numbers out of these ranges.
    """
    size = check_positive("gradient", gradient, zero=True)
    eta, gamma = _check_rates(learning_rate, weight_decay)
    return size * jnp.sqrt(eta / (gamma * (2 - eta * gamma))).astype(size.dtype)


def equilibrium_angle(learning_rate: ArrayLike, weight_decay: ArrayLike) -> Float[Array, ""]:
    r"""The angle $\arccos(1-\eta\gamma)$ by which every step turns the weights once their norm has settled.

    **Arguments:**

    - `learning_rate`, `weight_decay`: $\eta, \gamma > 0$ with $\eta\gamma < 2$.

    **Returns:**

    The angle in radians.

    **Raises:**

    `ValueError` for numbers out of these ranges.
    """
    eta, gamma = _check_rates(learning_rate, weight_decay)
    # arccos itself loses half of the digits at small angles.
    return 2 * jnp.arcsin(jnp.sqrt(eta * gamma / 2))


def angle_between(first: ArrayLike, second: ArrayLike) -> Float[Array, "..."]:
    """The angle between two vectors, along the last axis, accurate for small ones too.

    **Arguments:**

    - `first`, `second`: arrays of the same shape, such as a block before and after a step.

    **Returns:**

    Angles from 0 to π, of that shape without its last axis; NaN for a vector of zeros.

    **Raises:**

    `ValueError` for different shapes.
    """
    first, second = as_float_array("first", first), as_float_array("second", second)
    if first.shape != second.shape or first.ndim == 0:
        raise ValueError(f"`first` and `second` must have one shape; got {first.shape} and {second.shape}.")
    u, v = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (first, second))
    return 2 * jnp.arctan2(jnp.linalg.norm(u - v, axis=-1), jnp.linalg.norm(u + v, axis=-1))


def _rising(x: Array) -> Array:
    r"""$\int_0^1s\,e^{x(1-s)}ds = (e^x - 1 - x)/x^2$."""
    small = jnp.abs(x) < 0.5
    safe = jnp.where(small, 1.0, x)
    # Taylor: Σ xᵏ/(k + 2)!, by Horner.
    series, y = jnp.ones_like(x), jnp.where(small, x, 0.0)
    for k in range(14, 2, -1):
        series = 1 + series * y / k
    return jnp.where(small, series / 2, (exprel(safe) - 1) / safe)


def _check_rates(learning_rate: ArrayLike, weight_decay: ArrayLike) -> tuple[Array, Array]:
    eta = check_positive("learning_rate", learning_rate)
    gamma = check_positive("weight_decay", weight_decay).astype(eta.dtype)
    gamma = require(gamma, jnp.all(eta * gamma < 2), "`weight_decay` must lie below 2 / learning_rate.")
    return eta, gamma
