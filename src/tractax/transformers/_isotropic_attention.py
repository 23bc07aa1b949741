r"""Linear attention on isotropic inputs: the whole training run in closed form.

Set-up. As in `LinearAttentionFlow`, with covariances proportional to the identity, $\Lambda = \lambda I$ (the paper's
case: $\Omega = I$ and $\Lambda_q = \Lambda$), and balanced weights $v_h = n_hv$, $U_h = n_hU$ with $v^2 = \lVert
U\rVert_F^2$ and a unit vector $n$; for a single head only the balance is asked for. Loss $\tfrac12\mathbb E(\hat y -
w\cdot x_q)^2$, gradient flow $\tau\dot\theta = -\partial L$.

Theory. With $G = sI - bA$ ($s = \lambda^2$, $b/s = \gamma = \lambda(1 + (1 + d)/N) + \sigma^2/N$ in the paper's case)
split $U(0) = c_0I + T_0$ with $\operatorname{tr}T_0 = 0$, and let $\rho = \sqrt d\,c_0/v_0\in[-1, 1]$ and $u = s\sqrt
d\,t/\tau$. Then

$$\kappa = \frac1{\cosh u + \rho\sinh u},\qquad \theta = \frac{\sinh u + \rho\cosh u}{\cosh u + \rho\sinh u},$$
$$v^{-2} = \frac{\kappa^2}{v_0^2} + \frac b{s\sqrt d}\big[u\,\kappa^2(1 - \rho^2) + \theta - \kappa^2\rho\big],\qquad
U = v\Big[\frac\theta{\sqrt d}I + \frac\kappa{v_0}T_0\Big].$$

If $T_0 = 0$, the effective map is $gI$, and $g$ is `tractax.special.logistic` with rate $2s\sqrt d/\tau$.

Source: the flow is that of Zhang, Frei and Bartlett 2023, arXiv 2306.09927; its solution is derived here.
"""

from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..core import AbstractRule, Assumption, Kind, enforce, relative_norm, tolerance_for
from ..rules import GradientFlow, check_flow, no_weight_decay
from ._base import AbstractAttentionSolution, check_attention, uncoupled
from ._in_context_regression import InContextRegression
from ._linear_attention import LinearAttention
from ._linear_attention_flow import MergedHeads, merged_heads, merged_velocity


