r"""Training of linear self-attention with merged keys and queries: the reduced flow, for any number of heads.

Set-up. One layer of linear attention on prompts of `InContextRegression`: any covariance $\Lambda$ of the inputs, tasks
$w\sim\mathcal N(0, \Omega)$ (the papers: $\Omega = I$), $N$ examples in a prompt. The loss is $L = \tfrac12\,\mathbb
E(\hat y - w\cdot x_q)^2$, and gradient flow $\tau\dot\theta = -\partial L$ moves all weights of the layer. Those that mix
inputs and labels stay at zero if they start there; what moves are one number $v_h$ and one matrix $U_h$ per head. They
enter through the effective map $A = \sum_hv_hU_h$ only,

$$\tau\dot v_h = \langle U_h, G\rangle,\qquad \tau\dot U_h = v_hG,\qquad G = \Lambda\Omega\Lambda_q - BA\Lambda_q,$$

with $B = (1 + \tfrac1N)\Lambda\Omega\Lambda + \tfrac1N(\operatorname{tr}\Omega\Lambda + \sigma^2)\Lambda$, which is
$\Gamma\Lambda$ for $\Omega = I$. The flow conserves the matrix $v_hv_k - \langle U_h, U_k\rangle$. Its fixed points are
of two kinds: saddles with $A = 0$, and minima with $A = B^{-1}\Lambda\Omega$, which is $\Gamma^{-1}$. From small weights
the loss stays at that of $A = 0$ and falls once, at about
$t = \tau\ln(1/\varepsilon)/\lVert\Lambda\Omega\Lambda_q\rVert_F$.

Time: the papers differ. With the loss without ½ and $\tau\dot\theta = -\tfrac12\partial L$ trajectories are the same, and
losses twice as large.

Source: Zhang, Frei and Bartlett 2023, arXiv 2306.09927 (one head); Zhang, Singh, Latham and Saxe 2025, arXiv 2501.16265
(several). Tasks and queries that are not isotropic are derived here.
"""

from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import AbstractReducedFlow, AbstractRule, Assumption, FlowPath, Kind, enforce, integrate_flow, require
from ..rules import GradientFlow, check_flow
from ._base import AbstractAttentionSolution, AbstractHeads, check_attention, leaves_zero, uncoupled
from ._in_context_regression import InContextRegression
from ._linear_attention import LinearAttention


class MergedHeads(AbstractHeads):
    """The weights of merged linear attention that reach the prediction.

    **Attributes:**

    - `value`: $v_h$, shape `(heads,)`.
    - `key_query`: $U_h$, shape `(heads, inputs, inputs)`.
    """

    value: Float[Array, "*times heads"]
    key_query: Float[Array, "*times heads inputs inputs"]

    @property
    def effective_map(self) -> Float[Array, "*times inputs inputs"]:
        r"""$A = \sum_hv_hU_h$."""
        return jnp.einsum("...h,...hij->...ij", self.value, self.key_query)

    @property
    def imbalance(self) -> Float[Array, "*times heads heads"]:
        r"""$v_hv_k - \langle U_h, U_k\rangle$, which gradient flow conserves."""
        values = self.value[..., :, None] * self.value[..., None, :]
        return values - jnp.einsum("...hij,...kij->...hk", self.key_query, self.key_query)


