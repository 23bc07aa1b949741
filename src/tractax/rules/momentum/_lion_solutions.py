r"""Lion-K where it is solved: the box that weight decay draws, constant signs, and quadratic losses.

- *Box.* For Lion, $(|\theta_i| - 1/\lambda)_+ \le e^{-\lambda t}(|\theta_i(0)| - 1/\lambda)_+$ on every loss:
  parameters enter $|\theta_i| \le 1/\lambda$ exponentially fast and never leave. In steps of $\eta$ with
  $\eta\lambda \le 1$ the factor is $(1 - \eta\lambda)^k$. On a separable convex loss they end at the minimum, clipped to
  the box, up to $O(\eta)$ in steps.
- *Constant signs.* While no entry $s_i$ of the sign of the gradient changes, from $m = 0$,
  $\theta(t) = -s/\lambda + (\theta_0 + s/\lambda)e^{-\lambda t}$, and the same with $(1 - \eta\lambda)^k$ in steps.
- *Quadratic losses.* With $K = \tfrac12\lVert\cdot\rVert^2$ the flow is linear: along an eigenvector of the Hessian,
  parameter and momentum make a damped oscillator about the minimum of
  $\alpha L + \tfrac{\gamma\lambda}2\lVert\theta\rVert^2$.

Time: of the flow; a step takes $\eta$.

Source: Chen, Liu, Liang, Liu 2023 (arXiv 2310.05898).
"""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, PyTree

from ...core import (
    AbstractRule,
    AbstractSolution,
    AbstractTask,
    Assumption,
    Kind,
    check_positive,
    enforce,
    require,
    tolerance_for,
)
from ...special import damped_oscillation
from ..descent._quadratic_loss import SpectralLoss, convex_assumptions, quadratic_losses
from ._convex_functions import AbsoluteValue, HalfSquare
from ._lion_k import LionK, LionKFlow


class LionBox(eqx.Module):
    r"""The box $|\theta_i| \le 1/\lambda$ that Lion drives the parameters into.

    It holds for every $K$ whose gradient has no entry beyond 1.

    **Arguments:**

    - `weight_decay`: $\lambda > 0$.
    - `learning_rate`: $\eta > 0$ of the steps, with $\eta\lambda \le 1$; `None` for the flow.

    **Raises:**

    `ValueError` for numbers out of these ranges.
    """

    weight_decay: Float[Array, ""]
    learning_rate: Float[Array, ""] | None

    def __init__(self, weight_decay: ArrayLike, learning_rate: ArrayLike | None = None):
        self.weight_decay = decay = check_positive("weight_decay", weight_decay, scalar=True)
        self.learning_rate = None
        if learning_rate is not None:
            rate = check_positive("learning_rate", learning_rate, scalar=True)
            inside = jnp.all(rate * decay.astype(rate.dtype) <= 1)
            self.learning_rate = require(rate, inside, "`learning_rate` must be at most 1 / weight_decay.")

    def excess(self, model: PyTree) -> Float[Array, ""]:
        r"""How far the outermost parameter is out of the box, $\max_i(|\theta_i| - 1/\lambda)_+$: an observable."""
        flat = ravel_pytree(eqx.filter(model, eqx.is_inexact_array))[0]
        return jnp.max(jnp.maximum(jnp.abs(flat) - 1 / self.weight_decay.astype(flat.dtype), 0.0))

    def bound(self, t: ArrayLike, excess: ArrayLike) -> Float[Array, "..."]:
        """How far out it can still be.

        **Arguments:**

        - `t`: the time, non-negative; of steps, a multiple of the learning rate.
        - `excess`: how far out it was at time zero.

        **Returns:**

        The bound, with the broadcast shape.
        """
        t, excess = check_positive("t", t, zero=True), check_positive("excess", excess, zero=True)
        decay = self.weight_decay.astype(t.dtype)
        t, start = jnp.broadcast_arrays(t, excess.astype(t.dtype))
        if self.learning_rate is None:
            return start * jnp.exp(-decay * t)
        rate = self.learning_rate.astype(t.dtype)
        return start * (1 - rate * decay) ** jnp.rint(t / rate)

    def clip(self, minimum: ArrayLike) -> Float[Array, "..."]:
        """Where Lion ends on a separable convex loss.

        **Arguments:**

        - `minimum`: the minimum of the loss without decay, of any shape.
        """
        minimum = jnp.asarray(minimum)
        edge = 1 / self.weight_decay.astype(minimum.dtype)
        return jnp.clip(minimum, -edge, edge)


class LionParameters(eqx.Module):
    """All trainable numbers, shape `(parameters,)`, in the order of `jax.flatten_util.ravel_pytree`."""

    values: Float[Array, " parameters"]


