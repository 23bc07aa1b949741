r"""A rectifier unit that learns another one on Gaussian inputs: length, angle and readout.

Set-up. $f(x) = a\,\sigma(w\cdot x)$ and a teacher $a_*\sigma(w_*\cdot x)$, $x\sim\mathcal N(0, I)$ in any dimension, loss
$L = \tfrac12\mathbb E(f - f^*)^2$, gradient flow $\tau\dot w = -r_w\partial_wL$, $\tau\dot a = -r_a\partial_aL$ (a
readout that is not trained has $r_a = 0$).

Theory. With $\rho = \lVert w\rVert$, $R = \lVert w_*\rVert$, the angle $\theta$ between $w$ and $w_*$, and
$j(\theta) = [\sin\theta + (\pi-\theta)\cos\theta]/\pi$,

$$\tau\dot\rho = \tfrac{r_w}2a\,(a_*Rj - a\rho),\quad
\tau\dot\theta = -\frac{r_waa_*R}{2\pi\rho}(\pi-\theta)\sin\theta,\quad
\tau\dot a = \tfrac{r_a}2\rho\,(a_*Rj - a\rho),$$

$L = \tfrac14[a^2\rho^2 + a_*^2R^2 - 2aa_*\rho Rj]$. The ray opposite to the teacher is invariant; from everywhere else
a unit with the right sign of $a$ finds it, with $\dot\theta\to-\tfrac{r_wa^2}{2\tau}\theta$ in the end. The flow
conserves $r_wa^2 - r_a\rho^2$.

Source: Tian 2017, arXiv 1703.00560 (fixed readout); with a trained readout derived here.
"""

import math
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import AbstractReducedFlow, AbstractRule, Assumption, FlowPath, Kind, enforce, integrate_flow, require
from ..rules import GradientFlow, check_flow, no_weight_decay
from ..special import safe_sqrt
from ._arc_cosine import angle_between
from ._gaussian_relu_task import GaussianReLUTask, check_student
from ._network import TwoLayerNetwork


class PolarUnit(eqx.Module):
    """A unit beside its teacher.

    **Attributes:**

    - `length`: $\\rho = \\lVert w\\rVert$.
    - `angle`: $\\theta$ between $w$ and $w_*$, from 0 to π.
    - `readout`: $a$.
    """

    length: Float[Array, "*times"]
    angle: Float[Array, "*times"]
    readout: Float[Array, "*times"]


