r"""Training of linear attention with separate keys and queries of low rank: the reduced flow, and its plateaus.

Set-up. As in `LinearAttentionFlow`, with $U_h = K_h^\top Q_h$ and $K_h, Q_h\in\mathbb R^{R\times d}$: prompts of
`InContextRegression`, loss $L = \tfrac12\,\mathbb E(\hat y - w\cdot x_q)^2$, gradient flow $\tau\dot\theta = -\partial
L$ on all weights of the layer, those between inputs and labels zero.

Theory. With the effective map $A = \sum_hv_hK_h^\top Q_h$ and $G = \Lambda\Omega\Lambda_q - BA\Lambda_q$,

$$\tau\dot v_h = \langle K_h^\top Q_h, G\rangle,\qquad \tau\dot K_h = v_hQ_hG^\top,\qquad \tau\dot Q_h = v_hK_hG.$$

The flow conserves $v_h^2 - \lVert K_h\rVert_F^2$ and the matrices $K_hK_h^\top - Q_hQ_h^\top$. For isotropic tasks,
$\Omega \propto I$, and queries like the examples, $\Lambda_q = \Lambda$, it has a saddle for every set of at most $HR$
principal components of the inputs (`plateau_map`), where the network does regression on these components only. From
small weights of scale $\varepsilon$ it passes the saddles of the $m = 0, 1, 2, \dots$ largest components
(`plateau_losses`): the loss falls step by step. It dwells at each for a time $\propto1/\varepsilon$, since three small
factors have to grow together; if $m$ is no multiple of $R$, one of them has grown already and the dwell is
$\propto\ln(1/\varepsilon)$.

Source: Zhang, Singh, Latham and Saxe 2025, arXiv 2501.16265.
"""

from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import AbstractReducedFlow, AbstractRule, Assumption, FlowPath, Kind, enforce, integrate_flow
from ..rules import GradientFlow, check_flow
from ._base import AbstractAttentionSolution, AbstractHeads, check_attention, leaves_zero, uncoupled
from ._in_context_regression import InContextRegression
from ._linear_attention import SeparateAttention


class SeparateHeads(AbstractHeads):
    """The weights of linear attention with separate keys and queries that reach the prediction.

    **Attributes:**

    - `value`: $v_h$, shape `(heads,)`.
    - `key`, `query`: $K_h$ and $Q_h$ on inputs, shape `(heads, rank, inputs)`.
    """

    value: Float[Array, "*times heads"]
    key: Float[Array, "*times heads rank inputs"]
    query: Float[Array, "*times heads rank inputs"]

    @property
    def effective_map(self) -> Float[Array, "*times inputs inputs"]:
        r"""$A = \sum_hv_hK_h^\top Q_h$."""
        return jnp.einsum("...h,...hri,...hrj->...ij", self.value, self.key, self.query)

    @property
    def value_imbalance(self) -> Float[Array, "*times heads"]:
        r"""$v_h^2 - \lVert K_h\rVert_F^2$, which gradient flow conserves."""
        return self.value**2 - jnp.sum(self.key**2, axis=(-2, -1))

    @property
    def key_query_imbalance(self) -> Float[Array, "*times heads rank rank"]:
        r"""$K_hK_h^\top - Q_hQ_h^\top$, which gradient flow conserves."""
        return _gram(self.key) - _gram(self.query)


class SeparateAttentionFlow(AbstractAttentionSolution[SeparateHeads], AbstractReducedFlow[SeparateHeads]):
    """Training of linear attention with separate keys and queries, any heads, rank and weights, any task.

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
    ) -> "SeparateAttentionFlow":
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
        state, rule = separate_heads(check_attention(model, task, SeparateAttention)), check_flow(rule, cls.__name__)
        if check:
            state = enforce(state, cls.__name__, cls.assumptions(model, task, rule))
        field = eqx.Partial(separate_velocity, task, rule)
        path = integrate_flow(
            field, state, t1, solver=solver, stepsize_controller=stepsize_controller, max_steps=max_steps
        )
        return cls(path, task, rule)

    @classmethod
    def assumptions(cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """How far the case is from what the solution takes for granted."""
        state = separate_heads(check_attention(model, task, SeparateAttention))
        velocity = separate_velocity(task, check_flow(rule, cls.__name__), 0.0, state)
        moved = jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(velocity)])
        return uncoupled(model), leaves_zero(moved, state.effective_map)

    def vector_field(self, t: Any, state: SeparateHeads) -> SeparateHeads:
        """The flow of the weights."""
        return separate_velocity(self.task, self.rule, t, state)

    def reduce(self, model: SeparateAttention) -> SeparateHeads:
        """The weights of a network."""
        return separate_heads(model)


def separate_heads(model: SeparateAttention) -> SeparateHeads:
    """The weights of a network that reach the prediction."""
    return SeparateHeads(model.value[..., -1, -1], model.key[..., :-1], model.query[..., :-1])


def separate_velocity(task: InContextRegression, rule: GradientFlow, t: Any, state: SeparateHeads) -> SeparateHeads:
    """Their flow."""
    del t
    pull = -task.gradient_of_map(state.effective_map)
    pulled = state.key @ pull
    gain = SeparateHeads(
        jnp.sum(pulled * state.query, axis=(1, 2)),
        state.value[:, None, None] * (state.query @ pull.T),
        state.value[:, None, None] * pulled,
    )
    decay, tau = (x.astype(pull.dtype) for x in (rule.weight_decay, rule.time_constant))
    return jax.tree.map(lambda force, weight: (force - decay * weight) / tau, gain, state)


def _gram(rows: Float[Array, "*times heads rank inputs"]) -> Float[Array, "*times heads rank rank"]:
    return jnp.einsum("...ri,...si->...rs", rows, rows)