class LionSigns(AbstractSolution[LionParameters]):
    r"""Lion, in steps or as a flow, while no entry of the gradient changes its sign.

    **Attributes:**

    - `start`: the parameters at time zero.
    - `signs`: of the gradient.
    - `weight_decay`: $\lambda$.
    - `learning_rate`: $\eta$ of the steps; `None` for the flow.
    """

    start: LionParameters
    signs: Float[Array, " parameters"]
    weight_decay: Float[Array, ""]
    learning_rate: Float[Array, ""] | None
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: PyTree, task: AbstractTask, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "LionSigns":
        r"""The solution for this model.

        **Arguments:**

        - `model`, `task`: any; exact for as long as no entry of the gradient changes its sign.
        - `rule`: `LionK` or `LionKFlow` with `AbsoluteValue`; steps with $\eta\lambda < 1$.
        - `check`: whether to refuse a gradient that has other signs at the end of the path.

        **Raises:**

        `ValueError` for another rule, or a gradient whose signs change.
        """
        rule = _check_lion(rule)
        flat, gradient = _look(model, task)
        signs, decay = jnp.sign(gradient(flat)), rule.weight_decay.astype(flat.dtype)
        rate = None
        if isinstance(rule, LionK):
            rate = rule.learning_rate.astype(flat.dtype)
            message = "`learning_rate` must be below 1 / weight_decay for LionSigns."
            rate = require(rate, jnp.all(rate * decay < 1), message)
        solution = cls(LionParameters(flat), signs, decay, rate)
        return enforce(solution, cls.__name__, cls.assumptions(model, task, rule)) if check else solution

    @staticmethod
    def assumptions(model: PyTree, task: AbstractTask, rule: AbstractRule | None = None) -> list[Assumption]:
        """What the theory takes for granted: the gradient has the same signs at the start and at the end."""
        decay = _check_lion(rule).weight_decay
        flat, gradient = _look(model, task)
        signs = jnp.sign(gradient(flat))
        # Without decay there is no end; then as far as the parameters themselves reach.
        safe = jnp.where(decay == 0, 1.0, decay).astype(flat.dtype)
        away = flat - signs * (1 + jnp.max(jnp.abs(flat)))
        end = jnp.where(decay == 0, away, -signs / safe)
        changed = jnp.mean((jnp.sign(gradient(end)) != signs).astype(flat.dtype))
        return [Assumption("constant signs of the gradient", changed, tolerance_for(flat))]

    def state(self, t: Float[Array, ""]) -> LionParameters:
        """The parameters at one time; those of steps after the whole number of them next to it."""
        x0, decay = self.start.values, self.weight_decay
        t = t.astype(x0.dtype)
        if self.learning_rate is None:
            time, rate = t, decay
        else:
            # Steps are the flow at a rate a little higher, -log(1 - ηλ)/η.
            sharpness = self.learning_rate * decay
            time = jnp.rint(t / self.learning_rate) * self.learning_rate
            rate = -jnp.log1p(-sharpness) / self.learning_rate
        # At infinity without decay the parameters with a gradient are infinitely far.
        exponent = jnp.where(decay == 0, 0.0, rate * jnp.where(decay == 0, 0.0, time))
        safe = jnp.where(decay == 0, 1.0, decay)
        moved = jnp.where(decay == 0, time, -jnp.expm1(-exponent) / safe)
        return LionParameters(x0 * jnp.exp(-exponent) - jnp.where(self.signs == 0, 0.0, self.signs * moved))

    def reduce(self, model: PyTree) -> LionParameters:
        """The parameters of an actual network."""
        return LionParameters(ravel_pytree(eqx.filter(model, eqx.is_inexact_array))[0])

    def vector_field(self, t: Float[Array, ""], state: LionParameters) -> LionParameters:
        """The velocity of the parameters, along the flow."""
        if self.learning_rate is not None:
            raise ValueError("`rule` must be LionKFlow for a vector field; got the steps of LionK.")
        del t
        return LionParameters(-self.signs - self.weight_decay * state.values)

    def limit(self) -> LionParameters:
        """A corner of the box.

        **Raises:**

        `ValueError` without weight decay.
        """
        decay = require(self.weight_decay, self.weight_decay > 0, "LionSigns has no limit without weight decay.")
        return LionParameters(-self.signs / decay)


