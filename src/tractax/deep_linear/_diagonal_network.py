r"""Diagonal linear networks: gradient flow on the weights is mirror flow on the predictor.

Set-up. Network $\langle\beta, x\rangle$ with $\beta = w_+^D - w_-^D$, loss $L = \tfrac1{2n}\lVert X\beta - y\rVert^2$,
gradient flow $\tau\dot w_\pm = -\partial L/\partial w_\pm$. Every weight is a function of the accumulated negative
gradient $\zeta = -\tfrac1\tau\int g\,dt$, $g = \partial L/\partial\beta$, alone:

$$w_\pm(t) = w_\pm(0)\,e^{\pm2\zeta}\quad(D = 2),\qquad
w_\pm(t) = w_\pm(0)\,\bigl(1 \mp D(D-2)\,w_\pm(0)^{D-2}\,\zeta\bigr)^{-1/(D-2)}\quad(D > 2),$$

and $\zeta = X^\top\mu$ stays in the row space of the data, so that as few equations remain as there are examples.
Started at $w_\pm = \alpha$ the network ends, for $D = 2$, at the interpolator that minimises

$$Q_\alpha(\beta) = \alpha^2\sum_jq(\beta_j/\alpha^2),\qquad q(x) = 2 - \sqrt{4 + x^2} + x\,\mathrm{arsinh}(x/2),$$

which is the $\ell_1$ norm for small $\alpha$ and the $\ell_2$ norm for large $\alpha$. If $X^\top X$ is diagonal, entries
decouple and are the modes of a two-layer linear network.

Source: Woodworth et al. 2020, arXiv 2002.09277.
"""

import abc
from typing import ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, ArrayLike, Float

from ..core import (
    AbstractRule,
    AbstractSolution,
    Assumption,
    Kind,
    check_positive,
    enforce,
    relative_norm,
    require,
    tolerance_for,
)
from ._base import check_flow, no_weight_decay
from ._diagonal_linear import DiagonalLinear
from ._regression_task import RegressionTask
from ._two_layer_modes import two_layer_mode


class AbstractDiagonalSolution(AbstractSolution[DiagonalLinear]):
    """A solution that predicts all weights of a diagonal linear network: its state is a network."""

    task: eqx.AbstractVar[RegressionTask]
    time_constant: eqx.AbstractVar[Float[Array, ""]]

    @abc.abstractmethod
    def state(self, t: Float[Array, ""]) -> DiagonalLinear:
        """The network at time `t`."""

    def loss(self, t: ArrayLike) -> Float[Array, ""]:
        """The task's loss at one time."""
        return self.task.loss(self.evaluate(t))

    def reduce(self, model: DiagonalLinear) -> DiagonalLinear:
        """The network itself."""
        return model

    def vector_field(self, t: Float[Array, ""], state: DiagonalLinear) -> DiagonalLinear:
        """The velocity of the weights."""
        del t
        x, y = self.task.inputs, self.task.targets
        gradient = x.T @ (x @ state.predictor - y) / x.shape[0]
        power = state.depth - 1
        speed = state.depth * gradient / self.time_constant
        return eqx.tree_at(
            lambda s: (s.positive, s.negative), state, (-speed * state.positive**power, speed * state.negative**power)
        )


