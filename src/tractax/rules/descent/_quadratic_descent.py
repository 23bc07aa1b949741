r"""Descent on a quadratic loss, by steps and by the flows that follow them.

Set-up: any model and task whose loss is quadratic in the parameters, with Hessian $H$ of eigenvalues $\lambda_i$ (to
which weight decay adds its $\gamma$), and steps of gradient descent with learning rate $h$. In the direction of an
eigenvector the gradient after $n$ steps is

$$g_i(n) = m_i^n\,g_i(0),\qquad m_i = 1 - h\lambda_i$$

for descent and for its principal flow, and $m_i = \exp(-\sum_{k\le p}(h\lambda_i)^k/k)$ for the modified flow of order
$p$. The loss is $L(0) - \sum_i g_i(0)^2(1 - m_i^{2n})/(2\lambda_i)$. Steps are stable while $|1 - h\lambda_i| < 1$, that
is for $h < 2/\lambda_{\max}$; modified flows have their own thresholds, or none.

Loss: the task's own. Time: $t = hn$, or $n$ times the rule's `time_per_step`.

Source: Rosca, Wu, Qin, Dherin 2023 (arXiv 2302.01952).
"""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ...core import (
    AbstractRule,
    AbstractSolution,
    AbstractTask,
    Assumption,
    Kind,
    enforce,
    require,
)
from ._gradient_descent import GradientDescent
from ._modified_flow import ModifiedFlow
from ._principal_flow import PrincipalFlow, log_ratio
from ._quadratic_loss import QuadraticModes, SpectralLoss, quadratic_losses


