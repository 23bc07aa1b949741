"""Gradient flow: gradient descent in the limit of small steps."""

from typing import Any, ClassVar

import equinox as eqx
import jax
from jaxtyping import Array, Float, PyTree

from ...core import AbstractParameterFlow, AbstractRule, Objective, check_positive
from ._weight_decay import check_decay


def _as_positive(x: Any) -> Array:
    return check_positive("time_constant", x, scalar=True)


def _as_rates(x: Any) -> Array | None:
    return None if x is None else check_positive("rates", x, zero=True)


class GradientFlow(AbstractParameterFlow):
    r"""$\tau\,\dot\theta = -r\,(\nabla L(\theta) + \gamma\,\theta)$.

    Time is continuous: $k$ steps of gradient descent with learning rate $\eta$ correspond to $t = \eta k$ at
    $\tau = 1$.

    **Arguments:**

    - `time_constant`: $\tau > 0$, the unit in which time is measured.
    - `weight_decay`: $\gamma \ge 0$, the coefficient of the penalty $\tfrac\gamma2\lVert\theta\rVert^2$.
    - `rates`: $r$, relative learning rates: `None` (all one), or one non-negative number for each trainable array, in
      the order of `jax.tree.leaves`; `(0.1, 1.0)` slows down the first layer of a two-layer linear network.
    """

    time_constant: Float[Array, ""] = eqx.field(converter=_as_positive, default=1.0)
    weight_decay: Float[Array, ""] = eqx.field(converter=check_decay, default=0.0)
    rates: Float[Array, " arrays"] | None = eqx.field(converter=_as_rates, default=None)
    real_spectrum: ClassVar[bool] = True

    def vector_field(self, t: Any, params: PyTree, objective: Objective) -> PyTree:
        """The velocity of the parameters."""
        del t
        gradient = objective.penalised(self.weight_decay).gradient(params)
        velocity = jax.tree.map(lambda g: -g / self.time_constant.astype(g.dtype), gradient)
        if self.rates is None:
            return velocity
        leaves, structure = jax.tree.flatten(velocity)
        if self.rates.shape != (len(leaves),):
            raise ValueError(
                f"`rates` must hold one number for each of the {len(leaves)} trainable arrays of the model; "
                f"got shape {self.rates.shape}."
            )
        scaled = [rate.astype(v.dtype) * v for rate, v in zip(self.rates, leaves, strict=True)]
        return jax.tree.unflatten(structure, scaled)


def check_flow(rule: AbstractRule | None, theory: str, *, rates: bool = False) -> GradientFlow:
    """The rule of a theory, if it is gradient flow, or `GradientFlow()` for `None`.

    **Arguments:**

    - `rule`: what the user passed.
    - `theory`: the name of the theory, for the error.
    - `rates`: whether the theory knows relative rates of the arrays.

    **Raises:**

    `ValueError` for another rule, or for relative rates where the theory does not know them.
    """
    rule = GradientFlow() if rule is None else rule
    if not isinstance(rule, GradientFlow):
        raise ValueError(f"`rule` must be tx.GradientFlow for {theory}; got {type(rule).__name__}.")
    if rule.rates is not None and not rates:
        raise ValueError(f"`rule` must have equal rates for all layers for {theory}; got rates {rule.rates}.")
    return rule
