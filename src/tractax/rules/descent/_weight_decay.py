r"""Weight decay that is coupled to the gradient: rules see $L + \tfrac\gamma2\lVert\theta\rVert^2$ instead of $L$."""

from typing import Any, Protocol, TypeVar, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array

from ...core import Assumption, check_positive, require


@runtime_checkable
class _HasDecay(Protocol):
    @property
    def weight_decay(self) -> Array: ...


_Rule = TypeVar("_Rule", bound=_HasDecay)


def check_decay(weight_decay: Any) -> Array:
    r"""$\gamma$, if it is not negative."""
    return check_positive("weight_decay", weight_decay, zero=True, scalar=True)


def no_weight_decay(rule: _HasDecay) -> Assumption:
    """The assumption that a rule has no weight decay."""
    return Assumption("no weight decay", jnp.abs(rule.weight_decay), 0.0)


def refuse_decay(rule: _Rule, theory: str) -> _Rule:
    """The rule, if it has no weight decay, of which the theory does not know."""
    return require(rule, rule.weight_decay == 0, f"`rule` must have no weight decay for {theory}.")
