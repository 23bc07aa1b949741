r"""Logistic regression by gradient flow on orthogonal examples: every margin moves on its own, for ever.

Set-up. A linear classifier $w\cdot x$ on $n$ examples with labels $y_i = \pm1$, $z_i = y_ix_i$, loss
$\tfrac1n\sum_i\ell(m_i)$ of the margins $m_i = z_i\cdot w$, gradient flow $\tau\dot w = -\nabla L$. If the examples are
orthogonal, $z_i\cdot z_j = 0$, then with $s_i = \lVert x_i\rVert^2/n$

$$\tau\dot m_i = -s_i\,\ell'(m_i), \qquad w(t) = w(0) + \sum_i\frac{m_i(t) - m_i(0)}{\lVert z_i\rVert^2}\,z_i .$$

For the logistic loss $e^m + m$ grows at the constant rate $s/\tau$, so that $m = c - \omega(c)$ with
$c = m_0 + e^{m_0} + st/\tau$ and $\omega$ the Wright omega function; for the exponential loss
$m = \ln(e^{m_0} + st/\tau)$. Margins grow like $\ln t$ without end, all at the same speed in the end: the direction of
$w$ approaches that of largest margin, $\sum_i z_i/\lVert z_i\rVert^2$, but only as $1/\ln t$.

Source: Soudry, Hoffer, Shpigel Nacson, Gunasekar and Srebro 2018, arXiv 1710.10345, for the direction and its rate on any
separable data; the closed form on orthogonal data is elementary.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..core import AbstractRule, AbstractSolution, Assumption, Kind, check_matrix, enforce, tolerance_for
from ..rules import GradientFlow
from ._classification_task import ClassificationTask
from ._linear_classifier import LinearClassifier
from ._margin_losses import Hinge


class ClassifierState(eqx.Module):
    """A linear classifier and how well it does.

    **Attributes:**

    - `weights`: $w$, shape `(in,)`.
    - `margins`: $m_i = y_i\\,w\\cdot x_i$, shape `(examples,)`.
    """

    weights: Float[Array, " in"]
    margins: Float[Array, " examples"]


class LogisticRegressionFlow(AbstractSolution[ClassifierState]):
    r"""The exact gradient flow of a linear classifier on orthogonal examples, with any `AbstractMarginLoss`.

    Build it with `from_model`. Time is in the rule's units ($\tau$ is its `time_constant`), and the loss is a mean over
    examples.

    **Attributes:**

    - `initial`: the state at time zero.
    - `speeds`: $s_i/\tau$, shape `(examples,)`.
    - `task`: the data and their loss.
    """

    initial: ClassifierState
    speeds: Float[Array, " examples"]
    task: ClassificationTask
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "LogisticRegressionFlow":
        """The solution for a classifier and a data set, having checked that the examples are orthogonal.

        **Raises:**

        `ValueError` if the model is no `LinearClassifier` that fits the task, the rule is not gradient flow, or an
        assumption is violated.
        """
        model, task, rule = _check_case(model, task, rule)
        z = task.signed_inputs
        speeds = jnp.sum(z**2, axis=1) / z.shape[0] / rule.time_constant.astype(z.dtype)
        if rule.rates is not None:
            speeds = speeds * check_matrix("rule.rates", rule.rates, (1,))[0].astype(z.dtype)
        solution = cls(_state_of(model, task), speeds, task)
        return enforce(solution, cls.__name__, cls.assumptions(model, task, rule)) if check else solution

    @classmethod
    def assumptions(cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """How far the case is from what the solution takes for granted."""
        _, task, rule = _check_case(model, task, rule)
        norms = jnp.linalg.norm(task.inputs, axis=1)
        unit = task.inputs / jnp.where(norms == 0, 1.0, norms)[:, None]
        cosines = jnp.where(jnp.eye(norms.shape[0], dtype=bool), 0.0, unit @ unit.T)
        tolerance = tolerance_for(unit)
        return (
            Assumption("orthogonal examples, xᵢ·xⱼ = 0", jnp.max(jnp.abs(cosines)), tolerance),
            Assumption("no weight decay", jnp.abs(rule.weight_decay), 0.0),
        )

    def state(self, t: Float[Array, ""]) -> ClassifierState:
        """The classifier at time `t`."""
        z, start = self.task.signed_inputs, self.initial
        moving = self.speeds > 0
        clock = jnp.where(moving, self.speeds, 0.0) * jnp.where(moving, t.astype(z.dtype), 0.0)
        margins = self.task.margin_loss.descend(start.margins, clock)
        return ClassifierState(start.weights + (margins - start.margins) @ _dual(z), margins)

    def reduce(self, model: LinearClassifier) -> ClassifierState:
        """The weights and margins of a classifier."""
        return _state_of(*check_classifier(model, self.task))

    def vector_field(self, t: Float[Array, ""], state: ClassifierState) -> ClassifierState:
        """The flow of weights and margins, from the slopes of the loss."""
        del t
        z = self.task.signed_inputs
        slopes = -jax.grad(lambda margins: jnp.sum(self.task.margin_loss(margins)))(state.margins)
        velocity = self.speeds * slopes
        return ClassifierState(velocity @ _dual(z), velocity)

    def loss(self, t: Any) -> Float[Array, ""]:
        """The mean loss at one time."""
        return jnp.mean(self.task.margin_loss(self.evaluate(t).margins))

    def final_direction(self) -> Float[Array, " in"]:
        """The direction of largest margin, a unit vector, which a loss that never vanishes approaches as $1/\\ln t$."""
        total = jnp.sum(_dual(self.task.signed_inputs), axis=0)
        norm = jnp.linalg.norm(total)
        return total / jnp.where(norm == 0, 1.0, norm)

    def limit(self) -> ClassifierState:
        """The state as t → ∞, which exists for the hinge loss only."""
        if not isinstance(self.task.margin_loss, Hinge):
            raise ValueError("The weights of LogisticRegressionFlow grow for ever; see `final_direction`.")
        return self.state(jnp.asarray(jnp.inf, self.speeds.dtype))


def _dual(z: Array) -> Array:
    """zᵢ/‖zᵢ‖², and zero for a vanishing example."""
    squares = jnp.sum(z**2, axis=1)
    return z / jnp.where(squares == 0, 1.0, squares)[:, None]


def _state_of(model: LinearClassifier, task: ClassificationTask) -> ClassifierState:
    return ClassifierState(model.weights, task.margins(model))


def _check_case(model: Any, task: Any, rule: Any) -> tuple[LinearClassifier, ClassificationTask, GradientFlow]:
    rule = GradientFlow() if rule is None else rule
    if not isinstance(rule, GradientFlow):
        raise ValueError(f"`rule` must be tx.GradientFlow for LogisticRegressionFlow; got {type(rule).__name__}.")
    return *check_classifier(model, task), rule


def check_classifier(model: Any, task: Any) -> tuple[LinearClassifier, ClassificationTask]:
    """The model and the task, if they are a linear classifier and a data set that it fits."""
    if not isinstance(model, LinearClassifier):
        raise ValueError(f"`model` must be a LinearClassifier; got {type(model).__name__}.")
    if not isinstance(task, ClassificationTask):
        raise ValueError(f"`task` must be a ClassificationTask; got {type(task).__name__}.")
    if model.weights.shape != task.inputs.shape[1:]:
        raise ValueError(f"`model` must have {task.inputs.shape[1]} inputs, as `task` has; got {model.weights.shape[0]}.")
    return model, task
