r"""Grokking as the passage from lazy to rich learning: a network of quadratic units, in two moments of its weights.

Set-up. $f(x) = \frac\alpha N\sum_i\phi(w_i\cdot x)$, $\phi(h) = h + \tfrac\epsilon2h^2$, of which the $w_i$ are trained;
a target polynomial of second degree, $y = \tfrac12(\beta\cdot x)^2$ in the source; inputs normal with covariance $I/D$,
$P$ of them for training, or all; loss $L = \tfrac12\langle(f - y)^2\rangle$, gradient flow $\tau\dot w_i = -\partial L$.
At $\tau = \alpha^2/N$, the source's time unit, the tangent kernel has no prefactor.

Theory. The network is a polynomial of second degree that depends on $\bar w = \frac1N\sum_iw_i$ and
$M = \frac1N\sum_iw_iw_i^\top$ alone, $f(x) = \alpha\,(\bar w\cdot x + \tfrac\epsilon2x^\top Mx)$. These obey

$$\tau\dot{\bar w} = \tfrac\alpha N(g + \epsilon S\bar w),\qquad
\tau\dot M = \tfrac\alpha N\bigl(g\bar w^\top + \bar wg^\top + \epsilon(SM + MS)\bigr),\qquad
g = \langle rx\rangle,\quad S = \langle rxx^\top\rangle,\quad r = y - f:$$

$D(D + 1)$ numbers, exact for any number of units and examples. The test error is that of the polynomial.

Source: Kumar, Bordelon, Gershman and Pehlevan 2023, arXiv 2310.06110 (the model and what it shows). They solve it in
the limit of many units; the two moments make that unnecessary.
"""

from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import (
    AbstractReducedFlow,
    AbstractRule,
    Assumption,
    FlowPath,
    Kind,
    as_float_array,
    check_matrix,
    enforce,
    integrate_flow,
)
from ..rules import GradientFlow, check_flow, no_weight_decay
from ._polynomial_network import PolynomialNetwork, QuadraticPolynomial
from ._polynomial_task import PolynomialTask


class PolynomialMoments(eqx.Module):
    """The weights of a network of quadratic units, as far as its outputs can tell.

    **Attributes:**

    - `mean`: $\\bar w$, shape `(in,)`.
    - `second`: $M$, shape `(in, in)`.
    """

    mean: Float[Array, "*times in"]
    second: Float[Array, "*times in in"]