class ReLUUnitFlow(AbstractReducedFlow[PolarUnit]):
    """Training of one rectifier unit on the answers of another, on Gaussian inputs of any dimension.

    Build it with `from_model`. Time is in the rule's units ($\\tau$ is its `time_constant`).

    **Attributes:**

    - `path`: the integrated state.
    - `task`, `rule`: the case.
    """

    path: FlowPath
    task: GaussianReLUTask
    rule: GradientFlow
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls,
        model: PyTree,
        task: PyTree,
        rule: AbstractRule | None = None,
        *,
        t1: ArrayLike,
        check: bool = True,
        max_steps: int = 1024,
    ) -> "ReLUUnitFlow":
        """Integrates the flow of a unit up to `t1`.

        **Arguments:**

        - `model`: a `TwoLayerNetwork` with one rectifier unit and one output.
        - `task`: a `GaussianReLUTask` with a teacher of the same kind.
        - `rule`: defaults to `tx.GradientFlow()`; relative rates are for the first layer and the readout, so that
          `tx.GradientFlow(rates=(1, 0))` keeps the readout.
        - `t1`: the horizon, up to which the solution can be evaluated.
        - `check`: refuse what the theory does not cover.
        - `max_steps`: of the integration.

        **Raises:**

        `ValueError` for other networks, weights of zero, weight decay, or if the integration fails.
        """
        state, teacher, rule = cls._case(model, task, rule)
        if check:
            state = enforce(state, cls.__name__, cls.assumptions(model, task, rule))
        field = eqx.Partial(_velocity, teacher, rule)
        path = integrate_flow(field, state, t1, max_steps=max_steps)
        return cls(path, task, rule)

    @classmethod
    def assumptions(cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """How far the case is from what the solution takes for granted."""
        state, teacher, rule = cls._case(model, task, rule)
        vanishes = (state.length == 0) | (teacher.length == 0)
        return Assumption("weights that are not zero", jnp.where(vanishes, 1.0, 0.0), 0.0), no_weight_decay(rule)

    @classmethod
    def _case(cls, model: Any, task: Any, rule: Any) -> tuple[PolarUnit, PolarUnit, GradientFlow]:
        model = check_student(model, task)
        for name, network in (("model", model), ("teacher", task.teacher)):
            if network.sizes[1:] != (1, 1):
                raise ValueError(
                    f"`{name}` must have one hidden unit and one output for {cls.__name__}; got {network.sizes[1]} and "
                    f"{network.sizes[2]}."
                )
        rule = check_flow(rule, cls.__name__, rates=True)
        if rule.rates is not None and rule.rates.shape != (2,):
            raise ValueError(f"`rule` must have a rate for each of the two layers; got shape {rule.rates.shape}.")
        return _polar(model, task), _polar(task.teacher, task), rule

    def vector_field(self, t: Any, state: PolarUnit) -> PolarUnit:
        """The flow of length, angle and readout."""
        return _velocity(_polar(self.task.teacher, self.task), self.rule, t, state)

    def reduce(self, model: TwoLayerNetwork) -> PolarUnit:
        """Length, angle and readout of a network."""
        return _polar(model, self.task)

    def loss(self, t: ArrayLike) -> Float[Array, ""]:
        """The task's loss at one time."""
        state, teacher = self.evaluate(t), _polar(self.task.teacher, self.task)
        own, goal = state.readout * state.length, teacher.readout * teacher.length
        return (own**2 + goal**2 - 2 * own * goal * _cosine(state.angle)) / 4

    def limit(self) -> PolarUnit:
        """The teacher, or the unit of the same function that conserves $r_wa^2 - r_a\\rho^2$.

        **Raises:**

        `ValueError` for a start with the wrong sign of the readout or opposite to the teacher, which does not find it.
        """
        start, teacher = self.evaluate(0.0), _polar(self.task.teacher, self.task)
        first, second = _rates(self.rule, start.length)
        found = (start.readout * teacher.readout > 0) & (start.angle < math.pi) & (first > 0)
        message = "A unit opposite to the teacher, with the wrong sign, or with a frozen first layer does not find it."
        start = require(start, found, message)
        goal = teacher.readout * teacher.length
        kept = first * start.readout**2 - second * start.length**2
        root = jnp.sqrt(kept**2 + 4 * first * second * goal**2)
        length = jnp.sqrt(2 * first * goal**2 / (kept + root))
        return PolarUnit(length, jnp.zeros_like(length), goal / length)


def _polar(model: TwoLayerNetwork, task: GaussianReLUTask) -> PolarUnit:
    w, teacher = model.first[0], task.teacher.first[0]
    return PolarUnit(safe_sqrt(w @ w), angle_between(teacher, w), model.second[0, 0])


def _rates(rule: GradientFlow, like: Array) -> tuple[Array, Array]:
    """The rates of the two layers, divided by the time constant."""
    rates = jnp.ones(2, like.dtype) if rule.rates is None else rule.rates.astype(like.dtype)
    rates = rates / rule.time_constant.astype(like.dtype)
    return rates[0], rates[1]


def _cosine(angle: Array) -> Array:
    """j(θ), from one at θ = 0 to zero at π."""
    return (jnp.sin(angle) + (math.pi - angle) * jnp.cos(angle)) / math.pi


def _velocity(teacher: PolarUnit, rule: GradientFlow, t: Any, state: PolarUnit) -> PolarUnit:
    del t
    first, second = _rates(rule, state.length)
    goal = teacher.readout * teacher.length
    pull = (goal * _cosine(state.angle) - state.readout * state.length) / 2
    turn = -goal * state.readout * (math.pi - state.angle) * jnp.sin(state.angle) / (2 * math.pi * state.length)
    return PolarUnit(first * state.readout * pull, first * turn, second * state.length * pull)
