"""Inertial flow: gradient descent with momentum, in continuous time."""

from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ...core import AbstractFlowRule, Objective, check_fraction, check_positive
from ..descent._weight_decay import check_decay


class InertialFlow(AbstractFlowRule[tuple[PyTree, PyTree]]):
    r"""$m\,\ddot\theta + c\,\dot\theta = -(\nabla L(\theta) + \gamma\,\theta)$, from rest.

    The state is the parameters and their velocities.

    **Arguments:**

    - `mass`: $m > 0$.
    - `friction`: $c \ge 0$. Without any, energy is conserved.
    - `weight_decay`: $\gamma \ge 0$, the coefficient of the penalty $\tfrac\gamma2\lVert\theta\rVert^2$.

    **Raises:**

    `ValueError` for a mass that is not positive, a negative friction or decay.
    """

    mass: Float[Array, ""]
    friction: Float[Array, ""]
    weight_decay: Float[Array, ""]

    def __init__(self, mass: ArrayLike, friction: ArrayLike = 1.0, weight_decay: ArrayLike = 0.0):
        self.mass = check_positive("mass", mass, scalar=True)
        self.friction = check_positive("friction", friction, zero=True, scalar=True)
        self.weight_decay = check_decay(weight_decay)

    @classmethod
    def from_momentum(
        cls, learning_rate: ArrayLike, momentum: ArrayLike, weight_decay: ArrayLike = 0.0
    ) -> "InertialFlow":
        r"""The flow near $v \leftarrow \beta v - \eta(g + \gamma\theta)$, $\theta \leftarrow \theta + v$.

        A step takes the time $\eta$. Once under way, steps and flow differ by $O(\eta^2)$ at a fixed time. From rest, the
        flow starts more slowly, and stays behind the steps by $\tfrac{\eta}{2(1-\beta)}\nabla L$ to first order.

        **Arguments:**

        - `learning_rate`: $\eta > 0$.
        - `momentum`: $0 \le \beta < 1$.
        - `weight_decay`: $\gamma \ge 0$.

        **Returns:**

        The flow of mass $\eta(1 + \beta)/2$ and friction $1 - \beta$.

        **Raises:**

        `ValueError` for numbers out of these ranges.
        """
        eta = check_positive("learning_rate", learning_rate, scalar=True)
        beta = check_fraction("momentum", momentum).astype(eta.dtype)
        return cls(eta * (1 + beta) / 2, 1 - beta, weight_decay)

    def init(self, params: PyTree) -> tuple[PyTree, PyTree]:
        """The parameters, at rest."""
        return params, jax.tree.map(jnp.zeros_like, params)

    def params(self, state: tuple[PyTree, PyTree]) -> PyTree:
        """The parameters, without their velocities."""
        return state[0]

    def vector_field(self, t: Any, state: tuple[PyTree, PyTree], objective: Objective) -> tuple[PyTree, PyTree]:
        """The velocities and the accelerations."""
        del t
        params, velocity = state

        def acceleration(v: Array, g: Array) -> Array:
            mass, friction = (x.astype(v.dtype) for x in (self.mass, self.friction))
            return -(friction * v + g) / mass

        return velocity, jax.tree.map(acceleration, velocity, objective.penalised(self.weight_decay).gradient(params))

    def terms(self, state: tuple[PyTree, PyTree], t0: Any, t1: Any, *, key: PRNGKeyArray | None) -> diffrax.ODETerm:
        """One `diffrax.ODETerm`."""
        del state, t0, t1, key
        return diffrax.ODETerm(self.vector_field)
