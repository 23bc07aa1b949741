r"""Cross-entropy of free logits: how the logits of a softmax move if nothing stands in their way, in closed form.

Set-up. One label $y$, logits $l$ that are themselves the parameters, gradient flow of the cross-entropy with a z-loss,

$$L = \ln Z - l_y + c\,(\ln Z)^2,\qquad Z = \sum_ke^{l_k},\qquad \tau\,\dot l = e_y - (1 + 2c\ln Z)\,p,$$

with $p = e^l/Z$. The sum of all logits obeys $\tau\,\tfrac{d}{dt}\sum_kl_k = -2c\ln Z$: it is conserved without the
z-loss, which otherwise drives $\ln Z$ to zero.

Theory, for $c = 0$ and any start. With $w_j = e^{-l_j(0)}$, the inverses $e^{-l_j}$ of all $j \ne y$ grow by the same
$s$, so that $l_j = -\ln(w_j + s)$, and the sum gives $l_y$. Then $\tau\,ds/dt = 1/Z$, whose solution is

$$\frac t\tau = \sum_{j\ne y}\ln\big(1 + s/w_j\big) + e^{\sum_kl_k(0)}\int_0^s\prod_{j\ne y}(w_j + s')\,ds',$$

with a polynomial under the integral, which Gauss-Legendre nodes integrate exactly. The gap between right and wrong logits
grows linearly, then as $\ln t$.

Source: the z-loss as in Wortsman et al. 2023, arXiv 2309.14322; the solution is derived here.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import AbstractRule, AbstractSolution, AbstractTask, Assumption, Kind, check_matrix, check_positive, enforce
from ..rules import GradientFlow, check_flow, no_weight_decay
from ..special import monotone_inverse
from ._stability_diagnostics import z_loss


class FreeLogits(eqx.Module):
    """Logits that are parameters.

    **Arguments:**

    - `logits`: two or more, shape `(classes,)`.
    """

    logits: Float[Array, " classes"]

    def __init__(self, logits: ArrayLike):
        self.logits = check_matrix("logits", logits, (None,))
        if self.logits.shape[0] < 2:
            raise ValueError(f"`logits` must be two or more; got {self.logits.shape[0]}.")

    def __call__(self) -> Float[Array, " classes"]:
        """The logits. There is no input."""
        return self.logits


class LabelTask(AbstractTask):
    r"""Cross-entropy with one label, and a z-loss: $\ln Z - l_y + c\,(\ln Z)^2$, in nats.

    **Arguments:**

    - `label`: $y$, from 0.
    - `z_coefficient`: $c \ge 0$.

    **Raises:**

    `ValueError` for a label that is no whole number, or a negative coefficient.
    """

    label: int = eqx.field(static=True)
    z_coefficient: Float[Array, ""]

    def __init__(self, label: int, *, z_coefficient: ArrayLike = 0.0):
        if not isinstance(label, int) or isinstance(label, bool) or label < 0:
            raise ValueError(f"`label` must be a whole number from 0; got {label!r}.")
        self.label = label
        self.z_coefficient = check_positive("z_coefficient", z_coefficient, zero=True, scalar=True)

    def loss(self, model: FreeLogits) -> Float[Array, ""]:
        """The loss of free logits, or of any model that is called without arguments and returns logits."""
        logits = model()
        return jax.nn.logsumexp(logits) - logits[self.label] + z_loss(logits, self.z_coefficient)


class FreeLogitsSolution(AbstractSolution[Float[Array, " classes"]]):
    """The logits over time, without a z-loss, from any start.

    Build it with `from_model`. Time is in the rule's units (its `time_constant`).

    **Attributes:**

    - `initial`: the logits at time zero, shape `(classes,)`.
    - `task`, `rule`: the case.
    """

    initial: Float[Array, " classes"]
    task: LabelTask
    rule: GradientFlow
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "FreeLogitsSolution":
        """The solution for free logits, having checked that there is no z-loss.

        **Raises:**

        `ValueError` if the label is none of the classes or an assumption is violated.
        """
        model, task, rule = _check_case(model, task, rule)
        solution = cls(model.logits, task, rule)
        return enforce(solution, cls.__name__, cls.assumptions(model, task, rule)) if check else solution

    @classmethod
    def assumptions(cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """How far the case is from what the solution takes for granted."""
        _, task, rule = _check_case(model, task, rule)
        return Assumption("no z-loss", task.z_coefficient, 0.0), no_weight_decay(rule)

    def state(self, t: Float[Array, ""]) -> Float[Array, " classes"]:
        """The logits at time `t`."""
        right, dtype = self.task.label, self.initial.dtype
        # A finite time, so that nothing meets 0 · ∞.
        t = jnp.minimum(t.astype(dtype), jnp.finfo(dtype).max) / self.rule.time_constant.astype(dtype)
        t = jnp.minimum(t, jnp.finfo(dtype).max)
        wrong = jnp.delete(self.initial, right, assume_unique_indices=True)
        largest = jax.lax.stop_gradient(jnp.max(wrong))
        lags, gap = wrong - largest, self.initial[right] - largest
        nodes, weights = np.polynomial.legendre.leggauss((wrong.shape[0] + 2) // 2)
        nodes, logs = jnp.asarray((1 + nodes) / 2, dtype), jnp.asarray(np.log(weights / 2), dtype)

        def falls(growth: Array) -> Array:
            """By how much wrong logits have fallen, when the inverse of the largest has grown by this share."""
            return jnp.log1p(jnp.multiply.outer(growth, jnp.exp(lags)))

        def elapsed(fall: Array) -> Array:
            """The time at which the largest wrong logit has fallen so much."""
            growth = jnp.expm1(fall)
            products = jnp.sum(falls(growth * nodes), axis=-1)
            return jnp.sum(falls(growth)) + growth * jnp.exp(gap + jax.nn.logsumexp(logs + products))

        # It falls at a rate of at most one, and e to its fall grows at most as e^(-gap). The ends lie beyond, since the
        # derivative at an end is not that of the inverse.
        highest = jnp.minimum(t, jax.nn.softplus(jnp.log(jnp.where(t > 0, t, 1.0)) - gap))
        fallen = falls(jnp.expm1(monotone_inverse(elapsed, t, -0.5, highest + 0.5)))
        return jnp.insert(wrong - fallen, right, self.initial[right] + jnp.sum(fallen))

    def vector_field(self, t: Any, state: Float[Array, " classes"]) -> Float[Array, " classes"]:
        """The flow of the logits."""
        del t
        wrong = jax.nn.softmax(state).at[self.task.label].set(0.0)
        # The sum, where 1 - p would cancel.
        return (-wrong).at[self.task.label].set(jnp.sum(wrong)) / self.rule.time_constant.astype(state.dtype)

    def reduce(self, model: FreeLogits) -> Float[Array, " classes"]:
        """The logits."""
        return model.logits


def _check_case(model: Any, task: Any, rule: Any) -> tuple[FreeLogits, LabelTask, GradientFlow]:
    if not isinstance(task, LabelTask):
        raise ValueError(f"`task` must be a LabelTask; got {type(task).__name__}.")
    if not isinstance(model, FreeLogits):
        raise ValueError(f"`model` must be FreeLogits; got {type(model).__name__}.")
    if task.label >= model.logits.shape[0]:
        raise ValueError(f"`label` of `task` must be below {model.logits.shape[0]}; got {task.label}.")
    return model, task, check_flow(rule, FreeLogitsSolution.__name__)
