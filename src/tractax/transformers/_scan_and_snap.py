r"""Scan and snap: attention over tokens moves from what classes share to what tells them apart, and freezes.

Set-up. As in `TokenAttentionFlow`, with $K$ classes that differ by their names only: equally likely, each with a last
token of its own, the same frequencies $p_l$ of tokens that all share and of as many tokens that only this class has
(distinct tokens), and as many outputs as classes. The network starts alike for all classes, as from zero weights, and
then stays so.

Theory. The decoder is zero for shared tokens, and $y_l(e_n - 1/K)$ for a distinct token $l$ of class $n$. With $f$ the
normalised attention, the gap $h = \sum_lf_ly_l$ between the logit of the right class and any other, and $\beta = 1/(e^h +
K - 1)$,

$$\tau\dot y_l = \eta_Y\,\beta f_l,\qquad
\tau\dot z_l = \eta_Z\tfrac{K-1}K\,\beta f_l\,(y_l - f_lh),\qquad L = \ln\big(1 + (K-1)e^{-h}\big),$$

with $y_l = 0$ for shared tokens. From zero weights these lose attention at all times, $\dot z_l < 0$, and the distinct
ones gain, the frequent ones most. As $h$ grows, like $\ln t$ in the end, $\beta$ stops it all.

Source: Tian, Wang, Chen and Du 2023, arXiv 2305.16380, for the model; the reduction is derived here.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, PyTree

from ..core import (
    AbstractReducedFlow,
    AbstractRule,
    AbstractSolution,
    Assumption,
    FlowPath,
    Kind,
    enforce,
    integrate_flow,
    relative_norm,
    tolerance_for,
)
from ..rules import GradientFlow, check_flow
from ._next_token import NextTokenTask, check_token_attention
from ._token_attention import TokenAttention, attention_features
from ._token_attention_flow import two_rates


class ScanAndSnapState(eqx.Module):
    """The weights of one class, the first; the others are the same.

    **Attributes:**

    - `decoder`: $y_l$, zero unless the token is a distinct one of this class, shape `(tokens,)`.
    - `logits`: $z_l$, shape `(tokens,)`.
    """

    decoder: Float[Array, "*times tokens"]
    logits: Float[Array, "*times tokens"]


class AlikeClasses(eqx.Module):
    """What classes have in common that differ by their names only.

    **Attributes:**

    - `frequencies`: $p_l$ in the first class, shape `(tokens,)`.
    - `distinct`: which tokens occur in the first class only, shape `(tokens,)`.
    - `classes`: $K$.
    - `last`: the last token of the first class.
    """

    frequencies: Float[Array, " tokens"]
    distinct: Bool[Array, " tokens"]
    classes: int = eqx.field(static=True)
    last: int = eqx.field(static=True)

    def state_of(self, model: TokenAttention) -> ScanAndSnapState:
        """The weights of the first class in a network."""
        strengths = model.decoder[:, 0] * (self.classes / (self.classes - 1))
        return ScanAndSnapState(jnp.where(self.distinct, strengths, 0.0), model.logits[self.last])

    def attention(self, logits: Float[Array, " tokens"]) -> Float[Array, " tokens"]:
        """$c$, which sums to one."""
        features = self.features(logits)
        return features / jnp.sum(features)

    def features(self, logits: Float[Array, " tokens"]) -> Float[Array, " tokens"]:
        """$f$, of length one."""
        return attention_features(self.frequencies, logits)

    def shared_share(self, logits: Float[Array, " tokens"]) -> Float[Array, ""]:
        r"""$\rho$, the sum of $f_l^2$ over tokens that are not distinct."""
        return jnp.sum(jnp.where(self.distinct, 0.0, self.features(logits) ** 2))

    def speed(self, gap: Float[Array, ""]) -> Float[Array, ""]:
        r"""$\beta = 1/(e^h + K - 1)$, how wrong the network still is."""
        return 1 / (jnp.exp(gap) + (self.classes - 1))


class AbstractScanAndSnap(AbstractSolution[ScanAndSnapState]):
    """A solution that knows the weights of every class."""

    alike: eqx.AbstractVar[AlikeClasses]
    rule: eqx.AbstractVar[GradientFlow]

    def reduce(self, model: TokenAttention) -> ScanAndSnapState:
        """The weights of the first class in a network."""
        return self.alike.state_of(model)

    def attention(self, t: ArrayLike) -> Float[Array, " tokens"]:
        """$c$ in the first class at one time; it sums to one."""
        return self.alike.attention(self.evaluate(t).logits)

    def gap(self, t: ArrayLike) -> Float[Array, ""]:
        """$h$ at one time, by how much the logit of the right class exceeds that of any other."""
        state = self.evaluate(t)
        return self.alike.features(state.logits) @ state.decoder

    def loss(self, t: ArrayLike) -> Float[Array, ""]:
        r"""The task's loss at one time, $\ln(1 + (K-1)e^{-h})$, in nats."""
        gap = self.gap(t)
        return jax.nn.softplus(jnp.log(jnp.asarray(self.alike.classes - 1, gap.dtype)) - gap)

    def entropy(self, t: ArrayLike) -> Float[Array, ""]:
        r"""The entropy of attention at one time, $-\sum_lc_l\ln c_l$, in nats."""
        return jnp.sum(jax.scipy.special.entr(self.attention(t)))