class DiagonalNetwork(AbstractDiagonalSolution):
    r"""Gradient flow of a diagonal linear network of any depth, on any data, from any weights; and where it ends.

    Build it with `from_model`. What is left to integrate are `min(examples, in)` equations. Each evaluation integrates
    them from zero to its time, or until the network interpolates; many times at once are best evaluated by `jax.vmap`.
    `limit` is a convex problem of its own, solved by damped Newton steps.

    **Attributes:**

    - `initial`: the network at time zero.
    - `design`: the data divided by their largest singular value, and condensed to at most `in` rows.
    - `response`: the targets, likewise.
    - `rate`: the rate at which residuals drive the dual variables.
    """

    initial: DiagonalLinear
    design: Float[Array, "rows in"]
    response: Float[Array, " rows"]
    rate: Float[Array, ""]
    task: RegressionTask
    time_constant: Float[Array, ""]
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: DiagonalLinear, task: RegressionTask, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "DiagonalNetwork":
        """The solution for a network.

        **Raises:**

        `ValueError` if the network does not fit the task, examples are dependent, or weights vanish.
        """
        solution = cls._build(model, task, rule)
        return enforce(solution, cls.__name__, cls.assumptions(model, task, rule)) if check else solution

    @classmethod
    def assumptions(
        cls, model: DiagonalLinear, task: RegressionTask, rule: AbstractRule | None = None
    ) -> tuple[Assumption, ...]:
        """How far the case is from what the solution takes for granted."""
        _check(model, task)
        values = jnp.linalg.svd(task.inputs, compute_uv=False)
        rounding = jnp.finfo(values.dtype).eps * (values[0] / values[-1]) ** 2
        idle = jnp.mean((model.positive == 0) & (model.negative == 0), dtype=values.dtype)
        return (
            Assumption("independent examples, XXᵀ invertible beyond rounding", rounding, 1e-3),
            Assumption("no input without weights, w₊ = w₋ = 0", idle, 0.0),
            no_weight_decay(check_flow(rule, cls.__name__)),
        )

    @classmethod
    def _build(cls, model: DiagonalLinear, task: RegressionTask, rule: AbstractRule | None) -> "DiagonalNetwork":
        rule = check_flow(rule, cls.__name__)
        _check(model, task)
        design, response = task.inputs, task.targets
        examples, inputs = design.shape
        if examples > inputs:
            # The loss sees no more than this of the data, up to a constant.
            q, design = jnp.linalg.qr(design)
            response = q.T @ response
        size = jnp.linalg.norm(task.inputs, 2)
        time_constant = rule.time_constant.astype(size.dtype)
        return cls(model, design / size, response / size, size**2 / (examples * time_constant), task, time_constant)

    @property
    def _unit(self) -> Float[Array, ""]:
        """A change of ζ that changes weights by a factor of order one."""
        depth = self.initial.depth
        largest = jnp.maximum(jnp.max(jnp.abs(self.initial.positive)), jnp.max(jnp.abs(self.initial.negative)))
        return 1 / (depth * max(depth - 2, 1) * largest ** (depth - 2))

    def _weights(self, dual: Float[Array, " rows"]) -> DiagonalLinear:
        pull = self._unit * (self.design.T @ dual)
        start = self.initial
        return eqx.tree_at(
            lambda s: (s.positive, s.negative),
            start,
            (_grown(start.positive, pull, start.depth), _grown(start.negative, -pull, start.depth)),
        )

    def _residual(self, dual: Float[Array, " rows"]) -> Float[Array, " rows"]:
        return self.design @ self._weights(dual).predictor - self.response

    def state(self, t: Float[Array, ""]) -> DiagonalLinear:
        """The network at time `t`."""
        dual, reached = _integrate(self, t.astype(self.design.dtype))
        dual = require(
            dual,
            reached,
            "`t0` must be within reach of an explicit integrator; the flow is too stiff (deep networks with small "
            "weights, or almost dependent examples). Evaluate earlier times, or use `limit()`.",
        )
        return self._weights(dual)

    def limit(self) -> DiagonalLinear:
        """The network as t → ∞: the interpolator (with more examples than inputs, the least-squares predictor) that
        minimises the potential of the initial weights."""
        tolerance = 4 * float(jnp.finfo(self.design.dtype).eps) ** 0.5
        solver = optx.FixedPointIteration(tolerance, tolerance)
        found = optx.fixed_point(_newton, solver, jnp.zeros_like(self.response), self, max_steps=1024)
        return self._weights(found.value)


