r"""Attention that chooses between two tokens: every gap of logits grows on its own, for ever.

Set-up. A query $p$ attends by softmax to two tokens $x_{i1}, x_{i2}$ with scores $\gamma_{i1}, \gamma_{i2}$ in each of
$n$ examples (`TokenSelection`, loss minus the mean score collected), gradient flow $\tau\dot p = -\partial L$. If the
differences $u_i = x_{i1} - x_{i2}$ are orthogonal, as they are for one example, the gaps $g_i = u_i\cdot p$ obey
$\tau\dot g_i = \tfrac1n\lVert u_i\rVert^2(\gamma_{i1} - \gamma_{i2})/(2 + 2\cosh g_i)$, and so

$$g_i + \sinh g_i = g_i(0) + \sinh g_i(0) + \frac{\lVert u_i\rVert^2(\gamma_{i1} - \gamma_{i2})}{2n}\frac t\tau,\qquad
p(t) = p(0) + \sum_i\frac{g_i(t) - g_i(0)}{\lVert u_i\rVert^2}\,u_i .$$

Gaps grow like $\ln t$ without end, all at the same speed in the end: the direction of $p$ approaches that of largest
margin, $\sum_i\pm u_i/\lVert u_i\rVert^2$, but only as $1/\ln t$. For more tokens nothing is known in closed form but
this direction, `selection_margin`.

Source: Tarzanagh, Li, Zhang and Oymak 2023, arXiv 2306.13596, for the direction; the closed form is elementary.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import AbstractRule, AbstractSolution, Assumption, Kind, enforce, tolerance_for
from ..rules import GradientFlow, check_flow, no_weight_decay
from ..special import sinh_root
from ._attention_pooling import AttentionPooling
from ._token_selection import TokenSelection, check_pooling


class SelectionState(eqx.Module):
    """A query and what it prefers.

    **Attributes:**

    - `query`: $p$, shape `(inputs,)`.
    - `gaps`: $g_i$, by how much the logit of the first token exceeds that of the second, shape `(examples,)`.
    """

    query: Float[Array, "*times inputs"]
    gaps: Float[Array, "*times examples"]


class TwoTokenAttention(AbstractSolution[SelectionState]):
    r"""The exact gradient flow of a query that attends to two tokens, in examples with orthogonal differences.

    Build it with `from_model`. Time is in the rule's units ($\tau$ is its `time_constant`), and the loss is a mean over
    examples.

    **Attributes:**

    - `initial`: the state at time zero.
    - `differences`: $u_i$, shape `(examples, inputs)`.
    - `speeds`: $\lVert u_i\rVert^2(\gamma_{i1} - \gamma_{i2})/(n\tau)$, shape `(examples,)`.
    - `task`: the tokens and their scores.
    """

    initial: SelectionState
    differences: Float[Array, "examples inputs"]
    speeds: Float[Array, " examples"]
    task: TokenSelection
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "TwoTokenAttention":
        """The solution for a query and a task, having checked that the examples do not interact.

        **Raises:**

        `ValueError` if the query does not fit the task, examples have more than two tokens, or an assumption is violated.
        """
        model, task, rule = _check_case(model, task, rule)
        u, query = task.tokens[:, 0] - task.tokens[:, 1], model.query
        u = u.astype(query.dtype)
        drives = jnp.sum(u**2, axis=1) * (task.scores[:, 0] - task.scores[:, 1]).astype(query.dtype)
        speeds = drives / (u.shape[0] * rule.time_constant.astype(query.dtype))
        solution = cls(SelectionState(query, u @ query), u, speeds, task)
        return enforce(solution, cls.__name__, cls.assumptions(model, task, rule)) if check else solution

    @classmethod
    def assumptions(cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """How far the case is from what the solution takes for granted."""
        _, task, rule = _check_case(model, task, rule)
        u = task.tokens[:, 0] - task.tokens[:, 1]
        norms = jnp.linalg.norm(u, axis=1)
        unit = u / jnp.where(norms == 0, 1.0, norms)[:, None]
        cosines = jnp.where(jnp.eye(norms.shape[0], dtype=bool), 0.0, unit @ unit.T)
        name = "orthogonal differences between tokens, uᵢ·uⱼ = 0"
        return Assumption(name, jnp.max(jnp.abs(cosines)), tolerance_for(unit)), no_weight_decay(rule)

    def state(self, t: Float[Array, ""]) -> SelectionState:
        """The query and its gaps at time `t`."""
        start = self.initial.gaps
        moving = self.speeds != 0
        clock = jnp.where(moving, self.speeds, 0.0) * jnp.where(moving, t.astype(start.dtype), 0.0)
        begun = start + jnp.sinh(start)
        # Beyond this a gap would not move within any representable time.
        gaps = jnp.where(jnp.isfinite(begun), sinh_root(jnp.where(jnp.isfinite(begun), begun, 0.0) + clock / 2), start)
        shares = jnp.where(self.differences == 0, 0.0, (gaps - start)[:, None] * _dual(self.differences))
        return SelectionState(self.initial.query + jnp.sum(shares, axis=0), gaps)

    def reduce(self, model: AttentionPooling) -> SelectionState:
        """The query of a network, and its gaps."""
        return SelectionState(model.query, self.differences @ model.query)

    def vector_field(self, t: Any, state: SelectionState) -> SelectionState:
        """The flow of the query and its gaps."""
        del t
        first = jax.nn.sigmoid(state.gaps)
        velocity = self.speeds * first * (1 - first)
        return SelectionState(velocity @ _dual(self.differences), velocity)

    def attention(self, t: ArrayLike) -> Float[Array, "examples 2"]:
        """What the query attends to in every example at one time."""
        gaps = self.evaluate(t).gaps
        return jnp.stack([jax.nn.sigmoid(gaps), jax.nn.sigmoid(-gaps)], axis=1)

    def loss(self, t: ArrayLike) -> Float[Array, ""]:
        """The task's loss at one time, minus the mean score."""
        attention = self.attention(t)
        return -jnp.mean(jnp.sum(attention * self.task.scores.astype(attention.dtype), axis=1))

    def final_direction(self) -> Float[Array, " inputs"]:
        """The direction of largest margin, a unit vector, which the query approaches as $1/\\ln t$."""
        total = jnp.sign(self.speeds) @ _dual(self.differences)
        return total / jnp.linalg.norm(total)

    def limit(self) -> SelectionState:
        """There is none."""
        raise ValueError("The query of TwoTokenAttention grows for ever; see `final_direction`.")


def _dual(u: Float[Array, "examples inputs"]) -> Float[Array, "examples inputs"]:
    """uᵢ/‖uᵢ‖², and zero where two tokens are the same."""
    squares = jnp.sum(u**2, axis=1)[:, None]
    return u / jnp.where(squares == 0, 1.0, squares)


def _check_case(model: Any, task: Any, rule: Any) -> tuple[AttentionPooling, TokenSelection, GradientFlow]:
    if not isinstance(task, TokenSelection):
        raise ValueError(f"`task` must be a TokenSelection; got {type(task).__name__}.")
    if task.tokens.shape[1] != 2:
        raise ValueError(f"`task` must have two tokens per example for TwoTokenAttention; got {task.tokens.shape[1]}.")
    return check_pooling(model, task), task, check_flow(rule, "TwoTokenAttention")