class PolynomialGrokking(AbstractReducedFlow[PolynomialMoments]):
    """Training of a network of quadratic units on a polynomial target, with its training and test error.

    Build it with `from_model`. Time is in the rule's units ($\\tau$ is its `time_constant`).

    **Attributes:**

    - `path`: the integrated moments.
    - `initial`: the network at time zero.
    - `task`, `rule`: the case.
    """

    path: FlowPath
    initial: PolynomialNetwork
    task: PolynomialTask
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
        solver: diffrax.AbstractSolver | None = None,
        stepsize_controller: diffrax.AbstractStepSizeController | None = None,
        max_steps: int = 2048,
    ) -> "PolynomialGrokking":
        """Integrates the moments of a network's weights up to `t1`.

        **Arguments:**

        - `model`: a `PolynomialNetwork`.
        - `task`: a `PolynomialTask`, with a training set or the population.
        - `rule`: defaults to `tx.GradientFlow()`; `tx.GradientFlow(model.time_constant)` is the source's.
        - `t1`: the horizon, up to which the solution can be evaluated.
        - `check`: refuse what the theory does not cover.
        - `solver`, `stepsize_controller`, `max_steps`: of the integration, as in `tractax.core.integrate_flow`.

        **Raises:**

        `ValueError` for another kind of network, task or rule, weight decay, or an integration that fails.
        """
        model, task, rule = _check_case(cls.__name__, model, task, rule)
        start = _moments(model)
        if check:
            start = enforce(start, cls.__name__, cls.assumptions(model, task, rule))
        path = integrate_flow(
            eqx.Partial(_velocity, model, task, rule),
            start,
            t1,
            solver=solver,
            stepsize_controller=stepsize_controller,
            max_steps=max_steps,
        )
        return cls(path, model, task, rule)

    @classmethod
    def assumptions(cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """How far the case is from what the solution takes for granted."""
        return (no_weight_decay(_check_case(cls.__name__, model, task, rule)[2]),)

    def vector_field(self, t: Any, state: PolynomialMoments) -> PolynomialMoments:
        """The flow of the moments."""
        return _velocity(self.initial, self.task, self.rule, t, state)

    def reduce(self, model: PolynomialNetwork) -> PolynomialMoments:
        """The moments of a network's weights."""
        return _moments(model)

    def polynomial(self, t: ArrayLike) -> QuadraticPolynomial:
        """What the network computes at one time."""
        return _polynomial(self.initial, self.evaluate(t))

    def train_error(self, t: ArrayLike) -> Float[Array, ""]:
        """The mean squared error over the training set at one time: twice the loss."""
        return 2 * self.task.loss_of_polynomial(self.polynomial(t))

    def test_error(self, t: ArrayLike) -> Float[Array, ""]:
        """The mean squared error over the population at one time."""
        return (self.polynomial(t) - self.task.target).power

    def tangent_kernel(self, t: ArrayLike, inputs: Float[ArrayLike, "examples in"]) -> Float[Array, "examples examples"]:
        r"""The tangent kernel $\frac{\alpha^2}N\,x\cdot x'\,(1 + \epsilon\bar w\cdot(x + x') + \epsilon^2x^\top Mx')$.

        **Arguments:**

        - `t`: one time.
        - `inputs`: one a row, shape `(examples, in)`.
        """
        state, epsilon = self.evaluate(t), self.initial.curvature
        inputs = check_matrix("inputs", as_float_array("inputs", inputs), (None, state.mean.shape[0]))
        inputs = inputs.astype(state.mean.dtype)
        along = epsilon * inputs @ state.mean
        slopes = 1 + along[:, None] + along[None, :] + epsilon**2 * inputs @ state.second @ inputs.T
        return self.initial.time_constant * (inputs @ inputs.T) * slopes


def _check_case(theory: str, model: Any, task: Any, rule: Any) -> tuple[PolynomialNetwork, PolynomialTask, GradientFlow]:
    if not isinstance(model, PolynomialNetwork):
        raise ValueError(f"`model` must be a PolynomialNetwork for {theory}; got {type(model).__name__}.")
    if not isinstance(task, PolynomialTask):
        raise ValueError(f"`task` must be a PolynomialTask for {theory}; got {type(task).__name__}.")
    wanted, got = task.target.linear.shape[0], model.first.shape[1]
    if wanted != got:
        raise ValueError(f"`model` must have {wanted} inputs to fit `task`; got {got}.")
    return model, task, check_flow(rule, theory)


def _moments(model: PolynomialNetwork) -> PolynomialMoments:
    return PolynomialMoments(jnp.mean(model.first, axis=0), model.first.T @ model.first / model.first.shape[0])


def _polynomial(model: PolynomialNetwork, state: PolynomialMoments) -> QuadraticPolynomial:
    return QuadraticPolynomial(model.output_scale * state.mean, model.output_scale * model.curvature * state.second)


def _velocity(
    model: PolynomialNetwork, task: PolynomialTask, rule: GradientFlow, t: Any, state: PolynomialMoments
) -> PolynomialMoments:
    del t
    # By the coefficients l and Q of the polynomial the loss has the gradients -<rx> and -<rxx'>/2.
    gradient = jax.grad(task.loss_of_polynomial)(_polynomial(model, state))
    pull, turn = -gradient.linear, -2 * model.curvature * gradient.quadratic
    rate = model.output_scale / (model.first.shape[0] * rule.time_constant.astype(pull.dtype))
    half = pull[:, None] * state.mean[None, :] + turn @ state.second
    return PolynomialMoments(rate * (pull + turn @ state.mean), rate * (half + half.T))
