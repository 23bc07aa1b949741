r"""Momentum methods and their flows on a quadratic loss.

Set-up: any model and task whose loss is convex and quadratic in the parameters, with curvatures $\lambda_i \ge 0$. Along
an eigenvector of the Hessian the distance to the minimum is $f_i(t)$ times what it was, and so is the gradient. The loss
is $L_* + \sum_i g_i(0)^2f_i^2/(2\lambda_i)$.

- Steps of heavy ball, of Nesterov's method with a constant momentum, and of triple momentum obey recursions of second
  order: $f_i$ is read off powers of a companion matrix.
- Flows with constant coefficients are damped oscillators, $\ddot f + 2\kappa\dot f + \omega^2f = 0$.
- Nesterov's flow of order 1 and growing momentum obeys $\ddot f + \tfrac rt\dot f + \lambda f = 0$: with
  $\nu = (r - 1)/2$ and $z = t\sqrt\lambda$, $f = \Gamma(\nu + 1)(2/z)^\nu J_\nu(z)$, for $r = 3$ simply $2J_1(z)/z$.

Loss: the task's own, with the rule's weight decay. Time: $t = k$ times the rule's `time_per_step`.

Sources: Lessard, Recht, Packard 2016 (arXiv 1408.3595); Su, Boyd, Candès 2016 (arXiv 1503.01243); Shi, Du, Jordan, Su
2018 (arXiv 1810.08907).
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ...core import AbstractRule, AbstractSolution, AbstractTask, Assumption, Kind, enforce, require
from ...special import damped_oscillation, normalised_bessel
from ..descent._quadratic_loss import QuadraticModes, SpectralLoss, convex_assumptions, quadratic_losses
from ._accelerated_flow import HeavyBallFlow, NesterovFlow
from ._heavy_ball import HeavyBall
from ._nesterov import Nesterov
from ._triple_momentum import TripleMomentum

# No run takes more steps; whatever decays has decayed, whatever does not is at rest.
_MOST_STEPS = 40


class QuadraticMomentum(AbstractSolution[QuadraticModes]):
    r"""Steps with momentum on a convex quadratic loss.

    Between the steps it stays where `tx.train` would: at the nearest whole number of them.

    **Attributes:**

    - `objective`: the loss in the eigenvectors of its Hessian; `objective.curvatures`, `objective.directions`.
    - `companion`: the matrices that take two consecutive values of each mode a step further, shape `(parameters, 2, 2)`.
    - `start`: the first two values, the later one first, shape `(parameters, 2)`.
    - `readout`: the weights of both in the parameters.
    - `time_per_step`: the time that one step takes.
    """

    objective: SpectralLoss
    companion: Float[Array, "parameters 2 2"]
    start: Float[Array, "parameters 2"]
    readout: Float[Array, "2"]
    time_per_step: Float[Array, ""]
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: PyTree, task: AbstractTask, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "QuadraticMomentum":
        """The solution for this model, whose parameters must be few enough to form their Hessian.

        **Arguments:**

        - `model`, `task`: any whose loss is convex and quadratic in the trainable numbers.
        - `rule`: `HeavyBall`, `Nesterov` with a constant momentum, or `TripleMomentum`.
        - `check`: whether to refuse a loss that is not; if not, its quadratic approximation is solved.

        **Raises:**

        `ValueError` for another rule, or a loss that is not quadratic or has no minimum.
        """
        rule = _check_steps(rule)
        objective = SpectralLoss.about(model, task, rule.weight_decay)
        companion, start, readout = _recursion(rule, objective.curvatures)
        time_per_step = rule.time_per_step.astype(objective.curvatures.dtype)
        solution = cls(objective, companion, start, readout, time_per_step)
        return enforce(solution, cls.__name__, cls.assumptions(model, task, rule)) if check else solution

    @staticmethod
    def assumptions(model: PyTree, task: AbstractTask, rule: AbstractRule | None = None) -> list[Assumption]:
        """What the theory takes for granted: the Hessian is the same elsewhere, and a minimum exists."""
        rule = _check_steps(rule)
        return [
            quadratic_losses("quadratic loss", model, task.loss),
            *convex_assumptions(SpectralLoss.about(model, task, rule.weight_decay)),
        ]

    @property
    def rates(self) -> Float[Array, " parameters"]:
        """The spectral radius of every companion matrix: the factor by which a mode finally shrinks in a step."""
        trace = self.companion[:, 0, 0]
        determinant = -self.companion[:, 0, 1]
        discriminant = trace**2 - 4 * determinant
        turning = discriminant < 0
        together = jnp.sqrt(jnp.where(turning, determinant, 1.0))
        larger = (jnp.abs(trace) + jnp.sqrt(jnp.where(turning, 0.0, discriminant))) / 2
        return jnp.where(turning, together, larger)

    def state(self, t: Float[Array, ""]) -> QuadraticModes:
        """The gradient along the eigenvectors and the loss, after the whole number of steps next to this time."""
        steps = jnp.rint(t.astype(self.time_per_step.dtype) / self.time_per_step)
        power = _power(self.companion, jnp.minimum(steps, 2.0**_MOST_STEPS))
        factors = jnp.einsum("i,pij,pj->p", self.readout, power, self.start)
        return self.objective.shrunk(jnp.where(self.objective.curvatures == 0, 1.0, factors))

    def reduce(self, model: PyTree) -> QuadraticModes:
        """The gradient of an actual network along the eigenvectors, and its loss, weight decay included."""
        return self.objective.reduce(model)

    def limit(self) -> QuadraticModes:
        """The minimum, where every mode with a gradient decays.

        **Raises:**

        `ValueError` if one does not.
        """
        settles = jnp.all((self.rates < 1) | (self.objective.initial.gradient == 0))
        message = "QuadraticMomentum has no limit: a direction with a gradient does not decay."
        return self.objective.shrunk(require(jnp.zeros_like(self.rates), settles, message))


class QuadraticAcceleration(AbstractSolution[QuadraticModes]):
    r"""Flows with momentum on a convex quadratic loss: damped oscillators, or Bessel functions.

    **Attributes:**

    - `objective`: the loss in the eigenvectors of its Hessian; `objective.curvatures`, `objective.directions`.
    - `rule`: the flow.
    """

    objective: SpectralLoss
    rule: HeavyBallFlow | NesterovFlow
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: PyTree, task: AbstractTask, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "QuadraticAcceleration":
        """The solution for this model, whose parameters must be few enough to form their Hessian.

        **Arguments:**

        - `model`, `task`: any whose loss is convex and quadratic in the trainable numbers.
        - `rule`: `HeavyBallFlow`, or `NesterovFlow`; with a growing momentum of order 1, and of friction 21 at most.
        - `check`: whether to refuse a loss that is not; if not, its quadratic approximation is solved.

        **Raises:**

        `ValueError` for another rule, or a loss that is not quadratic or has no minimum.
        """
        flow = _check_flow(rule)
        solution = cls(SpectralLoss.about(model, task, flow.weight_decay), flow)
        return enforce(solution, cls.__name__, cls.assumptions(model, task, flow)) if check else solution

    @staticmethod
    def assumptions(model: PyTree, task: AbstractTask, rule: AbstractRule | None = None) -> list[Assumption]:
        """What the theory takes for granted: the Hessian is the same elsewhere, and a minimum exists."""
        decay = _check_flow(rule).weight_decay
        return [
            quadratic_losses("quadratic loss", model, task.loss),
            *convex_assumptions(SpectralLoss.about(model, task, decay)),
        ]

    def state(self, t: Float[Array, ""]) -> QuadraticModes:
        """The gradient along the eigenvectors and the loss, at one time."""
        curvatures = self.objective.curvatures
        t = t.astype(curvatures.dtype)
        safe = jnp.where(curvatures == 0, 1.0, curvatures)
        if isinstance(self.rule, NesterovFlow) and self.rule.momentum is None:
            order = (self.rule.friction.astype(t.dtype) - 1) / 2
            factors = normalised_bessel(order, t * jnp.sqrt(safe))
        else:
            friction, force, kick, bend = (_cast(x, t) for x in self.rule.coefficients(t))
            # u' = -a v - b g + q H v with v = u - p g, so that v' + (a + (p - q) H) v + b g = 0.
            decay = (friction + (kick - bend) * safe) / 2
            cosine, sine = damped_oscillation(t, decay, force * safe)
            factors = cosine + (decay - kick * safe) * sine
        return self.objective.shrunk(jnp.where(curvatures == 0, 1.0, factors))

    def reduce(self, model: PyTree) -> QuadraticModes:
        """The gradient of an actual network along the eigenvectors, and its loss, weight decay included."""
        return self.objective.reduce(model)

    def limit(self) -> QuadraticModes:
        """The minimum."""
        return self.objective.shrunk(jnp.where(self.objective.initial.gradient == 0, 1.0, 0.0))


def _recursion(rule: HeavyBall | Nesterov | TripleMomentum, curvatures: Array) -> tuple[Array, Array, Array]:
    """Companion matrix, the first two values, and how the parameters are made of two of them, for each curvature."""
    dtype = curvatures.dtype
    one = jnp.ones_like(curvatures)
    sharpness = rule.learning_rate.astype(dtype) * curvatures
    if isinstance(rule, TripleMomentum):
        beta, lookahead, delta = (x.astype(dtype) for x in (rule.momentum, rule.lookahead, rule.readout))
        top = 1 + beta - sharpness * (1 + lookahead), -beta + sharpness * lookahead
        start, readout = (one, one), jnp.stack([1 + delta, -delta])
    elif isinstance(rule, HeavyBall):
        beta = rule.momentum.astype(dtype)
        top = 1 + beta - sharpness, -beta * one
        start, readout = (1 - rule.first_step.astype(dtype) * sharpness, one), jnp.asarray([0.0, 1.0], dtype)
    else:
        beta = jnp.asarray(rule.momentum, dtype)
        top = (1 + beta) * (1 - sharpness), -beta * (1 - sharpness)
        start, readout = (1 - (1 + beta) * sharpness, one), jnp.asarray([0.0, 1.0], dtype)
    rows = jnp.stack(top, axis=1), jnp.stack([one, jnp.zeros_like(one)], axis=1)
    return jnp.stack(rows, axis=1), jnp.stack(start, axis=1), readout


def _power(matrices: Float[Array, "parameters 2 2"], n: Float[Array, ""]) -> Float[Array, "parameters 2 2"]:
    """Powers by repeated squaring."""

    def body(_, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        power, square, left = carry
        power = jnp.where(jnp.mod(left, 2.0) == 1, square @ power, power)
        # Squares that nobody asks for would overflow where steps are unstable.
        return power, jnp.where(left > 1, square @ square, square), jnp.floor(left / 2)

    identity = jnp.broadcast_to(jnp.eye(2, dtype=matrices.dtype), matrices.shape)
    return jax.lax.fori_loop(0, _MOST_STEPS + 1, body, (identity, matrices, n))[0]


def _cast(x: Array | None, like: Array) -> Array:
    return jnp.zeros_like(like) if x is None else x.astype(like.dtype)


def _check_steps(rule: AbstractRule | None) -> HeavyBall | Nesterov | TripleMomentum:
    if isinstance(rule, HeavyBall | TripleMomentum) or (isinstance(rule, Nesterov) and rule.momentum is not None):
        return rule
    raise ValueError(
        "`rule` must be HeavyBall, Nesterov with a constant momentum or TripleMomentum for QuadraticMomentum; "
        f"got {rule!r}."
    )


def _check_flow(rule: AbstractRule | None) -> HeavyBallFlow | NesterovFlow:
    if isinstance(rule, HeavyBallFlow):
        return rule
    if isinstance(rule, NesterovFlow) and (rule.momentum is not None or rule.order == 1):
        largest = jnp.max(rule.friction)
        return require(rule, largest <= 21, "`friction` must be at most 21 for QuadraticAcceleration.")
    raise ValueError(
        "`rule` must be HeavyBallFlow, or NesterovFlow with a constant momentum or of order 1, for "
        f"QuadraticAcceleration; got {rule!r}."
    )
