r"""Momentum from layer to layer: residual networks, and mixtures of experts, as heavy-ball descent.

A layer with momentum maps $p\leftarrow\mu p - f(x)$, $x\leftarrow x + \gamma p$, where a residual network has $\mu = 0$.
If the experts act as $f(x) = sx$, a layer multiplies $(x, \gamma p)$ by

$$\begin{pmatrix}1 - \gamma s & \mu\\ -\gamma s & \mu\end{pmatrix},$$

and signals decay with depth if and only if $\lvert\mu\rvert < 1$ and $0 < \gamma s < 2(1 + \mu)$: momentum stabilises
stiff experts, up to a factor of two.

Time: layers. Source: Teo and Nguyen 2024 (arXiv 2410.14574).
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ...core import as_float_array, check_count, check_finite, check_positive, require


class MomentumLayers(eqx.Module):
    r"""Layers that share their experts, $p\leftarrow\mu p - f(x)$, $x\leftarrow x + \gamma p$ from $p = 0$.

    **Arguments:**

    - `experts`: $f$, a function or module from an array to one of the same shape.
    - `step`: $\gamma > 0$.
    - `momentum`: $\mu$; 0 for residual layers.
    - `depth`: the number of layers.

    **Raises:**

    `ValueError` for a step that is not positive or a depth that is no whole number.
    """

    experts: Callable
    step: Float[Array, ""]
    momentum: Float[Array, ""]
    depth: int = eqx.field(static=True)

    def __init__(self, experts: Callable, step: ArrayLike, momentum: ArrayLike, depth: PyTree):
        self.experts = experts
        self.step = check_positive("step", step, scalar=True)
        self.momentum = check_finite("momentum", momentum, scalar=True)
        self.depth = check_count("depth", depth, least=0)

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The signal behind the last layer."""
        return self.signals(x)[-1]

    def signals(self, x: Float[Array, "*shape"]) -> Float[Array, "layers *shape"]:
        """The signal before the first layer and behind each, shape `(depth + 1, ...)`."""
        momentum, step = self.momentum.astype(x.dtype), self.step.astype(x.dtype)

        def layer(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
            x, p = carry
            p = momentum * p - self.experts(x)
            x = x + step * p
            return (x, p), x

        _, signals = jax.lax.scan(layer, (x, jnp.zeros_like(x)), None, length=self.depth)
        return jnp.concatenate([x[None], signals])


def momentum_layer_matrix(stiffness: ArrayLike, momentum: ArrayLike) -> Float[Array, "2 2"]:
    r"""What one layer multiplies $(x, \gamma p)$ by, for experts $f(x) = sx$.

    **Arguments:**

    - `stiffness`: $\gamma s$.
    - `momentum`: $\mu$.
    """
    stiffness, momentum = as_float_array("stiffness", stiffness), as_float_array("momentum", momentum)
    return jnp.stack([jnp.stack([1 - stiffness, momentum]), jnp.stack([-stiffness, momentum])])


def momentum_layer_threshold(momentum: ArrayLike) -> Float[Array, ""]:
    r"""$2(1 + \mu)$: signals stay bounded for $0 < \gamma s$ below it.

    **Arguments:**

    - `momentum`: $\mu$, between -1 and 1.

    **Raises:**

    `ValueError` for a momentum out of range, where no layer is stable.
    """
    mu = check_finite("momentum", momentum)
    return 2 * (1 + require(mu, jnp.all(jnp.abs(mu) < 1), f"`momentum` must lie between -1 and 1; got {momentum}."))
