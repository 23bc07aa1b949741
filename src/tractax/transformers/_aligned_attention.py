r"""Linear attention whose heads are aligned with principal components: every head learns its own, in closed form.

Set-up. As in `SeparateAttentionFlow`, with isotropic tasks, queries like the examples, and heads of rank one that start
balanced on different principal components of the inputs: $|v_h| = \lVert k_h\rVert = \lVert q_h\rVert = x_h$, with
$k_h$ and $q_h$ along the same eigenvector $e_h$ of $\Lambda$. Loss $\tfrac12\mathbb E(\hat y - w\cdot x_q)^2$, gradient
flow $\tau\dot\theta = -\partial L$.

Theory. Such heads never interact, and each obeys

$$\tau\dot x = \omega\lambda^2x^2(1 - \gamma x^3),$$

with $\gamma$ as in `plateau_map`: a plateau of length $\approx\tau/(\omega\lambda^2x_0)$, algebraic in the initial
scale, and then a sudden rise to $x = \gamma^{-1/3}$. `tractax.special.quintic_escape` is the solution.

Source: Zhang, Singh, Latham and Saxe 2025, arXiv 2501.16265, for the equation; its closed form is derived here.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import AbstractRule, Assumption, Kind, check_matrix, check_positive, enforce, relative_norm, tolerance_for
from ..rules import GradientFlow, check_flow, no_weight_decay
from ..special import quintic_escape
from ._attention_plateaus import one_basis, principal_gains
from ._base import AbstractAttentionSolution, check_attention, uncoupled
from ._in_context_regression import InContextRegression
from ._linear_attention import SeparateAttention
from ._separate_attention_flow import SeparateHeads, separate_heads, separate_velocity


class AlignedAttention(AbstractAttentionSolution[SeparateHeads]):
    """Training of linear attention with one balanced head on each of some principal components, in closed form.

    Build it with `from_model`; `aligned_attention` makes networks that it covers. Time is in the rule's units ($\\tau$ is
    its `time_constant`); the loss has its ½, a risk has none.

    **Attributes:**

    - `strengths`: $x_h$ at time zero, shape `(heads,)`.
    - `units`: the directions that heads keep: signs of $v_h$, unit vectors of $k_h$ and $q_h$.
    - `drives`: $\\omega\\lambda^2$, `costs`: $\\gamma$ of every head, shape `(heads,)`.
    - `task`, `rule`: the case.
    """

    strengths: Float[Array, " heads"]
    units: SeparateHeads
    drives: Float[Array, " heads"]
    costs: Float[Array, " heads"]
    task: InContextRegression
    rule: GradientFlow
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "AlignedAttention":
        """The solution for a network, having checked that its heads are balanced and aligned.

        **Raises:**

        `ValueError` if the network does not fit the task, its heads have a rank above one, or an assumption is violated.
        """
        solution = cls._build(model, task, rule)
        return enforce(solution, cls.__name__, cls.assumptions(model, task, rule)) if check else solution

    @classmethod
    def assumptions(cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """How far the case is from what the solution takes for granted."""
        solution = cls._build(model, task, rule)
        heads, x, units = separate_heads(model), solution.strengths, solution.units
        key, query = units.key[:, 0], units.query[:, 0]
        tolerance = tolerance_for(x)
        sizes = jnp.stack([jnp.abs(heads.value), *(jnp.linalg.norm(w[:, 0], axis=1) for w in (heads.key, heads.query))])
        imbalance = jnp.max(jnp.abs(sizes - x[None, :]) / jnp.where(x == 0, 1.0, x)[None, :])
        variances = jnp.sum(key * (key @ task.covariance), axis=1)
        crooked = jnp.maximum(
            relative_norm(key @ task.covariance - variances[:, None] * key, task.covariance),
            jnp.max(jnp.linalg.norm(query - jnp.sum(key * query, axis=1)[:, None] * key, axis=1)),
        )
        overlaps = key @ key.T
        crowded = jnp.max(jnp.abs(overlaps - jnp.diag(jnp.diagonal(overlaps))))
        signs = units.value * jnp.sum(key * query, axis=1)
        above = jnp.max(x * jnp.cbrt(solution.costs)) - 1
        return (
            one_basis(task),
            uncoupled(model),
            Assumption("heads that are not zero", jnp.where(jnp.all(x > 0), 0.0, jnp.inf), 0.0),
            Assumption("balanced heads, |v_h| = ‖k_h‖ = ‖q_h‖", imbalance, tolerance),
            Assumption("keys and queries along a principal component", crooked, tolerance),
            Assumption("a principal component of its own for every head", crowded, tolerance),
            Assumption("signs that lead away from zero, v_h k_h·q_h > 0", jnp.where(jnp.all(signs > 0), 0.0, 2.0), 0.0),
            Assumption("heads below their fixed point, x_h³ ≤ 1/γ_h", jnp.maximum(above, 0.0), tolerance),
            no_weight_decay(solution.rule),
        )

    @classmethod
    def _build(cls, model: PyTree, task: PyTree, rule: AbstractRule | None) -> "AlignedAttention":
        rule = check_flow(rule, cls.__name__)
        heads = separate_heads(check_attention(model, task, SeparateAttention))
        if model.rank != 1:
            raise ValueError(f"`model` must have heads of rank 1 for AlignedAttention; got rank {model.rank}.")
        x = jnp.abs(heads.value)
        lengths = (jnp.linalg.norm(w, axis=(1, 2)) for w in (heads.key, heads.query))
        lengths = [jnp.where(length == 0, 1.0, length)[:, None, None] for length in lengths]
        units = SeparateHeads(jnp.sign(heads.value), heads.key / lengths[0], heads.query / lengths[1])
        along = units.key[:, 0]
        drives, gained = (jnp.sum(along * (along @ matrix), axis=1) for matrix in (task.drive, task.optimum))
        return cls(x, units, drives, 1 / jnp.where(gained == 0, 1.0, gained), task, rule)

    @property
    def escape_times(self) -> Float[Array, " heads"]:
        r"""$\tau/(\omega\lambda^2x_0)$, about when each head leaves zero."""
        return self.rule.time_constant.astype(self.strengths.dtype) / (self.drives * self.strengths)

    def state(self, t: Float[Array, ""]) -> SeparateHeads:
        """The weights at time `t`."""
        dtype = self.strengths.dtype
        t = t.astype(dtype) / self.rule.time_constant.astype(dtype)
        x = quintic_escape(t, self.strengths, self.drives, self.costs)
        return jax.tree.map(lambda unit: unit * x.reshape(-1, *(1,) * (unit.ndim - 1)), self.units)

    def limit(self) -> SeparateHeads:
        r"""The weights as t → ∞, with $x_h = \gamma_h^{-1/3}$."""
        return self.state(jnp.asarray(jnp.inf, self.strengths.dtype))

    def vector_field(self, t: Any, state: SeparateHeads) -> SeparateHeads:
        """The flow of the weights."""
        return separate_velocity(self.task, self.rule, t, state)

    def reduce(self, model: SeparateAttention) -> SeparateHeads:
        """The weights of a network."""
        return separate_heads(model)


def aligned_attention(task: PyTree, strengths: Float[ArrayLike, " heads"]) -> SeparateAttention:
    r"""Balanced heads of rank one on the principal components of the inputs, the one of largest variance first.

    **Arguments:**

    - `task`: an `InContextRegression` with isotropic tasks and queries like the examples.
    - `strengths`: $x_h = v_h = \lVert k_h\rVert = \lVert q_h\rVert$, positive, for no more heads than there are inputs.

    **Raises:**

    `ValueError` for another task, too many heads, or strengths that are not positive.
    """
    vectors = principal_gains(task)[1]
    x = check_positive("strengths", check_matrix("strengths", strengths, (None,))).astype(vectors.dtype)
    if x.shape[0] > task.inputs:
        raise ValueError(f"`strengths` must be for at most {task.inputs} heads, one per input; got {x.shape[0]}.")
    rows = (x[:, None] * vectors[:, : x.shape[0]].T)[:, None, :]
    return SeparateAttention.embed(x, rows, rows)
