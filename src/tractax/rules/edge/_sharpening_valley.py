r"""A valley that steepens downhill: the smallest loss with an edge of stability, and its central flow in closed form.

Set-up. Three parameters, and

$$L = \tfrac12(y + z^2)\,x^2 - ay + \tfrac12b\,(z - c)^2,\qquad a, b, c > 0.$$

The floor $x = 0$ descends along $y$ and towards $z = c$, and both raise the sharpness $S = y + z^2$. Under `CentralFlow`,
from $x = 0$ at the edge $S = 2/\eta$, with $k = b + 2a$,

$$\dot z = \frac{bc - kz}{1 + 4z^2},\qquad y = \frac2\eta - z^2,\qquad
\sigma^2 = 2\,\frac{a + 2bz(c - z)}{1 + 4z^2},$$

so that, with $z_\infty = bc/k$ and $s = \ln\frac{z_\infty - z_0}{z_\infty - z}$,

$$kt = (1 + 4z_\infty^2)\,s - 4z_\infty(z - z_0) - 2(z^2 - z_0^2).$$

It ends at $z_\infty$ with $\sigma^2 = 2a$, where oscillations hold the sharpness at the edge. Gradient flow goes to
$z = c$ instead, and its sharpness grows without bound.

Loss: as above. Time: flow time, $\eta$ a step. The example is that of Cohen et al.'s central flows in its smallest form;
source of the flow: Cohen, Damian, Talwalkar, Kolter and Lee 2024 (arXiv 2410.24206).
"""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ...core import (
    AbstractRule,
    AbstractSolution,
    AbstractTask,
    Assumption,
    Kind,
    check_finite,
    check_positive,
    enforce,
    tolerance_for,
)
from ...special import monotone_inverse
from ..descent._weight_decay import refuse_decay
from ._central_flow import CentralFlow


class ValleyPoint(eqx.Module):
    """Three parameters without a network.

    **Arguments:**

    - `x`: across the valley.
    - `y`, `z`: along it, down and sideways.

    **Raises:**

    `ValueError` for anything but finite numbers.
    """

    x: Float[Array, "*times"]
    y: Float[Array, "*times"]
    z: Float[Array, "*times"]

    def __init__(self, x: ArrayLike, y: ArrayLike, z: ArrayLike):
        self.x, self.y, self.z = (check_finite(n, number, scalar=True) for n, number in (("x", x), ("y", y), ("z", z)))


class SharpeningValley(AbstractTask):
    r"""$L = \tfrac12(y + z^2)\,x^2 - ay + \tfrac12b\,(z - c)^2$.

    **Arguments:**

    - `slope`: $a > 0$.
    - `stiffness`: $b > 0$.
    - `centre`: $c > 0$.

    **Raises:**

    `ValueError` for numbers that are not positive.
    """

    slope: Float[Array, ""]
    stiffness: Float[Array, ""]
    centre: Float[Array, ""]

    def __init__(self, slope: ArrayLike, stiffness: ArrayLike, centre: ArrayLike):
        numbers = (("slope", slope), ("stiffness", stiffness), ("centre", centre))
        self.slope, self.stiffness, self.centre = (check_positive(n, x, scalar=True) for n, x in numbers)

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """The loss of a `ValleyPoint`."""
        x, y, z = model.x, model.y, model.z
        a, b, c = (number.astype(x.dtype) for number in (self.slope, self.stiffness, self.centre))
        return (y + z**2) * x**2 / 2 - a * y + b * (z - c) ** 2 / 2


class ValleyFloor(eqx.Module):
    """The position along the valley, $y$ and $z$."""

    y: Float[Array, ""]
    z: Float[Array, ""]


