r"""The differential equations that momentum methods follow.

With learning rate $s$, time $t = k\sqrt s$ and $\sqrt\mu = (1 - \beta)/((1 + \beta)\sqrt s)$ for a constant momentum
$\beta$, at low resolution (order 1, from rest)

$$\ddot\theta + 2\sqrt\mu\,\dot\theta + \nabla L = 0,\qquad \ddot\theta + \tfrac rt\,\dot\theta + \nabla L = 0,$$

the second for Nesterov's growing momentum $k/(k + r)$. High resolution (order 2) tells the methods apart:

$$\ddot\theta + 2\sqrt\mu\,\dot\theta + (1 + \sqrt{\mu s})\nabla L = 0 \quad\text{(heavy ball)},\qquad
\ddot\theta + 2\sqrt\mu\,\dot\theta + \sqrt s\,H\dot\theta + (1 + \sqrt{\mu s})\nabla L = 0 \quad\text{(Nesterov)},$$

$$\ddot\theta + \tfrac r\tau\,\dot\theta + \sqrt s\,H\dot\theta + \big(1 + \tfrac{r\sqrt s}{2\tau}\big)\nabla L = 0,\qquad
\tau = t + \tfrac r2\sqrt s \quad\text{(Nesterov, growing momentum)},$$

with the initial velocity $-c\sqrt s\,\nabla L(\theta_0)$ that the first step asks for. The distance to the steps at a
fixed time is $O(\sqrt s)$ at order 1 and $O(s)$ at order 2.

The state holds $u = \dot\theta + c\sqrt s\,\nabla L$ in place of the velocity: it starts from zero on every loss, and for
the growing momentum, $c = 1$, the Hessian drops out of the equations.

Sources: Su, Boyd, Candès 2016 (arXiv 1503.01243); Shi, Du, Jordan, Su 2018 (arXiv 1810.08907), who start the equations
of constant momentum from another velocity, with which order 2 is $O(\sqrt s)$ from the steps as well.
"""

import abc
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ...core import AbstractFlowRule, Objective, check_fraction, check_positive, require
from ..descent._modified_flow import check_order
from ..descent._weight_decay import check_decay
from ._nesterov import check_friction


class MovingParameters(eqx.Module):
    r"""The parameters, and the part $u = \dot\theta + c\sqrt s\,\nabla L$ of their velocity that starts from zero."""

    params: PyTree
    drive: PyTree


class FlowCoefficients(NamedTuple):
    r"""Of $\dot\theta = u - p\nabla L$, $\dot u = -a\dot\theta - b\nabla L + qH\dot\theta$.

    **Attributes:**

    - `friction`, `force`: $a$ and $b$.
    - `kick`: $p = c\sqrt s$, by which the initial velocity is $-p\nabla L$.
    - `bend`: $q$; `None` where the Hessian drops out.
    """

    friction: Float[Array, ""]
    force: Float[Array, ""]
    kick: Float[Array, ""]
    bend: Float[Array, ""] | None


class AbstractAcceleratedFlow(AbstractFlowRule[MovingParameters]):
    """A flow of second order in time, in the parameters and the drive $u$."""

    learning_rate: eqx.AbstractVar[Float[Array, ""]]
    weight_decay: eqx.AbstractVar[Float[Array, ""]]

    @abc.abstractmethod
    def coefficients(self, t: Any) -> FlowCoefficients:
        """The coefficients of the equations at one time."""

    def init(self, params: PyTree) -> MovingParameters:
        """The parameters, with $u = 0$."""
        return MovingParameters(params, jax.tree.map(jnp.zeros_like, params))

    def params(self, state: MovingParameters) -> PyTree:
        """The parameters alone."""
        return state.params

    def vector_field(self, t: Any, state: MovingParameters, objective: Objective) -> MovingParameters:
        """The velocities of the parameters and of the drive."""
        friction, force, kick, bend = self.coefficients(t)

        gradient_of = objective.penalised(self.weight_decay).gradient
        if bend is None:
            gradient, hessian = gradient_of(state.params), None
        else:
            gradient, hessian = jax.linearize(gradient_of, state.params)
        velocity = jax.tree.map(lambda u, g: u - kick.astype(u.dtype) * g, state.drive, gradient)
        drive = jax.tree.map(lambda v, g: -friction.astype(v.dtype) * v - force.astype(v.dtype) * g, velocity, gradient)
        if bend is not None and hessian is not None:
            drive = jax.tree.map(lambda u, h: u + bend.astype(u.dtype) * h, drive, hessian(velocity))
        return MovingParameters(velocity, drive)

    def terms(self, state: MovingParameters, t0: Any, t1: Any, *, key: PRNGKeyArray | None) -> diffrax.ODETerm:
        """One `diffrax.ODETerm`."""
        del state, t0, t1, key
        return diffrax.ODETerm(self.vector_field)


