r"""The logit of a token: certain ones are learned for ever and flatten, uncertain ones stay in a valley.

Set-up. One logit $z$ for one of two tokens, which follows with probability $p$; cross-entropy
$L = \ln(1 + e^z) - pz$, in nats. The curvature is $\sigma(z)\sigma(-z)$: an uncertain token settles where it is
$p(1 - p)$, across a valley; a certain one loses it, along a river.

Theory. Under gradient flow $\tau\dot z = \sigma(-z)$ for $p = 1$, so that $z + e^z = t/\tau + z_0 + e^{z_0} =: q$, and
$z = q - \omega(q) = \ln\omega(q)$ with the Wright omega function.

Time: units of the rule's time constant $\tau$.

Source: a bigram model in the spirit of Wen et al. 2024 (arXiv 2410.05192); solution derived here.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ...core import (
    AbstractRule,
    AbstractSolution,
    AbstractTask,
    Assumption,
    Kind,
    as_float_array,
    check_positive,
    enforce,
    require,
    tolerance_for,
)
from ...special import wright_omega
from ._gradient_flow import check_flow
from ._weight_decay import no_weight_decay


class TokenLogit(eqx.Module):
    """One logit, as a model and as a state.

    **Arguments:**

    - `value`: $z$.
    """

    value: Float[Array, "*times"]

    def __init__(self, value: ArrayLike):
        self.value = as_float_array("value", value)


class TokenTask(AbstractTask):
    r"""Cross-entropy of one of two tokens, $L = \ln(1 + e^z) - pz$ in nats.

    **Arguments:**

    - `probability`: $p$, from 0 to 1.

    **Raises:**

    `ValueError` for anything else.
    """

    probability: Float[Array, ""]

    def __init__(self, probability: ArrayLike):
        p = check_positive("probability", probability, zero=True, scalar=True)
        self.probability = require(p, p <= 1, "`probability` must not exceed 1.")

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """The cross-entropy of a `TokenLogit`."""
        z = model.value
        p = self.probability.astype(z.dtype)
        return p * jax.nn.softplus(-z) + (1 - p) * jax.nn.softplus(z)

    def curvature(self, model: PyTree) -> Float[Array, "*times"]:
        r"""$\sigma(z)\sigma(-z)$, which is $p(1 - p)$ at the minimum."""
        return jax.nn.sigmoid(model.value) * jax.nn.sigmoid(-model.value)


class CertainToken(AbstractSolution[TokenLogit]):
    """Gradient flow of the logit of a token that always follows, in closed form.

    **Attributes:**

    - `initial`: $z_0$.
    - `time_constant`: $\\tau$.
    """

    initial: Float[Array, ""]
    time_constant: Float[Array, ""]
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: PyTree, task: AbstractTask, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "CertainToken":
        """The solution for a logit, having checked that the token is certain.

        **Arguments:**

        - `model`, `task`: a `TokenLogit` with one number and a `TokenTask`.
        - `rule`: `tx.GradientFlow` without weight decay.

        **Raises:**

        `ValueError` if they are of another kind, or an assumption is violated.
        """
        model, _ = _case(model, task)
        tau = check_flow(rule, cls.__name__).time_constant.astype(model.value.dtype)
        solution = cls(model.value, tau)
        return enforce(solution, cls.__name__, cls.assumptions(model, task, rule)) if check else solution

    @classmethod
    def assumptions(cls, model: PyTree, task: AbstractTask, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """How far the case is from what the solution takes for granted."""
        model, task = _case(model, task)
        certain = Assumption("a certain token, p = 1", 1 - task.probability, tolerance_for(task.probability))
        return certain, no_weight_decay(check_flow(rule, cls.__name__))

    def state(self, t: Float[Array, ""]) -> TokenLogit:
        """The logit at one time."""
        z = self.initial
        # So certain already that nothing moves any more, and that e^z would overflow.
        done = z > jnp.log(jnp.finfo(z.dtype).max) - 2
        start = jnp.where(done, 0.0, z)
        q = t.astype(z.dtype) / self.time_constant + start + jnp.exp(start)
        omega = wright_omega(q)
        # Each of the two forms cancels where the other does not.
        low = q < 1
        moved = jnp.where(low, jnp.where(low, q, 0.0) - omega, jnp.log(jnp.where(low, 1.0, omega)))
        return TokenLogit(jnp.where(done, z, moved))

    def reduce(self, model: PyTree) -> TokenLogit:
        """The logit itself."""
        return model

    def vector_field(self, t: Float[Array, ""], state: TokenLogit) -> TokenLogit:
        """The velocity of the logit."""
        del t
        return TokenLogit(jax.nn.sigmoid(-state.value) / self.time_constant)

    def limit(self) -> TokenLogit:
        """Infinite: the loss has no minimum."""
        return self.state(jnp.asarray(jnp.inf, self.initial.dtype))


def _case(model: Any, task: Any) -> tuple[TokenLogit, TokenTask]:
    if not isinstance(model, TokenLogit):
        raise ValueError(f"`model` must be a TokenLogit for CertainToken; got {type(model).__name__}.")
    if model.value.ndim != 0:
        raise ValueError(f"`model` must have one logit for CertainToken; got shape {model.value.shape}.")
    if not isinstance(task, TokenTask):
        raise ValueError(f"`task` must be a TokenTask for CertainToken; got {type(task).__name__}.")
    return model, task