class IsotropicAttention(AbstractAttentionSolution[MergedHeads]):
    """Training of balanced linear attention on isotropic inputs, in closed form.

    Build it with `from_model`. Time is in the rule's units ($\\tau$ is its `time_constant`); the loss has its ½, a risk
    has none.

    **Attributes:**

    - `strength`: $v_0$, positive.
    - `key_query`: $U(0)$, shape `(inputs, inputs)`.
    - `shares`: $n$, what part each head has in both, shape `(heads,)`.
    - `drive`: $s$, `cost`: $b$, of the flow of the map.
    - `task`, `rule`: the case.
    """

    strength: Float[Array, ""]
    key_query: Float[Array, "inputs inputs"]
    shares: Float[Array, " heads"]
    drive: Float[Array, ""]
    cost: Float[Array, ""]
    task: InContextRegression
    rule: GradientFlow
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "IsotropicAttention":
        """The solution for a network, having checked that weights are balanced and covariances isotropic.

        **Raises:**

        `ValueError` if the network does not fit the task or violates an assumption, such as weights that are not
        balanced, zero, or on the way into the saddle at zero.
        """
        solution = cls._build(model, task, rule)
        return enforce(solution, cls.__name__, cls.assumptions(model, task, rule)) if check else solution

    @classmethod
    def assumptions(cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """How far the case is from what the solution takes for granted."""
        solution = cls._build(model, task, rule)
        eye = jnp.eye(task.inputs, dtype=solution.strength.dtype)
        covariances = (task.covariance, task.task_covariance, task.query_covariance)
        anisotropy = [relative_norm(x - jnp.trace(x) / task.inputs * eye, x) for x in covariances]
        key_queries = model.key_query[:, :-1, :-1]
        apart = relative_norm(key_queries - solution.shares[:, None, None] * solution.key_query[None], key_queries)
        imbalance = relative_norm(solution.strength**2 - jnp.sum(solution.key_query**2), solution.strength**2)
        tolerance = tolerance_for(eye)
        stuck = solution._ends[0] <= (16 * jnp.finfo(eye.dtype).eps) ** 2
        return (
            Assumption("isotropic covariances, multiples of the identity", jnp.max(jnp.stack(anisotropy)), tolerance),
            uncoupled(model),
            Assumption("weights that are not all zero", jnp.where(solution.strength == 0, jnp.inf, 0.0), 0.0),
            Assumption("heads that share one matrix, U_h = v_h T", apart, tolerance),
            Assumption("balanced weights, Σ v_h² = Σ ‖U_h‖²", imbalance, tolerance),
            Assumption("a way out of the saddle at zero, U not along -I", jnp.where(stuck, jnp.inf, 0.0), 0.0),
            no_weight_decay(solution.rule),
        )

    @classmethod
    def _build(cls, model: PyTree, task: PyTree, rule: AbstractRule | None) -> "IsotropicAttention":
        rule = check_flow(rule, cls.__name__)
        heads = merged_heads(check_attention(model, task, LinearAttention))
        strength = jnp.linalg.norm(heads.value)
        shares = heads.value / jnp.where(strength == 0, 1.0, strength)
        key_query = jnp.einsum("h,hij->ij", shares, heads.key_query)
        drive, cost = (jnp.trace(x) / task.inputs for x in (task.drive, task.context_moment @ task.query_covariance))
        return cls(strength, key_query, shares, drive, cost, task, rule)

    @property
    def _split(self) -> tuple[Float[Array, ""], Float[Array, "inputs inputs"]]:
        """√d c0 and T0: the parts of U(0) along and across the identity."""
        size = self.task.inputs
        mean = jnp.trace(self.key_query) / size
        return mean * size**0.5, self.key_query - mean * jnp.eye(size, dtype=mean.dtype)

    @property
    def _ends(self) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """1 + ρ and 1 - ρ, neither by cancellation."""
        along, across = self._split
        power = jnp.where(self.strength == 0, 1.0, self.strength**2)
        rho = along / jnp.sqrt(power)
        small = jnp.sum(across**2) / power / (1 + jnp.abs(rho))
        return jnp.where(rho >= 0, 1 + rho, small), jnp.where(rho >= 0, small, 1 - rho)

    def state(self, t: Float[Array, ""]) -> MergedHeads:
        """The weights at time `t`."""
        dtype, root = self.strength.dtype, self.task.inputs**0.5
        plus, minus = self._ends
        # At 2000 all exponentials have vanished, and a finite time keeps 0 · ∞ out.
        u = jnp.minimum(self.drive * root * t.astype(dtype) / self.rule.time_constant.astype(dtype), 2000.0)
        decayed = jnp.exp(-u)
        total = plus + minus * decayed**2
        kappa, theta = 2 * decayed / total, (plus - minus * decayed**2) / total
        bracket = u * kappa**2 * plus * minus + theta - kappa**2 * (plus - minus) / 2
        grown = self.strength**2 * self.cost / (self.drive * root) * bracket
        relative = 1 / jnp.sqrt(kappa**2 + grown)
        along = theta / root * jnp.eye(self.task.inputs, dtype=dtype)
        key_query = relative * (self.strength * along + kappa * self._split[1])
        return MergedHeads(self.shares * (self.strength * relative), self.shares[:, None, None] * key_query[None])

    def limit(self) -> MergedHeads:
        """The weights as t → ∞: the optimum, shared out equally between $v$ and $U$."""
        return self.state(jnp.asarray(jnp.inf, self.strength.dtype))

    def vector_field(self, t: Any, state: MergedHeads) -> MergedHeads:
        """The flow of the weights."""
        return merged_velocity(self.task, self.rule, t, state)

    def reduce(self, model: LinearAttention) -> MergedHeads:
        """The weights of a network."""
        return merged_heads(model)