class OrthogonalDesign(AbstractDiagonalSolution):
    r"""Closed form for a diagonal linear network of depth 2 on data with orthogonal columns.

    With $X^\top X/n = \mathrm{diag}(h)$, $a = w_+ - w_-$ and $b = w_+ + w_-$, every entry of $\beta = ab$ is
    a mode of a two-layer linear network (`two_layer_mode`). Build it with `from_model`.

    **Attributes:**

    - `initial`: the network at time zero.
    - `variances`: $h$, shape `(in,)`.
    - `optimum`: the least-squares predictor; zero for inputs that never vary.
    """

    initial: DiagonalLinear
    variances: Float[Array, " in"]
    optimum: Float[Array, " in"]
    task: RegressionTask
    time_constant: Float[Array, ""]
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: DiagonalLinear, task: RegressionTask, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "OrthogonalDesign":
        """The solution for a network, having checked that the data have orthogonal columns.

        **Raises:**

        `ValueError` if the network does not fit the task, has another depth than 2, or violates an assumption.
        """
        rule = check_flow(rule, cls.__name__)
        _check(model, task)
        if model.depth != 2:
            raise ValueError(f"`model` must have depth 2 for {cls.__name__}; got {model.depth}.")
        x = task.inputs
        variances = jnp.mean(x**2, axis=0)
        varies = variances > 0
        optimum = jnp.where(varies, x.T @ task.targets / x.shape[0] / jnp.where(varies, variances, 1.0), 0.0)
        solution = cls(model, variances, optimum, task, rule.time_constant.astype(x.dtype))
        return enforce(solution, cls.__name__, cls.assumptions(model, task, rule)) if check else solution

    @classmethod
    def assumptions(
        cls, model: DiagonalLinear, task: RegressionTask, rule: AbstractRule | None = None
    ) -> tuple[Assumption, ...]:
        """How far the case is from what the solution takes for granted."""
        _check(model, task)
        covariance = task.inputs.T @ task.inputs
        off = covariance - jnp.diag(jnp.diagonal(covariance))
        return (
            Assumption("orthogonal columns, XᵀX diagonal", relative_norm(off, covariance), tolerance_for(covariance)),
            no_weight_decay(check_flow(rule, cls.__name__)),
        )

    def state(self, t: Float[Array, ""]) -> DiagonalLinear:
        """The network at time `t`."""
        start = self.initial
        varies = self.variances > 0
        clock = jnp.where(varies, 2 * self.variances * t.astype(self.variances.dtype) / self.time_constant, 0.0)
        a, b = jax.vmap(two_layer_mode)(
            start.positive - start.negative, start.positive + start.negative, self.optimum, clock
        )
        return eqx.tree_at(lambda s: (s.positive, s.negative), start, ((b + a) / 2, (b - a) / 2))

    def limit(self) -> DiagonalLinear:
        """The network as t → ∞."""
        return self.state(jnp.asarray(jnp.inf, self.variances.dtype))


def hyperbolic_entropy(predictor: Float[Array, " in"], scale: ArrayLike) -> Float[Array, ""]:
    r"""$Q_\alpha(\beta) = \alpha^2\sum_jq(\beta_j/\alpha^2)$, $q(x) = 2 - \sqrt{4 + x^2} + x\,\mathrm{arsinh}(x/2)$.

    Of all predictors that fit the data, gradient flow of a diagonal network of depth 2 with weights $w_\pm(0) = \alpha$
    ends at the one that minimises it.

    **Arguments:**

    - `predictor`: $\beta$.
    - `scale`: $\alpha > 0$.
    """
    square = check_positive("scale", scale).astype(predictor.dtype) ** 2
    x = predictor / square
    # 2 − √(4 + x²), without cancellation.
    gap = -(x**2) / (2 + jnp.hypot(2.0, x))
    return square * jnp.sum(gap + x * jnp.arcsinh(x / 2))