class QuadraticDescent(AbstractSolution[QuadraticModes]):
    r"""Gradient descent, its modified flows or its principal flow on a loss that is quadratic in the parameters.

    Where $h\lambda_i > 1$, descent changes the sign of a mode at every step. Between the steps the real part of the
    complex principal flow is returned, $|1 - h\lambda_i|^n\cos\pi n$.

    **Attributes:**

    - `objective`: the loss in the eigenvectors of its Hessian, weight decay included; `objective.directions` are $u_i$ as
      columns, of parameters in the order of `jax.flatten_util.ravel_pytree`.
    - `learning_rate`, `time_per_step`: $h$, and the time that one step takes.
    - `order`: of the modified flow; `None` for descent itself and its principal flow.
    """

    objective: SpectralLoss
    learning_rate: Float[Array, ""]
    time_per_step: Float[Array, ""]
    order: int | None = eqx.field(static=True)
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: PyTree, task: AbstractTask, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "QuadraticDescent":
        """The solution for this model, whose parameters must be few enough to form their Hessian.

        **Arguments:**

        - `model`, `task`: any whose loss is quadratic in the trainable numbers.
        - `rule`: `tx.GradientDescent` with `optax.sgd` on the full loss, `ModifiedFlow` or `PrincipalFlow`.
        - `check`: whether to refuse a loss that is not quadratic; if not, its quadratic approximation is solved.

        **Raises:**

        `ValueError` for another rule, or a loss that is not quadratic.
        """
        rule = _check_rule(rule)
        objective = SpectralLoss.about(model, task, rule.weight_decay)
        dtype = objective.curvatures.dtype
        rate = rule.learning_rate.astype(dtype)
        solution = cls(
            objective=objective,
            learning_rate=rate,
            time_per_step=rule.time_per_step.astype(dtype) if isinstance(rule, GradientDescent) else rate,
            order=rule.order if isinstance(rule, ModifiedFlow) else None,
        )
        return enforce(solution, cls.__name__, cls.assumptions(model, task, rule)) if check else solution

    @staticmethod
    def assumptions(model: PyTree, task: AbstractTask, rule: AbstractRule | None = None) -> list[Assumption]:
        """What the theory takes for granted: the Hessian is the same elsewhere."""
        del rule
        return [quadratic_losses("quadratic loss", model, task.loss)]

    def reduce(self, model: PyTree) -> QuadraticModes:
        """The gradient of an actual network along the eigenvectors, and its loss, weight decay included."""
        return self.objective.reduce(model)

    @property
    def curvatures(self) -> Float[Array, " parameters"]:
        r"""$\lambda_i$, ascending."""
        return self.objective.curvatures

    @property
    def initial(self) -> QuadraticModes:
        """The state at time zero."""
        return self.objective.initial

    @property
    def multipliers(self) -> Float[Array, " parameters"]:
        """$m_i$, by which a step, or a flow in the same time, multiplies the gradient along each eigenvector."""
        return 1 - self._sharpness if self.order is None else jnp.exp(self._log_multipliers(self._sharpness))

    @property
    def threshold(self) -> Float[Array, ""]:
        r"""$2/\lambda_{\max}$, the learning rate above which steps of descent grow; infinite without curvature."""
        highest = self.curvatures[-1]
        return jnp.where(highest > 0, 2 / jnp.where(highest > 0, highest, 1.0), jnp.inf)

    def state(self, t: Float[Array, ""]) -> QuadraticModes:
        """The gradient along the eigenvectors and the loss, at one time."""
        x = self._sharpness
        n = t.astype(x.dtype) / self.time_per_step
        power, change = self._powers(n)
        # (m^{2n} - 1)/x, which is -2n without curvature. Directions without gradient spend nothing, however long.
        spent = jnp.where(x == 0, -2 * n, change / jnp.where(x == 0, 1.0, x))
        squares = self.initial.gradient**2
        gain = jnp.sum(jnp.where(squares == 0, 0.0, squares * spent))
        return QuadraticModes(power * self.initial.gradient, self.initial.loss + self.learning_rate * gain / 2)

    def limit(self) -> QuadraticModes:
        """The minimum, where every mode with a gradient decays.

        **Raises:**

        `ValueError` if one grows, alternates or stays.
        """
        settles = (jnp.abs(self.multipliers) < 1) | (self.initial.gradient == 0)
        message = "QuadraticDescent has no limit: a direction with a gradient has a multiplier of 1 or more."
        return self.state(require(jnp.full_like(self.learning_rate, jnp.inf), jnp.all(settles), message))

    def vector_field(self, t: Float[Array, ""], state: QuadraticModes) -> QuadraticModes:
        r"""The velocity of the modes and of the loss, where they obey a real equation: for descent, $h\lambda_i < 1$."""
        del t
        x = self._sharpness
        if self.order is None:
            message = "`learning_rate` must be below 1 / curvature for a real flow; descent alternates beyond."
            x = require(x, jnp.all(x < 1), message)
        loss = -self.learning_rate * jnp.sum(self._strength(x) * state.gradient**2)
        gradient = self._log_multipliers(x) * state.gradient
        return QuadraticModes(gradient / self.time_per_step, loss / self.time_per_step)

    @property
    def _sharpness(self) -> Float[Array, " parameters"]:
        return self.learning_rate * self.curvatures

    def _strength(self, x: Array) -> Array:
        """How many times faster than gradient flow: -log(1 - x)/x, or its series to the order of the flow."""
        if self.order is None:
            return log_ratio(x)
        return jnp.polyval(jnp.asarray([1 / k for k in range(self.order, 0, -1)], x.dtype), x)

    def _log_multipliers(self, x: Array) -> Array:
        return -x * self._strength(x)

    def _powers(self, n: Array) -> tuple[Array, Array]:
        """$m^n$ and $m^{2n} - 1$."""
        x = self._sharpness
        smooth = x < 1 if self.order is None else jnp.full(x.shape, True)
        log = self._log_multipliers(jnp.where(smooth, x, 0.0))
        exponent = jnp.where(log == 0, 0.0, n * log)
        power, change = jnp.exp(exponent), jnp.expm1(2 * exponent)
        if self.order is not None:
            return power, change
        size = jnp.abs(1 - jnp.where(smooth, 1.5, x)) ** n
        turned = jnp.where(size == 0, 0.0, size * jnp.cos(jnp.pi * jnp.mod(n, 2.0)))
        return jnp.where(smooth, power, turned), jnp.where(smooth, change, turned**2 - 1)


def _check_rule(rule: AbstractRule | None) -> GradientDescent | ModifiedFlow | PrincipalFlow:
    if isinstance(rule, ModifiedFlow | PrincipalFlow):
        return rule
    if isinstance(rule, GradientDescent) and rule.optimiser is optax.sgd and rule.batch_size is None:
        return rule
    raise ValueError(
        "`rule` must be tx.GradientDescent with optax.sgd on the full loss, tx.rules.ModifiedFlow or "
        f"tx.rules.PrincipalFlow for QuadraticDescent; got {rule!r}."
    )
