r"""Training of attention over tokens in long contexts: the gradient flow of decoder and attention, written out.

Set-up. A `TokenAttention` network with decoder $Y$ and logits of attention $Z$ on a `NextTokenTask` in long contexts:
any distribution $p(l\mid n)$ of tokens, any last tokens $\psi(n)$, any weights at the start, at least as many outputs as
there are next tokens. The loss $L$ is the cross-entropy in nats; gradient flow $\tau\dot\theta = -\eta_\theta\,\partial
L$ may have different rates $\eta_Y$ and $\eta_Z$.

Theory. With $f_n$ the normalised attention of class $n$ and $\alpha_n = \operatorname{softmax}(Y^\top f_n)$,

$$\tau\dot Y = \eta_Y\sum_nP(n)\,f_n(e_n - \alpha_n)^\top,\qquad
\tau\dot z_m = \eta_Z\sum_{n:\,\psi(n) = m}P(n)\,\operatorname{diag}(f_n)\,(I - f_nf_n^\top)\,Y(e_n - \alpha_n).$$

Every $\sum_lz_{ml}$ is conserved. Logits of tokens that do not occur never move, nor do decoder rows.

Source: Tian, Wang, Chen and Du 2023, arXiv 2305.16380.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import AbstractReducedFlow, AbstractRule, Assumption, FlowPath, Kind, check_matrix, integrate_flow
from ..rules import GradientFlow, check_flow
from ._next_token import NextTokenTask, check_token_attention
from ._token_attention import TokenAttention, attention_features


class TokenAttentionFlow(AbstractReducedFlow[TokenAttention]):
    r"""Training of attention over tokens, any distribution, any weights. The state is the network itself.

    Build it with `from_model`. Time is in the rule's units ($\tau$ is its `time_constant`; its `rates` are $\eta_Y$ and
    $\eta_Z$).

    **Attributes:**

    - `path`: the integrated weights.
    - `task`, `rule`: the case.
    """

    path: FlowPath
    task: NextTokenTask
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
        max_steps: int = 4096,
    ) -> "TokenAttentionFlow":
        """Integrates the flow of a network up to `t1`.

        **Arguments:**

        - `model`, `task`, `rule`: the case. `rule` defaults to `tx.GradientFlow()`.
        - `t1`: the horizon, up to which the solution can be evaluated.
        - `check`: has no effect; any case is covered.
        - `max_steps`: of the integration.

        **Raises:**

        `ValueError` if the network does not fit the task, the rule is not gradient flow, or the integration fails.
        """
        del check
        model, rule = check_token_attention(model, task), check_flow(rule, cls.__name__, rates=True)
        path = integrate_flow(eqx.Partial(_velocity, task, rule), model, t1, max_steps=max_steps)
        return cls(path, task, rule)

    @classmethod
    def assumptions(cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """None: any start and distribution are covered."""
        check_token_attention(model, task)
        check_flow(rule, cls.__name__, rates=True)
        return ()

    def vector_field(self, t: Any, state: TokenAttention) -> TokenAttention:
        """The flow of the weights."""
        return _velocity(self.task, self.rule, t, state)

    def reduce(self, model: TokenAttention) -> TokenAttention:
        """The network."""
        return model

    def loss(self, t: ArrayLike) -> Float[Array, ""]:
        """The task's loss at one time."""
        return self.task.loss(self.evaluate(t))

    def attention_map(self, t: ArrayLike) -> Float[Array, "classes tokens"]:
        """What the last token of every class attends to at one time; rows sum to one."""
        return self.task.attention_map(self.evaluate(t))


def two_rates(rule: GradientFlow, dtype: Any) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    r"""$\eta_Y/\tau$, $\eta_Z/\tau$ and the weight decay of a rule."""
    rates = jnp.ones(2, dtype) if rule.rates is None else check_matrix("rule.rates", rule.rates, (2,)).astype(dtype)
    decoder, attention = rates / rule.time_constant.astype(dtype)
    return decoder, attention, rule.weight_decay.astype(dtype)


def _velocity(task: NextTokenTask, rule: GradientFlow, t: Any, state: TokenAttention) -> TokenAttention:
    del t
    dtype, last = state.logits.dtype, jnp.asarray(task.last)
    f = attention_features(task.distribution.astype(dtype), state.logits[last])
    wrong = jnp.eye(task.classes, state.outputs, dtype=dtype) - jax.nn.softmax(f @ state.decoder, axis=1)
    wrong = task.probabilities.astype(dtype)[:, None] * wrong
    pull = wrong @ state.decoder.T
    turn = f * (pull - f * jnp.sum(f * pull, axis=1, keepdims=True))
    to_logits = jnp.zeros_like(state.logits).at[last].add(turn)
    eta_y, eta_z, decay = two_rates(rule, dtype)
    velocities = (eta_y * (f.T @ wrong - decay * state.decoder), eta_z * (to_logits - decay * state.logits))
    return eqx.tree_at(lambda network: (network.decoder, network.logits), state, velocities)
