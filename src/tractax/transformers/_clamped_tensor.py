r"""Interacting subcircuits with one or two of them clamped: the others learn in closed form, from any start.

Set-up. As in `RankOneTensorFlow`, with a rate of zero for one factor or two, which stay where they are (at the truth, or
anywhere else), and any rates of the others.

Theory. Let $c$ be frozen. In the time $s = N_c\,t/n\tau$, with the singular value $\sigma = S\,m_c/N_c$,

$$m_a' = r_a(\sigma m_b - N_bm_a),\quad m_b' = r_b(\sigma m_a - N_am_b),\quad q_a' = -r_aN_bq_a,\quad q_b' = -r_bN_aq_b:$$

a linear network with two layers and one hidden unit. It conserves $\Delta = r_bN_a - r_aN_b$, so that with $\nu = (r_aN_b
+ r_bN_a)/2$ all four obey linear equations but for one common rate $-\nu$: the solution is that of the linear equations,
divided by a normalisation $\sqrt D$. Their rates are $\pm\omega$, $\omega^2 = \Delta^2/4 + r_ar_b\sigma^2$, along the
truth and $\pm\Delta/2$ across. With only $a$ trained, $r_b = 0$, this is a plain exponential: no plateau.

Source: Singh, Moskovitz, Hill, Chan and Saxe 2024, arXiv 2404.07129, for the model; the solution is derived here.
"""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..core import AbstractRule, Assumption, Kind, enforce
from ..rules import GradientFlow, check_flow, no_weight_decay
from ..special import exprel
from ._rank_one_tensor import RankOneTensorTask, check_tensor
from ._tensor_overlaps import AbstractTensorSolution, TensorOverlaps, factor_rates, overlaps


class ClampedTensor(AbstractTensorSolution):
    """Learning of a tensor of rank one while one or two factors are clamped, in closed form.

    Build it with `from_model`; `clamp_factors` makes the network and the rule. Time is in the rule's units (its
    `time_constant`).

    **Attributes:**

    - `initial`: the overlaps at time zero.
    - `task`, `rule`: the case; `rule.rates` are zero for what is clamped.
    """

    initial: TensorOverlaps
    task: RankOneTensorTask
    rule: GradientFlow
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "ClampedTensor":
        """The solution for a network, having checked that a factor is clamped.

        **Raises:**

        `ValueError` if the network does not fit the task or an assumption is violated.
        """
        initial = overlaps(check_tensor(model, task), task)
        solution = cls(initial, task, check_flow(rule, cls.__name__, rates=True))
        return enforce(solution, cls.__name__, cls.assumptions(model, task, rule)) if check else solution

    @classmethod
    def assumptions(cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """How far the case is from what the solution takes for granted."""
        rule = check_flow(rule, cls.__name__, rates=True)
        slowest = jnp.min(factor_rates(rule, check_tensor(model, task).a.dtype))
        return Assumption("a clamped factor, of rate zero", slowest, 0.0), no_weight_decay(rule)

    def state(self, t: Float[Array, ""]) -> TensorOverlaps:
        """The overlaps at time `t`."""
        dtype = self.initial.along.dtype
        rates = factor_rates(self.rule, dtype)
        # The clamped one first, so that `a` may stand still as well (r_a = 0), and b may not.
        order = jnp.argsort(rates)
        along, across = self.initial.along[order], self.initial.across[order]
        frozen = along[0] ** 2 + across[0] ** 2
        some = jnp.where(frozen == 0, 1.0, frozen)
        # A finite time, so that nothing meets 0 · ∞.
        t = jnp.minimum(t.astype(dtype), jnp.finfo(dtype).max)
        elapsed = frozen * (t / self.rule.time_constant.astype(dtype) / self.task.entries)
        sigma = self.task.strength.astype(dtype) * along[0] / some
        elapsed = jnp.minimum(elapsed, jnp.finfo(dtype).max)
        moved = _two_factors(elapsed, sigma, rates[order][1:], along[1:], across[1:])
        back = jnp.argsort(order)
        return TensorOverlaps(jnp.concatenate([along[:1], moved[0]])[back], jnp.concatenate([across[:1], moved[1]])[back])

    def limit(self) -> TensorOverlaps:
        """The overlaps as t → ∞."""
        return self.state(jnp.asarray(jnp.inf, self.initial.along.dtype))


def _two_factors(
    s: Float[Array, ""],
    sigma: Float[Array, ""],
    rates: Float[Array, " 2"],
    along: Float[Array, " 2"],
    across: Float[Array, " 2"],
) -> tuple[Float[Array, " 2"], Float[Array, " 2"]]:
    """The overlaps of `a` and `b`, along and across, after the time `s`; every formula is symmetric in the two."""
    squares = along**2 + across**2
    difference = rates[1] * squares[0] - rates[0] * squares[1]
    coupling = rates[0] * rates[1] * sigma**2
    square = difference**2 / 4 + coupling
    still = square == 0
    omega = jnp.where(still, 0.0, jnp.sqrt(jnp.where(still, 1.0, square)))
    twice = jnp.where(still, 1.0, 2 * omega)
    # 2ω + Δ and 2ω - Δ, the smaller of them without cancellation.
    large = 2 * omega + jnp.abs(difference)
    small = 4 * coupling / jnp.where(still, 1.0, large)
    sums = jnp.where(difference > 0, jnp.stack([large, small]), jnp.stack([small, large]))
    # Beyond, everything has settled; and exp(-2ωs) must not underflow, since what does not escape goes with its root.
    settled = -0.9 * jnp.log(jnp.finfo(s.dtype).tiny)
    s = jnp.where(2 * omega * s > settled, settled / twice, s)
    decay, spread = jnp.exp(-2 * omega * s), s * exprel(-2 * omega * s)
    # Along the truth: the parts that grow and decay at the rate ω. Where ω = 0 nothing couples, and nothing grows.
    mixed = rates * sigma * along[::-1] / twice
    grown = jnp.where(still, along, sums / (2 * twice) * along + mixed)
    decayed = along - grown
    weights = rates[::-1]
    inside = spread * (jnp.sum(weights * grown**2) + decay * jnp.sum(weights * decayed**2))
    # Across it: rates of ±Δ/2.
    turns = jnp.stack([difference, -difference]) * s
    growth = jnp.exp(jnp.where(turns > 0, turns, 0.0) - 2 * omega * s) * s * exprel(-jnp.abs(turns))
    outside = jnp.sum(weights * across**2 * growth)
    normalisation = jnp.sqrt(decay + inside + outside)
    # 2ω ∓ Δ.
    return (grown + decay * decayed) / normalisation, across * jnp.exp(-sums[::-1] * s / 2) / normalisation
