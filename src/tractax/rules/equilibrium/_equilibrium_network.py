r"""Networks whose answer is an equilibrium, and learning tasks for them.

A force $F(u, x)$ moves the units, $\dot u = F(u, x)$, and the network answers with $P\,u_*$, where $F(u_*, x) = 0$. For
complex $u$ the force must be holomorphic: sums, products, `tanh`, `exp`, … , but neither `abs` nor rectifiers.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, PyTree

from ...core import AbstractTask, as_float_array, check_matrix

_NEWTON_STEPS = 50


class AbstractEquilibriumModel(eqx.Module):
    """A network that answers an input with the equilibrium of its units."""

    @property
    @abc.abstractmethod
    def units(self) -> int:
        """The number of units."""

    @abc.abstractmethod
    def force(self, u: Inexact[Array, " units"], x: Inexact[Array, " in"]) -> Inexact[Array, " units"]:
        """The velocity of the units in the state `u`, real or complex, under the input `x`."""

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, " units"]:
        """The equilibrium that Newton's method reaches from rest, $u = 0$; NaN where it reaches none."""
        return root(lambda u: self.force(u, x), jnp.zeros(self.units, x.dtype))


class EquilibriumNetwork(AbstractEquilibriumModel):
    r"""$F(u, x) = -u + W\phi(u) + b + x$.

    **Arguments:**

    - `weights`: $W$, shape `(units, units)`, not symmetric in general.
    - `bias`: $b$, shape `(units,)`; zero by default.
    - `activation`: $\phi$, a holomorphic function of numbers, such as `jnp.tanh`; `None` for a linear network.

    **Raises:**

    `ValueError` for shapes that do not fit, or NaN.
    """

    weights: Float[Array, "units units"]
    bias: Float[Array, " units"]
    activation: Callable | None = eqx.field(static=True)

    def __init__(self, weights: PyTree, bias: PyTree = None, activation: PyTree = None):
        size = as_float_array("weights", weights).shape[:1]
        self.weights = check_matrix("weights", weights, (None, *size))
        dtype = self.weights.dtype
        self.bias = jnp.zeros(size, dtype) if bias is None else check_matrix("bias", bias, size).astype(dtype)
        if activation is not None and not callable(activation):
            raise ValueError(f"`activation` must be a function or None; got {activation!r}.")
        self.activation = activation

    @property
    def units(self) -> int:
        """The number of units."""
        return self.bias.shape[0]

    def force(self, u: Inexact[Array, " units"], x: Inexact[Array, " units"]) -> Inexact[Array, " units"]:
        """The velocity of the units."""
        active = u if self.activation is None else self.activation(u)
        return -u + self.weights @ active + self.bias + x


class EquilibriumTask(AbstractTask):
    r"""Mean squared error of the answers, $L = \tfrac1{2n}\sum_i\lVert P\,u_*(x_i) - y_i\rVert^2$.

    **Arguments:**

    - `inputs`: $x_i$, one example a row; for an `EquilibriumNetwork` shape `(examples, units)`.
    - `targets`: $y_i$, shape `(examples, out)`.
    - `readout`: $P$, fixed, shape `(out, units)`.

    **Raises:**

    `ValueError` for shapes that do not fit, or NaN.
    """

    inputs: Float[Array, "examples in"]
    targets: Float[Array, "examples out"]
    readout: Float[Array, "out units"]

    def __init__(self, inputs: PyTree, targets: PyTree, readout: PyTree):
        self.inputs = check_matrix("inputs", inputs)
        dtype = self.inputs.dtype
        self.readout = check_matrix("readout", readout).astype(dtype)
        self.targets = check_matrix("targets", targets, (self.inputs.shape[0], self.readout.shape[0])).astype(dtype)

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """The loss of an equilibrium network."""
        check_network(model, self)
        residuals = jax.vmap(model)(self.inputs) @ self.readout.T - self.targets
        return jnp.mean(jnp.sum(residuals**2, axis=1)) / 2

    def error(self, u: Inexact[Array, " units"], y: Inexact[Array, " out"]) -> Inexact[Array, " units"]:
        r"""$P^\top(Pu - y)$, the gradient of one example's loss in the state, holomorphic in $u$."""
        return self.readout.T @ (self.readout @ u - y)


def check_network(model: Any, task: Any) -> None:
    """Refuses a model that is no equilibrium network, a task of another kind, or sizes that do not fit."""
    if not isinstance(task, EquilibriumTask):
        raise ValueError(f"`task` must be an EquilibriumTask; got {type(task).__name__}.")
    if not isinstance(model, AbstractEquilibriumModel):
        raise ValueError(f"`model` must be an AbstractEquilibriumModel; got {type(model).__name__}.")
    if task.readout.shape[1] != model.units:
        raise ValueError(
            f"`task` must have a readout of the model's {model.units} units; got shape {task.readout.shape}."
        )


def root(function: Callable[[Array], Array], start: Inexact[Array, " units"]) -> Inexact[Array, " units"]:
    """A root of a real or holomorphic function by damped Newton steps, with the derivatives of an implicit function.

    NaN where the method does not converge.
    """
    complex_valued = jnp.iscomplexobj(start)
    # A step of this size, being the last, leaves an error of the order of its square.
    small = jnp.sqrt(jnp.finfo(start.dtype).eps) / 100

    def newton(f: Callable[[Array], Array], u: Array) -> Array:
        jacobian = jax.jacfwd(f, holomorphic=complex_valued)
        fractions = jnp.asarray(0.5 ** np.arange(8), u.dtype)

        def goes_on(state: tuple[Array, Array, Array]) -> Array:
            u, step, count = state
            return (count < _NEWTON_STEPS) & ~(jnp.linalg.norm(step) <= small * (1 + jnp.linalg.norm(u)))

        def improve(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            u, _, count = state
            step = jnp.linalg.solve(jacobian(u), f(u))
            # Far from the root a whole step may lead away: the best of its fractions.
            tries = u[None, :] - fractions[:, None] * step[None, :]
            sizes = jnp.linalg.norm(jax.vmap(f)(tries), axis=1)
            best = jnp.argmin(jnp.where(jnp.isnan(sizes), jnp.inf, sizes))
            return tries[best], step, count + 1

        u, step, _ = jax.lax.while_loop(goes_on, improve, (u, jnp.full_like(u, jnp.inf), jnp.asarray(0)))
        size = jnp.linalg.norm(u)
        return jnp.where((jnp.linalg.norm(step) <= small * (1 + size)) & (size < jnp.inf), u, jnp.nan)

    def solve(linear: Callable[[Array], Array], y: Array) -> Array:
        return jnp.linalg.solve(jax.vmap(linear)(jnp.eye(y.size, dtype=y.dtype)).T, y)

    return jax.lax.custom_root(function, start, newton, solve)