@eqx.filter_jit
def _integrate(solution: DiagonalNetwork, t: Array) -> tuple[Array, Array]:
    """The dual variables at time `t`, or when the network interpolates; and whether the integrator got there."""
    tolerance = float(jnp.finfo(t.dtype).eps) ** 0.7
    start = jnp.zeros_like(solution.response)
    size = jnp.linalg.norm(solution.response) + jnp.linalg.norm(solution._residual(start))
    # Time is a parameter of an equation on [0, 1], so that derivatives in time are those of a parameter.
    speed = solution.rate / solution._unit * jnp.minimum(t, float(jnp.finfo(t.dtype).max) ** 0.5)
    flow = diffrax.diffeqsolve(
        diffrax.ODETerm(_velocity),
        diffrax.Dopri8(),
        t0=jnp.zeros_like(t),
        t1=jnp.ones_like(t),
        dt0=None,
        y0=start,
        args=(solution, speed, 30 * tolerance * size),
        stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
        event=diffrax.Event(_interpolates),
        adjoint=diffrax.DirectAdjoint(),
        max_steps=2**16,
        throw=False,
    )
    return flow.ys[0], diffrax.is_okay(flow.result)  # pyright: ignore


def _velocity(_, dual, args):
    solution, speed, _ = args
    return -speed * solution._residual(dual)


def _interpolates(_, dual, args, **kwargs):
    solution, _, close = args
    return jnp.linalg.norm(solution._residual(dual)) <= close


def _newton(dual: Array, solution: DiagonalNetwork) -> Array:
    """A damped Newton step of the convex dual problem, whose gradient is the residual."""
    weights, depth = solution._weights(dual), solution.initial.depth
    power = 2 * depth - 2
    slope = depth**2 * solution._unit * (weights.positive**power + weights.negative**power)
    hessian = (solution.design * slope[None, :]) @ solution.design.T
    # Where weights are still tiny, the Hessian may be singular in rounding; any positive matrix gives a descent.
    rounding = hessian.shape[0] * jnp.finfo(hessian.dtype).eps * jnp.trace(hessian)
    step = -jnp.linalg.solve(hessian + rounding * jnp.eye(len(dual), dtype=dual.dtype), solution._residual(dual))
    return dual + _damping(weights, solution._unit * jnp.abs(solution.design.T @ step)) * step


def _grown(start: Array, pull: Array, depth: int) -> Array:
    """A weight that moved by `pull` along the mirror flow."""
    if depth == 2:
        return start * jnp.exp(2 * pull)
    left = 1 - depth * (depth - 2) * start ** (depth - 2) * pull
    # Beyond the pole there is no weight; integrators take NaN for a step that was too long.
    inside = left > 0
    return jnp.where(inside, start * jnp.where(inside, left, 1.0) ** (-1 / (depth - 2)), jnp.nan)


def _damping(weights: DiagonalLinear, pull: Array) -> Array:
    """The longest step that is sure not to overshoot along its direction, given the growth of all curvatures."""
    depth = weights.depth
    tiny = jnp.finfo(pull.dtype).tiny
    if depth == 2:
        # Curvatures grow at most as exp(4 pull).
        growth = jnp.maximum(4 * jnp.max(pull), tiny)
        return jnp.log1p(growth) / growth
    largest = jnp.maximum(jnp.abs(weights.positive), jnp.abs(weights.negative)) ** (depth - 2)
    # Curvatures grow at most as (1 − change)^-(power + 1).
    change = jnp.maximum(depth * (depth - 2) * jnp.max(largest * pull), tiny)
    power = depth / (depth - 2)
    return -jnp.expm1(-jnp.log1p(power * change) / power) / change


def _check(model: DiagonalLinear, task: RegressionTask) -> None:
    if not isinstance(model, DiagonalLinear):
        raise ValueError(f"`model` must be a DiagonalLinear network; got {type(model).__name__}.")
    if not isinstance(task, RegressionTask) or task.targets.ndim != 1:
        raise ValueError(f"`task` must be a RegressionTask with one target for each example; got {type(task).__name__}.")
    if model.positive.shape[0] != task.inputs.shape[1]:
        raise ValueError(f"`model` must have {task.inputs.shape[1]} inputs to fit `task`; got {model.positive.shape[0]}.")
