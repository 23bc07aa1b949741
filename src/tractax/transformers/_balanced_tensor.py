r"""Interacting subcircuits from a balanced, aligned start: a plateau and a sudden rise, in closed form.

Set-up. As in `RankOneTensorFlow`, with all factors trained at one rate and along the true ones at the start, all equally
large: $x = \pm x_0\,x^*/\lVert x^*\rVert$ with an even number of minus signs.

Theory. The three stay equal, and

$$n\tau\,\dot x = S\,x^2 - x^5,$$

which `tractax.special.quintic_escape` solves: a plateau of length $\approx n\tau/(Sx_0)$, then a sudden rise to $x =
S^{1/3}$.

Source: Singh, Moskovitz, Hill, Chan and Saxe 2024, arXiv 2404.07129, for the model; the solution is derived here.
"""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..core import AbstractRule, Assumption, Kind, enforce, relative_norm, tolerance_for
from ..rules import GradientFlow, check_flow, no_weight_decay
from ..special import quintic_escape
from ._rank_one_tensor import RankOneTensorTask, check_tensor
from ._tensor_overlaps import AbstractTensorSolution, TensorOverlaps, overlaps


class BalancedTensor(AbstractTensorSolution):
    """Learning of a tensor of rank one whose factors start aligned and equally large, in closed form.

    Build it with `from_model`. Time is in the rule's units (its `time_constant`).

    **Attributes:**

    - `size`: $x_0$.
    - `signs`: of the factors along the true ones, shape `(3,)`.
    - `task`, `rule`: the case.
    """

    size: Float[Array, ""]
    signs: Float[Array, " 3"]
    task: RankOneTensorTask
    rule: GradientFlow
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "BalancedTensor":
        """The solution for a network, having checked that its factors are aligned and balanced.

        **Raises:**

        `ValueError` if the network does not fit the task or an assumption is violated.
        """
        along = overlaps(check_tensor(model, task), task).along
        solution = cls(jnp.mean(jnp.abs(along)), jnp.sign(along), task, check_flow(rule, cls.__name__))
        return enforce(solution, cls.__name__, cls.assumptions(model, task, rule)) if check else solution

    @classmethod
    def assumptions(cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """How far the case is from what the solution takes for granted."""
        state = overlaps(check_tensor(model, task), task)
        tolerance = tolerance_for(state.along)
        size = jnp.mean(jnp.abs(state.along))
        above = size / jnp.cbrt(task.strength.astype(size.dtype)) - 1
        leads = jnp.prod(jnp.sign(state.along)) > 0
        unequal = relative_norm(jnp.abs(state.along) - size, state.along)
        return (
            Assumption("factors along the true ones", relative_norm(state.across, state.along), tolerance),
            Assumption("factors of equal norm", unequal, tolerance),
            Assumption("signs that lead away from zero, m_a m_b m_c > 0", jnp.where(leads, 0.0, 2.0), 0.0),
            Assumption("factors below the fixed point, x³ ≤ S", jnp.maximum(above, 0.0), tolerance),
            no_weight_decay(check_flow(rule, cls.__name__)),
        )

    def state(self, t: Float[Array, ""]) -> TensorOverlaps:
        """The overlaps at time `t`."""
        dtype = self.size.dtype
        t = t.astype(dtype) / self.rule.time_constant.astype(dtype)
        strength = self.task.strength.astype(dtype)
        # The fixed point may be exceeded by rounding.
        start = jnp.minimum(self.size, jnp.cbrt(strength))
        x = quintic_escape(t, start, strength / self.task.entries, 1 / strength)
        return TensorOverlaps(x * self.signs, jnp.zeros_like(self.signs))

    def limit(self) -> TensorOverlaps:
        """The overlaps as t → ∞, $S^{1/3}$ with their signs."""
        return self.state(jnp.asarray(jnp.inf, self.size.dtype))