class LionQuadratic(AbstractSolution[LionParameters]):
    r"""The flow of Lion-K with $K = \tfrac12\lVert\cdot\rVert^2$ on a convex quadratic loss.

    **Attributes:**

    - `objective`: the loss in the eigenvectors of its Hessian.
    - `start`: the parameters at time zero.
    - `rule`: the flow.
    """

    objective: SpectralLoss
    start: LionParameters
    rule: LionKFlow
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: PyTree, task: AbstractTask, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "LionQuadratic":
        """The solution for this model, whose parameters must be few enough to form their Hessian.

        **Arguments:**

        - `model`, `task`: any whose loss is convex and quadratic in the trainable numbers.
        - `rule`: `LionKFlow` with `HalfSquare`.
        - `check`: whether to refuse a loss that is not; if not, its quadratic approximation is solved.

        **Raises:**

        `ValueError` for another rule, or a loss that is not quadratic or has no minimum.
        """
        flow = _check_quadratic(rule)
        objective = SpectralLoss.about(model, task, jnp.zeros(()))
        start = LionParameters(ravel_pytree(eqx.filter(model, eqx.is_inexact_array))[0])
        solution = cls(objective, start, flow)
        return enforce(solution, cls.__name__, cls.assumptions(model, task, flow)) if check else solution

    @staticmethod
    def assumptions(model: PyTree, task: AbstractTask, rule: AbstractRule | None = None) -> list[Assumption]:
        """What the theory takes for granted: the Hessian is the same elsewhere, and a minimum exists."""
        _check_quadratic(rule)
        return [
            quadratic_losses("quadratic loss", model, task.loss),
            *convex_assumptions(SpectralLoss.about(model, task, jnp.zeros(()))),
        ]

    def state(self, t: Float[Array, ""]) -> LionParameters:
        """The parameters at one time."""
        t = t.astype(self.start.values.dtype)
        alpha, gamma, epsilon, decay = self._numbers()
        curvatures = self.objective.curvatures
        # (x, m)' = A (x - x*, m - m*) with A of trace -2κ and of determinant k.
        own, other = -(decay + epsilon * alpha * curvatures), 1 - epsilon * gamma
        rate, stiffness = (gamma - own) / 2, self._stiffness
        cosine, sine = damped_oscillation(t, rate, stiffness)
        ahead, momentum = self._equilibrium()
        # At the start (x, m) = (0, 0) as measured from the first parameters.
        offset = ahead - cosine * ahead - sine * ((own + rate) * ahead + other * momentum)
        return LionParameters(self.start.values + self.objective.directions @ offset)

    def reduce(self, model: PyTree) -> LionParameters:
        """The parameters of an actual network."""
        return LionParameters(ravel_pytree(eqx.filter(model, eqx.is_inexact_array))[0])

    def limit(self) -> LionParameters:
        r"""The minimum of $\alpha L + \tfrac{\gamma\lambda}2\lVert\theta\rVert^2$."""
        return LionParameters(self.start.values + self.objective.directions @ self._equilibrium()[0])

    @property
    def _stiffness(self) -> Float[Array, " parameters"]:
        alpha, gamma, _, decay = self._numbers()
        return gamma * decay + alpha * self.objective.curvatures

    def _equilibrium(self) -> tuple[Array, Array]:
        """Where each mode comes to rest, measured from its start, and its momentum there."""
        alpha, gamma, _, decay = self._numbers()
        slope, curvatures = self.objective.initial.gradient, self.objective.curvatures
        here = self.objective.directions.T @ self.start.values
        # α(g + h x) + γλ(x₀ + x) = 0; a flat mode without decay stays.
        stiffness = self._stiffness
        flat = stiffness == 0
        ahead = jnp.where(flat, 0.0, -(alpha * slope + gamma * decay * here) / jnp.where(flat, 1.0, stiffness))
        return ahead, -alpha * (slope + curvatures * ahead) / gamma

    def _numbers(self) -> list[Array]:
        rule, dtype = self.rule, self.start.values.dtype
        numbers = (rule.gradient_rate, rule.momentum_decay, rule.lookahead, rule.weight_decay)
        return [x.astype(dtype) for x in numbers]


def _look(model: PyTree, task: AbstractTask):
    """The parameters as one array, and the gradient as a function of it."""
    params, static = eqx.partition(model, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(params)
    return flat, jax.grad(lambda flat: task.loss(eqx.combine(unravel(flat), static)))


def _check_lion(rule: AbstractRule | None) -> LionK | LionKFlow:
    if isinstance(rule, LionK | LionKFlow) and isinstance(rule.function, AbsoluteValue):
        return rule
    raise ValueError(f"`rule` must be LionK or LionKFlow with AbsoluteValue() for LionSigns; got {rule!r}.")


def _check_quadratic(rule: AbstractRule | None) -> LionKFlow:
    if isinstance(rule, LionKFlow) and isinstance(rule.function, HalfSquare):
        return rule
    raise ValueError(f"`rule` must be LionKFlow with HalfSquare() for LionQuadratic; got {rule!r}.")