class HeavyBallFlow(AbstractAcceleratedFlow):
    r"""What `HeavyBall` with the same arguments follows, up to $O(\sqrt s)$ or $O(s)$ at a fixed time.

    Compare at the times $t = k\sqrt s$ of its steps. Order 2 starts with the velocity of its first step, and takes a
    Hessian-vector product; with `order=1`, from rest, nothing but a gradient.

    **Arguments:**

    - `learning_rate`: $s > 0$; may be an array under `vmap`, as the others.
    - `momentum`: $0 \le \beta < 1$.
    - `order`: 1 for the equation of low resolution, 2 for that of high resolution.
    - `first_step`: by which the learning rate of the first step is multiplied; order 1 does not see it.
    - `weight_decay`: $\gamma \ge 0$, the coefficient of the penalty $\tfrac\gamma2\lVert\theta\rVert^2$.

    **Raises:**

    `ValueError` for a learning rate that is not positive, a momentum outside of $[0, 1)$, another order, or a negative
    first step or decay.
    """

    learning_rate: Float[Array, ""]
    momentum: Float[Array, ""]
    first_step: Float[Array, ""]
    weight_decay: Float[Array, ""]
    order: int = eqx.field(static=True)

    def __init__(
        self,
        learning_rate: ArrayLike,
        momentum: ArrayLike = 0.9,
        order: PyTree = 2,
        *,
        first_step: ArrayLike = 1.0,
        weight_decay: ArrayLike = 0.0,
    ):
        self.learning_rate = check_positive("learning_rate", learning_rate, scalar=True)
        self.momentum = check_fraction("momentum", momentum)
        self.first_step = check_positive("first_step", first_step, zero=True, scalar=True)
        self.weight_decay = check_decay(weight_decay)
        self.order = check_order(order, 2)

    def coefficients(self, t: Any) -> FlowCoefficients:
        """The coefficients of the equations, the same at all times."""
        del t
        still = _constant_friction(self.learning_rate, self.momentum)
        if self.order == 1:
            return still
        dtype = self.learning_rate.dtype
        beta, root = self.momentum.astype(dtype), jnp.sqrt(self.learning_rate)
        kick = (self.first_step.astype(dtype) - (1 + beta) / 4) * root
        return FlowCoefficients(still.friction, 2 / (1 + beta), kick, kick)