class SharpeningValleyFlow(AbstractSolution[ValleyFloor]):
    r"""The central flow of a `SharpeningValley` from the edge of stability, in closed form (as an inverse function).

    Build it with `from_model`.

    **Attributes:**

    - `task`: the valley.
    - `learning_rate`: $\eta$.
    - `initial`: $z$ at time zero.
    """

    task: SharpeningValley
    learning_rate: Float[Array, ""]
    initial: Float[Array, ""]
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: PyTree, task: AbstractTask, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "SharpeningValleyFlow":
        """The solution from a point on the valley's floor, at the edge of stability.

        **Arguments:**

        - `model`, `task`: a `ValleyPoint` and a `SharpeningValley`.
        - `rule`: a `CentralFlow`.
        - `check`: whether to refuse other starts; if not, $y$ and $x$ of the model are ignored.

        **Raises:**

        `ValueError` if they are of another kind, or the start is not on the floor and at the edge, or leaves it.
        """
        model, task, rule = _case(model, task, rule)
        solution = cls(task, rule.learning_rate.astype(model.z.dtype), model.z)
        return enforce(solution, cls.__name__, cls.assumptions(model, task, rule)) if check else solution

    @classmethod
    def assumptions(cls, model: PyTree, task: AbstractTask, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """How far the start is from what the theory takes for granted."""
        model, task, rule = _case(model, task, rule)
        eta = rule.learning_rate.astype(model.z.dtype)
        start = cls(task, eta, model.z)
        push = start.variance(start.initial)
        return (
            Assumption("on the floor, x = 0", jnp.abs(model.x), tolerance_for(model.x)),
            Assumption("at the edge, y + z² = 2/η", jnp.abs(eta * (model.y + model.z**2) / 2 - 1), tolerance_for(eta)),
            Assumption("pushed over the edge, a + 2bz(c − z) ≥ 0", jnp.maximum(-push, 0.0), tolerance_for(eta)),
        )

    def state(self, t: Float[Array, ""]) -> ValleyFloor:
        """The position at one time."""
        a, b, _ = self._numbers
        end, start = self._end, self.initial
        # Long after z has arrived.
        late = jnp.finfo(start.dtype).max ** 0.5
        kt = jnp.minimum((b + 2 * a) * t.astype(start.dtype), late)

        def moved(s: Array) -> Array:
            return (start - end) * jnp.expm1(-s)

        def scaled_time(s: Array) -> Array:
            return (1 + 4 * end**2) * s - 2 * moved(s) * (2 * end + 2 * start + moved(s))

        # k dt/ds = 1 + 4z² is at least 1.
        s = monotone_inverse(scaled_time, kt, jnp.zeros_like(kt), 2 * kt)
        return self._floor(start + moved(s))

    def reduce(self, model: PyTree) -> ValleyFloor:
        """The position of an actual point along the valley."""
        return ValleyFloor(model.y, model.z)

    def vector_field(self, t: Float[Array, ""], state: ValleyFloor) -> ValleyFloor:
        """The velocity along the valley."""
        del t
        a, b, c = self._numbers
        velocity = (b * c - (b + 2 * a) * state.z) / (1 + 4 * state.z**2)
        return ValleyFloor(-2 * state.z * velocity, velocity)

    def limit(self) -> ValleyFloor:
        r"""The end, $z_\infty = bc/(b + 2a)$ at the edge."""
        return self._floor(self._end)

    def variance(self, z: Float[Array, ""]) -> Float[Array, ""]:
        r"""$\sigma^2$, the variance of the oscillations of $x$ at a position; $2a$ at the end."""
        a, b, c = self._numbers
        return 2 * (a + 2 * b * z * (c - z)) / (1 + 4 * z**2)

    @property
    def _numbers(self) -> tuple[Array, Array, Array]:
        task = self.task
        a, b, c = (number.astype(self.initial.dtype) for number in (task.slope, task.stiffness, task.centre))
        return a, b, c

    @property
    def _end(self) -> Array:
        a, b, c = self._numbers
        return b * c / (b + 2 * a)

    def _floor(self, z: Array) -> ValleyFloor:
        return ValleyFloor(2 / self.learning_rate - z**2, z)


def _case(model: Any, task: Any, rule: Any) -> tuple[ValleyPoint, SharpeningValley, CentralFlow]:
    wanted = (("model", model, ValleyPoint), ("task", task, SharpeningValley), ("rule", rule, CentralFlow))
    for name, value, kind in wanted:
        if not isinstance(value, kind):
            raise ValueError(f"`{name}` must be a {kind.__name__} for SharpeningValleyFlow; got {type(value).__name__}.")
    return model, task, refuse_decay(rule, SharpeningValleyFlow.__name__)
