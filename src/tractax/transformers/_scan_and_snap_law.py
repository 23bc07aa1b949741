r"""Scan and snap in closed form, where the decoder learns much faster than attention.

Set-up. As in `ScanAndSnap`, with a decoder that starts at zero and $\varepsilon = \eta_Z/\eta_Y\ll1$.

Theory. To leading order in $\varepsilon$ attention stays what it is while the decoder grows along it, $y_l =
f_lh/(1-\rho)$ on distinct tokens, where $\rho$ is the sum of $f_l^2$ over shared ones. Then the gap obeys

$$(K-1)\,h + e^h = 1 + (1-\rho)\,\eta_Yt/\tau,$$

and with $s = \varepsilon\,\frac{K-1}{2K}\,\frac{h^2}{(1-\rho)^2}$ the logits of attention change by $\rho f_l^2s$ on
distinct tokens and by $-(1-\rho)f_l^2s$ on shared ones. There are two phases: scanning, where $h$ grows linearly and the
logits like $t^2$, and after about $\tau K\ln K/((1-\rho)\eta_Y)$ snapping, where $h\approx\ln t$ and attention hardly
moves. It holds while $|z - z(0)|\ll1$, that is for $\varepsilon\ln^2(\eta_Yt)\ll1$, with a relative error of that order.
The larger $\eta_Y/\eta_Z$, the less is scanned before the snap, and the flatter attention stays.

Source: Tian, Wang, Chen and Du 2023, arXiv 2305.16380, for the two phases; this form is derived here.
"""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import AbstractRule, Assumption, Kind, enforce, relative_norm
from ..rules import GradientFlow, no_weight_decay
from ..special import softplus_lambert
from ._scan_and_snap import AbstractScanAndSnap, AlikeClasses, ScanAndSnapState, classes_alike, read_case
from ._token_attention_flow import two_rates


class ScanAndSnapLaw(AbstractScanAndSnap):
    r"""Training of attention over tokens, to leading order in the ratio $\eta_Z/\eta_Y$ of the two rates.

    Build it with `from_model`. Time is in the rule's units ($\tau$ is its `time_constant`; its `rates` are $\eta_Y$ and
    $\eta_Z$).

    **Attributes:**

    - `initial_logits`: $z_l(0)$, shape `(tokens,)`.
    - `alike`: what the classes have in common.
    - `rule`: the rule.
    """

    initial_logits: Float[Array, " tokens"]
    alike: AlikeClasses
    rule: GradientFlow
    kind: ClassVar[Kind] = "asymptotic"

    @classmethod
    def from_model(
        cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "ScanAndSnapLaw":
        """The law for a network and a task.

        **Raises:**

        `ValueError` if the network does not fit the task or has more outputs than it has classes, or if an assumption is
        violated.
        """
        alike, state, rule = read_case(model, task, rule, cls.__name__)
        solution = cls(state.logits, alike, rule)
        return enforce(solution, cls.__name__, cls.assumptions(model, task, rule)) if check else solution

    @classmethod
    def assumptions(cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """How far the case is from what the law takes for granted."""
        alike, state, rule = read_case(model, task, rule, cls.__name__)
        decoder = relative_norm(state.decoder, jnp.ones_like(state.decoder))
        nothing = jnp.where(jnp.any(alike.distinct), 0.0, jnp.inf)
        return (
            *classes_alike(model, task),
            Assumption("distinct tokens in every class", nothing, 0.0),
            Assumption("a decoder that starts at zero", decoder, 0.0),
            no_weight_decay(rule),
        )

    def state(self, t: Float[Array, ""]) -> ScanAndSnapState:
        """The weights of one class at time `t`."""
        f, distinct, k = self.alike.features(self.initial_logits), self.alike.distinct, self.alike.classes
        eta_y, eta_z, _ = two_rates(self.rule, f.dtype)
        shared = self.alike.shared_share(self.initial_logits)
        gap = softplus_lambert(jnp.asarray(k - 1, f.dtype), 1 + (1 - shared) * eta_y * t.astype(f.dtype))
        strength = gap / (1 - shared)
        scan = eta_z / eta_y * ((k - 1) / (2 * k)) * strength**2
        # A token that does not occur stays where it is, however long the others move.
        moved = jnp.where(f > 0, f**2 * jnp.where(distinct, shared, shared - 1) * scan, 0.0)
        return ScanAndSnapState(jnp.where(distinct, f * strength, 0.0), self.initial_logits + moved)

    def gap(self, t: ArrayLike) -> Float[Array, ""]:
        """$h$ at one time, by how much the logit of the right class exceeds that of any other, with frozen attention."""
        return self.alike.features(self.initial_logits) @ self.evaluate(t).decoder

    @property
    def snap_time(self) -> Float[Array, ""]:
        r"""$\tau K\ln K/((1-\rho)\eta_Y)$, about when scanning ends and attention freezes."""
        k = jnp.asarray(self.alike.classes, self.initial_logits.dtype)
        eta_y, _, _ = two_rates(self.rule, k.dtype)
        return k * jnp.log(k) / (eta_y * (1 - self.alike.shared_share(self.initial_logits)))