class NesterovFlow(AbstractAcceleratedFlow):
    r"""What `Nesterov` with the same arguments follows, up to $O(\sqrt s)$ or $O(s)$ at a fixed time.

    Compare at the times $t = k\sqrt s$ of its steps; the shift in time of the growing momentum is built in. Only order 2
    with a constant momentum takes a Hessian-vector product.

    **Arguments:**

    - `learning_rate`: $s > 0$; may be an array under `vmap`, as the others.
    - `momentum`: $0 \le \beta < 1$; `None` for the growing $k/(k + r)$.
    - `order`: 1 for the equation of low resolution, 2 for that of high resolution.
    - `friction`: $r$, at least 1, of the growing momentum.
    - `weight_decay`: $\gamma \ge 0$, the coefficient of the penalty $\tfrac\gamma2\lVert\theta\rVert^2$.

    **Raises:**

    `ValueError` for a learning rate that is not positive, a momentum outside of $[0, 1)$, another order, a friction below
    1, or a negative decay.
    """

    learning_rate: Float[Array, ""]
    momentum: Float[Array, ""] | None
    friction: Float[Array, ""]
    weight_decay: Float[Array, ""]
    order: int = eqx.field(static=True)

    def __init__(
        self,
        learning_rate: ArrayLike,
        momentum: ArrayLike | None = None,
        order: PyTree = 2,
        *,
        friction: ArrayLike = 3.0,
        weight_decay: ArrayLike = 0.0,
    ):
        self.learning_rate = check_positive("learning_rate", learning_rate, scalar=True)
        self.momentum = None if momentum is None else check_fraction("momentum", momentum)
        self.friction = check_friction(friction)
        self.weight_decay = check_decay(weight_decay)
        self.order = check_order(order, 2)

    def coefficients(self, t: Any) -> FlowCoefficients:
        """The coefficients of the equations at one time."""
        root = jnp.sqrt(self.learning_rate)
        if self.momentum is not None:
            still = _constant_friction(self.learning_rate, self.momentum)
            if self.order == 1:
                return still
            beta = self.momentum.astype(root.dtype)
            kick = 3 * (1 + beta) / 4
            return FlowCoefficients(still.friction, 2 / (1 + beta), kick * root, (kick - 1) * root)
        t, r = jnp.asarray(t, root.dtype), self.friction.astype(root.dtype)
        if self.order == 2:
            later = t + r / 2 * root
            return FlowCoefficients(r / later, 1 + r * root / (2 * later), root, None)
        # From rest, r v / t is r times the acceleration at first.
        start = t == 0
        friction = jnp.where(start, 0.0, r / jnp.where(start, 1.0, t))
        return FlowCoefficients(friction, jnp.where(start, 1 / (1 + r), 1.0), jnp.zeros_like(root), None)

    def lyapunov(self, t: Any, state: MovingParameters, objective: Objective, minimum: PyTree) -> Float[Array, ""]:
        r"""$\tfrac{2t^2}{r - 1}(L - L_*) + (r - 1)\lVert\theta - \theta_* + \tfrac{t}{r - 1}\dot\theta\rVert^2$.

        On a convex loss it never increases along the flow of growing momentum and order 1, if $r \ge 3$; `nesterov_bound`
        follows. Record it with `tx.OfState(functools.partial(flow.lyapunov, minimum=...))`.

        **Arguments:**

        - `t`, `state`, `objective`: as of a vector field.
        - `minimum`: a model at a minimum of the loss, weight decay included.

        **Raises:**

        `ValueError` for another flow.
        """
        if self.momentum is not None or self.order != 1:
            raise ValueError("`lyapunov` belongs to the growing momentum of order 1; this is another flow.")
        best = eqx.filter(minimum, eqx.is_inexact_array)

        penalised = objective.penalised(self.weight_decay)
        height = penalised.loss(state.params) - penalised.loss(best)
        t, r = jnp.asarray(t, height.dtype), self.friction.astype(height.dtype)

        def offset(w: Array, v: Array, w_best: Array) -> Array:
            return jnp.sum((w - w_best + (t / (r - 1)).astype(w.dtype) * v) ** 2).astype(height.dtype)

        # Of order 1, the drive is the velocity.
        offsets = jax.tree.leaves(jax.tree.map(offset, state.params, state.drive, best))
        return 2 * t**2 / (r - 1) * height + (r - 1) * sum(offsets)


def nesterov_bound(t: ArrayLike, distance: ArrayLike, friction: ArrayLike = 3.0) -> Float[Array, "..."]:
    r"""$(r - 1)^2\lVert\theta_0 - \theta_*\rVert^2/(2t^2)$, above $L - L_*$ along the growing-momentum flow of order 1.

    It holds for every convex loss and $r \ge 3$; for $r = 3$ it is $2\lVert\theta_0 - \theta_*\rVert^2/t^2$.

    **Arguments:**

    - `t`: the time, positive.
    - `distance`: $\lVert\theta_0 - \theta_*\rVert$, to any minimum.
    - `friction`: $r$, at least 3.

    **Raises:**

    `ValueError` for numbers out of these ranges.
    """
    t, distance = check_positive("t", t), check_positive("distance", distance, zero=True)
    r = check_positive("friction", friction)
    r = require(r, jnp.all(r >= 3), "`friction` must be at least 3 for a bound of 1/t².")
    t, distance, r = jnp.broadcast_arrays(*(x.astype(jnp.result_type(t, distance, r)) for x in (t, distance, r)))
    return ((r - 1) * distance / t) ** 2 / 2


def _constant_friction(learning_rate: Array, momentum: Array) -> FlowCoefficients:
    """Low resolution, from rest."""
    beta = momentum.astype(learning_rate.dtype)
    friction = 2 * (1 - beta) / ((1 + beta) * jnp.sqrt(learning_rate))
    return FlowCoefficients(friction, jnp.ones_like(friction), jnp.zeros_like(friction), None)
