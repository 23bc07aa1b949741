"""Six numbers that describe a tensor of rank one beside the true one, and how they move."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..core import AbstractSolution
from ..rules import GradientFlow
from ..special import safe_sqrt
from ._rank_one_tensor import RankOneTensor, RankOneTensorTask


class TensorOverlaps(eqx.Module):
    r"""The factors of a tensor of rank one, in the order $a, b, c$, seen from the true ones.

    **Attributes:**

    - `along`: $m_x = x\cdot x^*/\lVert x^*\rVert$, shape `(3,)`.
    - `across`: $q_x \ge 0$, the norm of what is orthogonal to $x^*$, shape `(3,)`; its direction never changes.
    """

    along: Float[Array, "*times 3"]
    across: Float[Array, "*times 3"]

    @property
    def squares(self) -> Float[Array, "*times 3"]:
        r"""$N_x = \lVert x\rVert^2 = m_x^2 + q_x^2$."""
        return self.along**2 + self.across**2

    @property
    def misalignment(self) -> Float[Array, "*times 3"]:
        r"""$1 - \cos^2\angle(x, x^*)$, a progress measure of each subcircuit: 1 knows nothing, 0 is learned."""
        squares = self.squares
        return jnp.where(squares == 0, 1.0, self.across**2 / jnp.where(squares == 0, 1.0, squares))

    @property
    def imbalance(self) -> Float[Array, "*times 2"]:
        r"""$\lVert a\rVert^2 - \lVert b\rVert^2$ and $\lVert b\rVert^2 - \lVert c\rVert^2$, conserved where all are
        trained at one rate."""
        squares = self.squares
        return squares[..., :-1] - squares[..., 1:]


class AbstractTensorSolution(AbstractSolution[TensorOverlaps]):
    """A solution for a tensor of rank one: it knows the loss."""

    task: eqx.AbstractVar[RankOneTensorTask]
    rule: eqx.AbstractVar[GradientFlow]

    def loss(self, t: ArrayLike) -> Float[Array, ""]:
        """The task's loss at one time."""
        return loss_of_overlaps(self.evaluate(t), self.task)

    def vector_field(self, t: Any, state: TensorOverlaps) -> TensorOverlaps:
        """The flow of the six numbers."""
        return overlap_velocity(self.task, self.rule, t, state)

    def reduce(self, model: RankOneTensor) -> TensorOverlaps:
        """The six numbers of a network."""
        return overlaps(model, self.task)


def overlaps(model: RankOneTensor, task: RankOneTensorTask) -> TensorOverlaps:
    """The six numbers of a network."""
    along, across = [], []
    for factor, true in zip(model.factors, task.truth.factors, strict=True):
        unit = (true / jnp.linalg.norm(true)).astype(factor.dtype)
        overlap = factor @ unit
        along.append(overlap)
        across.append(safe_sqrt(jnp.sum((factor - overlap * unit) ** 2)))
    return TensorOverlaps(jnp.stack(along), jnp.stack(across))


def loss_of_overlaps(state: TensorOverlaps, task: RankOneTensorTask) -> Float[Array, ""]:
    r"""$\tfrac1{2n}\big(S^2 - 2S\,m_am_bm_c + N_aN_bN_c\big)$, as a sum of squares."""
    along, across, squares = state.along**2, state.across**2, state.squares
    strength = task.strength.astype(squares.dtype)
    missing = (strength - jnp.prod(state.along)) ** 2
    a, b, c = across
    excess = a * squares[1] * squares[2] + along[0] * b * squares[2] + along[0] * along[1] * c
    return (missing + excess) / (2 * task.entries)


def overlap_velocity(task: RankOneTensorTask, rule: GradientFlow, t: Any, state: TensorOverlaps) -> TensorOverlaps:
    """Their flow: each factor learns as much as the other two know."""
    del t
    along, across, dtype = state.along, state.across, state.along.dtype
    of_others = _others(state.squares)
    drive = task.strength.astype(dtype) * _others(along)
    rates = factor_rates(rule, dtype) / rule.time_constant.astype(dtype)
    decay = rule.weight_decay.astype(dtype)
    return TensorOverlaps(
        rates * ((drive - along * of_others) / task.entries - decay * along),
        -rates * across * (of_others / task.entries + decay),
    )


def factor_rates(rule: GradientFlow, dtype: Any) -> Float[Array, " 3"]:
    """The relative rates of the factors."""
    if rule.rates is None:
        return jnp.ones(3, dtype)
    if rule.rates.shape != (3,):
        raise ValueError(f"`rates` of `rule` must hold one number for each of a, b, c; got shape {rule.rates.shape}.")
    return rule.rates.astype(dtype)


def _others(x: Float[Array, " 3"]) -> Float[Array, " 3"]:
    """The product of the other two."""
    return jnp.roll(x, 1) * jnp.roll(x, -1)