class ScanAndSnap(AbstractScanAndSnap, AbstractReducedFlow[ScanAndSnapState]):
    r"""Training of attention over tokens with classes that are all alike: the exact reduced flow.

    Build it with `from_model`. Time is in the rule's units ($\tau$ is its `time_constant`; its `rates` are $\eta_Y$ and
    $\eta_Z$). With weight decay both weights decay in addition.

    **Attributes:**

    - `path`: the integrated weights of one class.
    - `alike`: what the classes have in common.
    - `rule`: the rule.
    """

    path: FlowPath
    alike: AlikeClasses
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
    ) -> "ScanAndSnap":
        """Integrates the flow of one class up to `t1`.

        **Arguments:**

        - `model`, `task`, `rule`: the case. `rule` defaults to `tx.GradientFlow()`.
        - `t1`: the horizon, up to which the solution can be evaluated.
        - `check`: refuse what the theory does not cover.
        - `max_steps`: of the integration.

        **Raises:**

        `ValueError` if the network does not fit the task or has more outputs than it has classes, an assumption is
        violated, or the integration fails.
        """
        alike, state, rule = read_case(model, task, rule, cls.__name__)
        if check:
            state = enforce(state, cls.__name__, cls.assumptions(model, task, rule))
        path = integrate_flow(eqx.Partial(_velocity, alike, rule), state, t1, max_steps=max_steps)
        return cls(path, alike, rule)

    @classmethod
    def assumptions(cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """How far the classes are from being alike."""
        read_case(model, task, rule, cls.__name__)
        return classes_alike(model, task)

    def vector_field(self, t: Any, state: ScanAndSnapState) -> ScanAndSnapState:
        """The flow of the weights of one class."""
        return _velocity(self.alike, self.rule, t, state)


def read_case(
    model: PyTree, task: PyTree, rule: AbstractRule | None, theory: str
) -> tuple[AlikeClasses, ScanAndSnapState, GradientFlow]:
    """The first class of a network and a task that fit each other."""
    model, rule = check_token_attention(model, task), check_flow(rule, theory, rates=True)
    if task.classes < 2:
        raise ValueError(f"`task` must have at least two classes for {theory}; got {task.classes}.")
    if model.outputs != task.classes:
        raise ValueError(
            f"`model` must have {task.classes} outputs, as `task` has classes, for {theory}; got {model.outputs}. "
            "TokenAttentionFlow covers more."
        )
    frequencies = task.distribution[0].astype(model.logits.dtype)
    alike = AlikeClasses(frequencies, task.distinct[0], task.classes, task.last[0])
    return alike, alike.state_of(model), rule


@eqx.filter_jit
def classes_alike(model: TokenAttention, task: NextTokenTask) -> tuple[Assumption, ...]:
    """Whether classes differ by their names only, in the task and in the network."""
    p, distinct, dtype = task.distribution, task.distinct, model.logits.dtype
    tolerance = max(tolerance_for(p), tolerance_for(model.logits))
    rows = model.logits[jnp.asarray(task.last)]
    strengths = jnp.where(distinct, model.decoder.T * (task.classes / (task.classes - 1)), 0.0)
    embedded = strengths.T @ (jnp.eye(task.classes, dtype=dtype) - 1 / task.classes)
    occurs = jnp.any(p > 0, axis=0)
    # Shared tokens are the same ones in all classes; distinct ones are put in order first.
    other = ~jnp.any(distinct, axis=0)[None, :]
    spread = [jnp.where(other, x - x[:1], 0.0) for x in (p.astype(dtype), jnp.where(p > 0, rows, 0.0))]
    columns = [jnp.where(distinct, x, 0.0) for x in (p.astype(dtype), rows, strengths)]
    ordered = jax.vmap(lambda p, z, y: jnp.stack([p, z, y])[:, jnp.lexsort((y, z, p))])(*columns)
    differences = ordered - ordered[:1]
    frequencies, logits, decoder = (differences[:, i] for i in range(3))
    own_last = 0.0 if len(set(task.last)) == task.classes else jnp.inf
    return (
        Assumption("classes equally likely", task.classes * jnp.max(task.probabilities) - 1, tolerance),
        Assumption("a last token of its own for every class", own_last, 0.0),
        Assumption(
            "classes with the same frequencies of tokens, shared or distinct",
            relative_norm(jnp.stack([spread[0], frequencies]), p.astype(dtype)),
            tolerance,
        ),
        Assumption(
            "classes with the same logits of attention", relative_norm(jnp.stack([spread[1], logits]), rows), tolerance
        ),
        Assumption("classes with the same decoder", relative_norm(decoder, strengths), tolerance),
        Assumption(
            "a decoder y_l (e_n − 1/K), zero for shared tokens",
            relative_norm(jnp.where(occurs[:, None], model.decoder - embedded, 0.0), model.decoder),
            tolerance,
        ),
    )


def _velocity(alike: AlikeClasses, rule: GradientFlow, t: Any, state: ScanAndSnapState) -> ScanAndSnapState:
    del t
    y, z = state.decoder, state.logits
    f = alike.features(z)
    gap = f @ y
    speed = alike.speed(gap)
    eta_y, eta_z, decay = two_rates(rule, z.dtype)
    to_decoder = jnp.where(alike.distinct, speed * f, 0.0)
    to_logits = (1 - 1 / alike.classes) * speed * f * (y - f * gap)
    return ScanAndSnapState(eta_y * (to_decoder - decay * y), eta_z * (to_logits - decay * z))