class LinearAttentionFlow(AbstractAttentionSolution[MergedHeads], AbstractReducedFlow[MergedHeads]):
    """Training of linear attention with merged keys and queries, any heads, any weights, any task.

    Build it with `from_model`. Time is in the rule's units ($\\tau$ is its `time_constant`); the loss has its ½, a risk
    has none.

    **Attributes:**

    - `path`: the integrated weights.
    - `task`, `rule`: the case.
    """

    path: FlowPath
    task: InContextRegression
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
    ) -> "LinearAttentionFlow":
        """Integrates the flow of a network's weights up to `t1`.

        **Arguments:**

        - `model`, `task`, `rule`: the case. `rule` defaults to `tx.GradientFlow()`.
        - `t1`: the horizon, up to which the solution can be evaluated.
        - `check`: refuse what the theory does not cover.
        - `solver`, `stepsize_controller`, `max_steps`: of the integration, as in `diffrax.diffeqsolve`; `None` for
          Dopri8 with tight tolerances.

        **Raises:**

        `ValueError` if the network does not fit the task, mixes inputs and labels or never moves, or if the integration
        fails.
        """
        state, rule = merged_heads(check_attention(model, task, LinearAttention)), check_flow(rule, cls.__name__)
        if check:
            state = enforce(state, cls.__name__, cls.assumptions(model, task, rule))
        field = eqx.Partial(merged_velocity, task, rule)
        path = integrate_flow(
            field, state, t1, solver=solver, stepsize_controller=stepsize_controller, max_steps=max_steps
        )
        return cls(path, task, rule)

    @classmethod
    def assumptions(cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """How far the case is from what the solution takes for granted."""
        state = merged_heads(check_attention(model, task, LinearAttention))
        rule = check_flow(rule, cls.__name__)
        velocity = merged_velocity(task, rule, 0.0, state)
        moved = jnp.concatenate([velocity.value, jnp.ravel(velocity.key_query)])
        return uncoupled(model), leaves_zero(moved, state.effective_map)

    def vector_field(self, t: Any, state: MergedHeads) -> MergedHeads:
        """The flow of the weights."""
        return merged_velocity(self.task, self.rule, t, state)

    def reduce(self, model: LinearAttention) -> MergedHeads:
        """The weights of a network."""
        return merged_heads(model)

    @property
    def norm_bound(self) -> Float[Array, ""]:
        r"""A lower bound on $\lVert A(t)\rVert_F$ at every time, if the loss starts below that of the saddle at zero.

        $(L_0 - L(0))/\lVert\Lambda\Omega\Lambda_q\rVert_F$ with $L_0 = \tfrac12\operatorname{tr}\Omega\Lambda_q$, or
        zero. For one balanced head, $v^2 = \lVert U\rVert_F^2$, it bounds $v(t)^2 = \lVert A(t)\rVert_F$.
        """
        gain = -self._above_zero(self.state(jnp.zeros_like(self.t1)))
        bound = jnp.maximum(gain, 0.0) / jnp.linalg.norm(self.task.drive)
        return jnp.where(self.rule.weight_decay == 0, bound, 0.0)

    def _above_zero(self, state: MergedHeads) -> Float[Array, ""]:
        """The loss, from that of zero weights."""
        a = state.effective_map
        return jnp.sum(a * (self.task.gradient_of_map(a) - self.task.drive)) / 2

    def limit(self) -> MergedHeads:
        r"""The weights of one head as t → ∞: $A = $ `task.optimum`, shared out between $v$ and $U$ as $v^2 - \lVert
        U\rVert^2$ says.

        **Raises:**

        `ValueError` for several heads (whose share in the optimum no conserved quantity tells), for weight decay, and
        where the loss at the horizon is not yet below that of zero weights: the flow may end at the saddle then.
        """
        if self.path.evaluate(self.t1).value.shape[0] != 1:
            raise ValueError("`limit` is known for one head only; the effective map tends to `task.optimum`.")
        state, optimum = self.state(self.t1), self.task.optimum
        values = jnp.linalg.eigvalsh(self.task.query_covariance)
        certain = (self._above_zero(state) < 0) & (self.rule.weight_decay == 0)
        certain = certain & (values[0] > values.shape[0] * jnp.finfo(values.dtype).eps * values[-1])
        message = (
            "`limit` needs a loss at t1 below that of zero weights, no weight decay and queries that vary in every "
            "direction; here one of these fails."
        )
        optimum = require(optimum, certain, message)
        imbalance, square = state.imbalance[0, 0], jnp.sum(optimum**2)
        root = jnp.sqrt(imbalance**2 + 4 * square)
        # Both are v²; where one cancels, the other does not.
        power = jnp.where(imbalance > 0, (root + imbalance) / 2, 2 * square / (root - imbalance))
        value = jnp.sign(state.value) * jnp.sqrt(power)
        return MergedHeads(value, optimum[None] / value[:, None, None])


def merged_heads(model: LinearAttention) -> MergedHeads:
    """The weights of a network that reach the prediction."""
    return MergedHeads(model.value[..., -1, -1], model.key_query[..., :-1, :-1])


def merged_velocity(task: InContextRegression, rule: GradientFlow, t: Any, state: MergedHeads) -> MergedHeads:
    """Their flow."""
    del t
    pull = -task.gradient_of_map(state.effective_map)
    gain = MergedHeads(jnp.einsum("hij,ij->h", state.key_query, pull), state.value[:, None, None] * pull[None])
    decay, tau = (x.astype(pull.dtype) for x in (rule.weight_decay, rule.time_constant))
    return jax.tree.map(lambda force, weight: (force - decay * weight) / tau, gain, state)
