r"""Training of softmax heads on regression in context: the flow of two numbers a head.

Set-up. As in `SoftmaxHeadsTask`, gradient flow $\tau\dot\theta = -\partial L$ of its loss (with the ½) on $\omega_h$ and
$\mu_h$. The paper's flow, of twice the loss, is that of `tx.GradientFlow(0.5)`.

Theory. For unit $\lambda$ and $P$,

$$\tau\dot\omega_h = \mu_h\Big[1 - \mu\cdot\omega - d\kappa\sum_k\mu_k\omega_k\,e^{d\omega_h\omega_k}\Big],\qquad
\tau\dot\mu_h = \omega_h(1 - \mu\cdot\omega) - \kappa\sum_k\mu_k\,e^{d\omega_h\omega_k}.$$

One head ends at its optimum. Two heads of opposite signs approach the infimum but never reach it: they slide along
the valley of `SoftmaxHeadsTask.opposite_heads` by

$$\tilde\omega\simeq\Big(\frac{4\kappa d^3P\,t}\tau\Big)^{-1/6},\qquad
\frac{R - R_{\inf}}P\simeq\frac{\kappa d^3}{6(1 + d\kappa)^2}\,\tilde\omega^4\propto t^{-2/3}.$$

Heads of one sign stay at the level of one head: equal $\omega_h$ with any share of $\mu$ are a valley of minima.

Source: He, Pan, Chen and Yang 2025, arXiv 2503.12734, for the loss and the optima; the law of the slide is derived here.
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
    check_finite,
    enforce,
    integrate_flow,
    require,
)
from ..rules import GradientFlow, check_flow
from ._softmax_heads import SoftmaxHeads, softmax_heads
from ._softmax_heads_task import SoftmaxHeadsTask, check_heads


class SoftmaxHeadsFlow(AbstractReducedFlow[SoftmaxHeads]):
    """Training of any number of softmax heads, in the limit of many inputs.

    Build it with `from_model`. Time is in the rule's units ($\\tau$ is its `time_constant`); the loss has its ½, a risk
    has none. The flow is exact for the loss of `SoftmaxHeadsTask`, which is that of prompts up to $O(1/d)$.

    **Attributes:**

    - `path`: the integrated numbers.
    - `task`, `rule`: the case.
    """

    path: FlowPath
    task: SoftmaxHeadsTask
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
        max_steps: int = 4096,
    ) -> "SoftmaxHeadsFlow":
        """Integrates the flow of the heads up to `t1`.

        **Arguments:**

        - `model`: `SoftmaxHeads`. `task`: a `SoftmaxHeadsTask`. `rule`: `tx.GradientFlow()` by default.
        - `t1`: the horizon, up to which the solution can be evaluated.
        - `check`: refuse what the theory does not cover.
        - `solver`, `stepsize_controller`, `max_steps`: of the integration, as in `diffrax.diffeqsolve`; `None` for
          Dopri8 with tight tolerances.

        **Raises:**

        `ValueError` for another model or task, heads that are not finite or all at rest, or if the integration fails.
        """
        state, rule = _check(model, task), check_flow(rule, cls.__name__)
        if check:
            state = enforce(state, cls.__name__, cls.assumptions(model, task, rule))
        field = eqx.Partial(_velocity, task, rule)
        path = integrate_flow(
            field,
            state,
            t1,
            solver=solver,
            stepsize_controller=stepsize_controller,
            max_steps=max_steps,
        )
        return cls(path, task, rule)

    @classmethod
    def assumptions(cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """How far the case is from what the solution takes for granted."""
        del rule
        state = _check(model, task)
        rest = jnp.all(state.omega == 0) & jnp.all(state.mu == 0)
        return (Assumption("heads that are not all zero", jnp.where(rest, jnp.inf, 0.0), 0.0),)

    def risk(self, t: ArrayLike) -> Float[Array, ""]:
        """The mean squared error (no ½) at one time, to leading order in $1/d$."""
        return self.task.risk(self.evaluate(t))

    def loss(self, t: ArrayLike) -> Float[Array, ""]:
        """Half the risk at one time."""
        return self.risk(t) / 2

    def vector_field(self, t: Any, state: SoftmaxHeads) -> SoftmaxHeads:
        """The flow of the heads."""
        return _velocity(self.task, self.rule, t, state)

    def reduce(self, model: PyTree) -> SoftmaxHeads:
        """The two numbers of each head of a network, which may be full softmax attention."""
        return softmax_heads(model)

    def limit(self) -> SoftmaxHeads:
        r"""The numbers of one head as t → ∞, where $\omega$ and $\mu$ have one sign at the horizon.

        **Raises:**

        `ValueError` for several heads (opposite ones slide on forever, see `late_heads`), for weight decay, and where the
        head has not taken a sign yet.
        """
        state = self.path.evaluate(self.t1)
        if state.heads != 1:
            raise ValueError("`limit` is known for one head only; opposite heads slide on forever, see late_heads.")
        certain = (state.mu[0] * state.omega[0] > 0) & (self.rule.weight_decay == 0)
        message = "`limit` needs ω and μ of one sign at t1, and no weight decay; here one of these fails."
        best = jax.tree.map(lambda x: x.astype(state.mu.dtype), self.task.best_head)
        sign = require(jnp.sign(state.mu), certain, message)
        return jax.tree.map(lambda x: sign * x, best)

    def late_heads(self, t: ArrayLike) -> SoftmaxHeads:
        """Two opposite heads at a late time, on their slide towards the infimum; the first one is positive."""
        t = jnp.asarray(t, self.task.power.dtype) / self.rule.time_constant.astype(self.task.power.dtype)
        rate = 4 * self.task.crowding * float(self.task.data.inputs) ** 3 * self.task.power
        return self.task.opposite_heads((rate * t) ** (-1 / 6) / self.task.variance)


def _check(model: PyTree, task: PyTree) -> SoftmaxHeads:
    """The heads, if the case is one of theory."""
    model = check_heads(model, task)
    return SoftmaxHeads(check_finite("omega", model.omega), check_finite("mu", model.mu))


def _velocity(task: SoftmaxHeadsTask, rule: GradientFlow, t: Any, state: SoftmaxHeads) -> SoftmaxHeads:
    del t
    decay, tau = (x.astype(state.mu.dtype) for x in (rule.weight_decay, rule.time_constant))
    return jax.tree.map(lambda g, w: -(g.astype(w.dtype) + decay * w) / tau, task.gradient(state), state)
