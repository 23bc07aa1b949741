r"""Gradient descent on a product of two layers, at any learning rate: an exact map of a few numbers.

Set-up. A linear network with one output, $f(x) = a\cdot Wx$, learns a single direction $e$ of its input: one example, or
several along it. With $u = We$, $v = a$ the loss of `RegressionTask` is, up to a constant,

$$L = \tfrac12(c\,u\cdot v - y)^2,\qquad c^2 = \tfrac1n\sum_i\lVert x_i\rVert^2,\quad
y = \tfrac1{nc}\sum_iy_i\,(e\cdot x_i).$$

Steps of gradient descent with learning rate $\eta$ multiply $u \pm v$ by $1 \mp z$, where
$z = \eta c\,(c\,u\cdot v - y)$. So, with $T = \eta c^2(\lVert u\rVert^2 + \lVert v\rVert^2)$,
$D = \eta c^2(\lVert u\rVert^2 - \lVert v\rVert^2)$ and $Y = \eta cy$, a step is exactly

$$z\leftarrow z(1 - T) + z^2(z + Y),\qquad T\leftarrow T(1 + z^2) - 4z(z + Y),\qquad D\leftarrow D(1 - z^2).$$

Minima have $z = 0$ and sharpness $T/\eta\ge2\lvert Y\rvert/\eta$; they are stable for $T < 2$. The map has an invariant
surface, since $T - zY - 4\leftarrow(T - zY - 4)(1 + z(z + Y))$. For $\lvert Y\rvert < 2$ the factor is positive, and
$T - zY < 4$ implies $\lvert z\rvert < 2$ by $T\ge2\lvert z + Y\rvert$: such runs are bounded for ever. A start with small
$z$ and $2 < T < 4$ is catapulted: the loss grows until it has lowered the sharpness below $2/\eta$.

With $y = 0$ and $c = 1/\sqrt n$ this is the model of Lewkowycz et al. 2020 (arXiv 2003.02218), where $T = \eta\kappa$
with the tangent kernel $\kappa$. The map is of the kind of the second-order regression models of Agarwala, Pedregosa and
Pennington 2022 (arXiv 2210.04860). Invariant surface and map follow by inserting a step into the definitions.

Time: $t = \eta k$ after $k$ steps, or $k$ times the rule's `time_per_step`.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import (
    AbstractRule,
    AbstractSolution,
    AbstractTask,
    Assumption,
    Kind,
    check_count,
    enforce,
    relative_norm,
    require,
    tolerance_for,
)
from ..deep_linear import RegressionTask
from ..rules import GradientDescent, plain_descent
from ._base import check_data, targets_of
from ._network import LeakyReLU, TwoLayerNetwork

# Beyond this the residual is cubed at every step.
_LOST = 1e3


class ProductState(eqx.Module):
    r"""What a product of two layers is, up to rotations of its hidden layer, in units of the learning rate.

    **Attributes:**

    - `residual`: $z = \eta c\,(c\,u\cdot v - y)$.
    - `curvature`: $T = \eta c^2(\lVert u\rVert^2 + \lVert v\rVert^2)$, the learning rate times the tangent kernel; at a
      minimum this is the learning rate times the sharpness.
    - `imbalance`: $D = \eta c^2(\lVert u\rVert^2 - \lVert v\rVert^2)$.
    """

    residual: Float[Array, "*steps"]
    curvature: Float[Array, "*steps"]
    imbalance: Float[Array, "*steps"]


def product_step(state: ProductState, target: ArrayLike) -> ProductState:
    """The state after one step of gradient descent.

    **Arguments:**

    - `state`: before it.
    - `target`: $Y = \\eta cy$, a number, or one for each entry of the state.
    """
    z, trace = state.residual, state.curvature
    product = z + target
    return ProductState(
        residual=z * (1 - trace) + z**2 * product,
        curvature=trace * (1 + z**2) - 4 * z * product,
        imbalance=state.imbalance * (1 - z**2),
    )


class ProductDescent(AbstractSolution[ProductState]):
    r"""Gradient descent of a linear network on one direction of its input: the exact map, iterated.

    Build it with `from_model`. Like a simulation, it knows whole steps only: `evaluate(t)` is the state after
    `round(t / rule.time_per_step)` of them, up to the horizon `t1`. Runs that diverge are infinite from the step on at
    which $\lvert z\rvert$ exceeds a thousand.

    **Attributes:**

    - `path`: the states after 0, 1, … steps, every array with a leading axis of length `steps + 1`.
    - `target`: $Y = \eta cy$.
    - `direction`: $e$, shape `(in,)`.
    - `input_scale`: $c$.
    - `floor`: the loss that no network can go below.
    - `learning_rate`, `time_per_step`: $\eta$, and the time that one step takes.
    """

    path: ProductState
    target: Float[Array, ""]
    direction: Float[Array, " in"]
    input_scale: Float[Array, ""]
    floor: Float[Array, ""]
    learning_rate: Float[Array, ""]
    time_per_step: Float[Array, ""]
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls,
        model: PyTree,
        task: AbstractTask,
        rule: AbstractRule | None = None,
        *,
        steps: int = 1000,
        check: bool = True,
    ) -> "ProductDescent":
        """The solution for a network, having checked that all inputs lie along one direction.

        **Arguments:**

        - `model`: a `TwoLayerNetwork` with `"linear"` activation, one output and no bias.
        - `task`: a `RegressionTask`.
        - `rule`: `tx.GradientDescent` with `optax.sgd` on the full loss.
        - `steps`: how many steps to solve, at least one.
        - `check`: whether to refuse inputs of several directions; if not, what lies across the largest is ignored.

        **Raises:**

        `ValueError` if model, task or rule are of another kind or do not fit, all inputs are zero, or the assumption is
        violated.
        """
        steps = check_count("steps", steps)
        model, task, rule = _case(model, task, rule)
        direction, scale, target, floor = _one_direction(task)
        eta = rule.learning_rate.astype(scale.dtype)
        start = _reduce(model, direction, scale, target, eta)
        after = _iterate(start, eta * scale * target, steps)
        solution = cls(
            path=jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), start, after),
            target=eta * scale * target,
            direction=direction,
            input_scale=scale,
            floor=floor,
            learning_rate=eta,
            time_per_step=rule.time_per_step.astype(scale.dtype),
        )
        return enforce(solution, cls.__name__, cls.assumptions(model, task, rule)) if check else solution

    @staticmethod
    def assumptions(model: PyTree, task: AbstractTask, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """What the theory takes for granted: inputs along one direction."""
        model, task, rule = _case(model, task, rule)
        direction = _one_direction(task)[0]
        across = task.inputs - (task.inputs @ direction)[:, None] * direction[None, :]
        return (Assumption("inputs along one direction", relative_norm(across, task.inputs), tolerance_for(across)),)

    @property
    def t1(self) -> Float[Array, ""]:
        """The horizon: the time of the last step."""
        return (self.path.residual.shape[0] - 1) * self.time_per_step

    def state(self, t: Float[Array, ""]) -> ProductState:
        """The state at the whole number of steps nearest to `t <= t1`."""
        step = jnp.rint(t.astype(self.time_per_step.dtype) / self.time_per_step)
        return jax.tree.map(lambda x: x[step.astype(jnp.int32)], self.path)

    def reduce(self, model: PyTree) -> ProductState:
        """The state of a network."""
        model = _check_model(model)
        target = self.target / (self.learning_rate * self.input_scale)
        return _reduce(model, self.direction, self.input_scale, target, self.learning_rate)

    def loss(self, state: ProductState) -> Float[Array, "*steps"]:
        """The loss in a given state."""
        return (state.residual / (self.learning_rate * self.input_scale)) ** 2 / 2 + self.floor

    def margin(self, state: ProductState) -> Float[Array, "*steps"]:
        r"""$4 - T + zY$, which keeps its sign from step to step while $\lvert Y\rvert < 2$.

        Positive, the run is bounded for ever, $\lvert z\rvert < 2$. Negative, runs are found to diverge, but for
        starts at a minimum.
        """
        return 4 - state.curvature + state.residual * self.target

    @property
    def divergence_rate(self) -> Float[Array, ""]:
        r"""The learning rate at which the margin of the initial weights vanishes: all smaller ones are bounded for ever.

        $8/(\kappa + \sqrt{\kappa^2 - 16c^2ry})$ with $\kappa = T/\eta$ and $r = c\,u\cdot v - y$; $4/\kappa$ where
        target or residual vanish. Infinite for a network without weights.
        """
        kappa = self.path.curvature[0] / self.learning_rate
        drive = self.path.residual[0] * self.target / self.learning_rate**2
        # κ² − 16c²ry cannot be negative, but for rounding.
        return 8 / (kappa + jnp.sqrt(jnp.maximum(kappa**2 - 16 * drive, 0.0)))

    @property
    def settling_rate(self) -> Float[Array, ""]:
        r"""$1/(c\lvert y\rvert)$, the learning rate above which no minimum is stable; infinite without a target."""
        return self.learning_rate / jnp.abs(self.target)


def _iterate(start: ProductState, target: Array, steps: int) -> ProductState:
    """The states after each step."""

    def advance(state: ProductState, _: None) -> tuple[ProductState, ProductState]:
        after = product_step(state, target)
        lost = ~(jnp.abs(after.residual) <= _LOST)
        after = jax.tree.map(lambda x: jnp.where(lost, jnp.inf, x), after)
        return after, after

    return jax.lax.scan(advance, start, length=steps)[1]


def _reduce(model: TwoLayerNetwork, direction: Array, scale: Array, target: Array, eta: Array) -> ProductState:
    u, v = model.first @ direction, model.second[0]
    first, second = u @ u, v @ v
    units = eta * scale**2
    return ProductState(eta * scale * (scale * (u @ v) - target), units * (first + second), units * (first - second))


def _one_direction(task: RegressionTask) -> tuple[Array, Array, Array, Array]:
    """e, c, y and the part of the loss that no network can change."""
    squares = jnp.sum(task.inputs**2, axis=1)
    largest = jnp.argmax(squares)
    size = require(squares[largest], squares[largest] > 0, "`task` must have inputs that are not all zero.")
    direction = task.inputs[largest] / jnp.sqrt(size)
    along, y = task.inputs @ direction, targets_of(task)[:, 0]
    scale = jnp.sqrt(jnp.mean(along**2))
    target = jnp.mean(along * y) / scale
    return direction, scale, target, jnp.mean((y - along * target / scale) ** 2) / 2


def _check_model(model: Any) -> TwoLayerNetwork:
    if not isinstance(model, TwoLayerNetwork):
        raise ValueError(f"`model` must be a TwoLayerNetwork for ProductDescent; got {type(model).__name__}.")
    linear = isinstance(model.activation, LeakyReLU) and model.activation.slope == 1
    if not linear or model.bias is not None or model.sizes[2] != 1:
        raise ValueError(
            "`model` must have linear units, no bias and one output for ProductDescent; got activation "
            f"{model.activation}, {'no bias' if model.bias is None else 'a bias'} and {model.sizes[2]} output(s)."
        )
    return model


def _case(
    model: PyTree, task: AbstractTask, rule: AbstractRule | None
) -> tuple[TwoLayerNetwork, RegressionTask, GradientDescent]:
    model = _check_model(model)
    task = check_data(model, task)
    descent = plain_descent(rule, "ProductDescent", batches=False)
    if descent is None:
        raise ValueError(
            f"`rule` must be tx.GradientDescent with optax.sgd on the full loss for ProductDescent; got {rule!r}."
        )
    return model, task, descent
