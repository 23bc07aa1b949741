"""Continuous symmetries of a loss in a block of parameters, and their Noether charges."""

import abc
import math
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ...core import as_float_array, check_matrix, require

Block = tuple[Array, ...]


class AbstractSymmetry(eqx.Module):
    r"""A one-parameter group that moves a block of parameters, $\dot w = G(w)$, and leaves the loss as it is.

    The gradient of the loss is then orthogonal to the generator, $\langle g, G(w)\rangle = 0$, on every batch.

    A symmetry acts on the last axis of its block; leading axes, such as the units of a layer, count separate symmetries
    of the same kind, with a charge each. Charges are functions of the model: record them with
    `tx.train(..., observe=symmetry.charge)`.

    **Attributes:**

    - `where`: a function from a model to its block, linear in the parameters (a choice of arrays, transposed, reshaped
      or joined), since it is applied to gradients and velocities as well.
    - `degree` (of the class): of the charge, in the parameters.
    """

    where: eqx.AbstractVar[Callable[[PyTree], Any]]
    degree: eqx.AbstractClassVar[int]

    @abc.abstractmethod
    def generator(self, block: Block) -> Block:
        """$G(w)$, in which direction the symmetry moves the block."""

    def momentum(self, model: PyTree, velocity: PyTree) -> Float[Array, "..."]:
        r"""$\langle\dot w, G(w)\rangle$, the velocity along the symmetry.

        **Arguments:**

        - `model`: a network.
        - `velocity`: a PyTree of the same structure: a velocity, or the gradient, for which the result is zero if the
          loss has the symmetry.

        **Returns:**

        One number for each symmetry, of the shape of the block without its last axis.
        """
        along, moved = self.generator(self.block(model)), self.block(velocity)
        return sum(jnp.sum(a * b, axis=-1) for a, b in zip(along, moved, strict=True))

    def charge(self, model: PyTree) -> Float[Array, "..."]:
        r"""$Q = \langle w, G(w)\rangle$, which gradient flow conserves.

        **Returns:**

        One number for each symmetry, of the shape of the block without its last axis.
        """
        return self.momentum(model, model)

    def violation(self, model: PyTree, gradient: PyTree) -> Float[Array, ""]:
        r"""The largest $\lvert\langle g, G(w)\rangle\rvert$ over the largest $\lVert g\rVert\,\lVert G(w)\rVert$.

        It is zero if the loss has the symmetry. A block without a gradient violates nothing.
        """
        along, moved = self.generator(self.block(model)), self.block(gradient)
        # One size for all units: a gradient that is rounding, next to those of other units, has no direction.
        size = jnp.sqrt(jnp.max(_square(along)) * jnp.max(_square(moved)))
        return jnp.max(jnp.abs(self.momentum(model, gradient))) / jnp.where(size == 0, 1.0, size)

    def block(self, model: PyTree) -> Block:
        """The arrays that the symmetry moves."""
        block = self.where(model)
        parts = tuple(as_float_array("where", part) for part in (block if isinstance(block, tuple) else (block,)))
        if any(part.ndim == 0 for part in parts) or len({part.shape[:-1] for part in parts}) != 1:
            raise ValueError(
                "`where` must return an array, or a tuple of arrays that agree in all axes but the last, on which "
                f"{type(self).__name__} acts; got shapes {[part.shape for part in parts]}."
            )
        return parts


class TranslationSymmetry(AbstractSymmetry):
    r"""$w \to w + \alpha 1$: logits before a softmax. Charge $1^\top w$.

    **Arguments:**

    - `where`: from a model to the block, an array whose last axis is translated; for a readout of shape
      `(classes, hidden)` that is `lambda model: model.readout.T`, with one charge for each hidden unit.
    """

    where: Callable[[PyTree], Any] = eqx.field(static=True)
    degree: ClassVar[int] = 1

    def generator(self, block: Block) -> Block:
        """$1$."""
        (w,) = _parts(block, 1, self)
        return (jnp.ones_like(w),)


class ScaleSymmetry(AbstractSymmetry):
    r"""$w \to \alpha w$ with $\alpha > 0$: weights in front of a normalisation. Charge $\lVert w\rVert^2$.

    **Arguments:**

    - `where`: from a model to the block, an array whose last axis is scaled; for a layer of shape `(hidden, in)` that
      normalises each unit, the array itself.
    """

    where: Callable[[PyTree], Any] = eqx.field(static=True)
    degree: ClassVar[int] = 2

    def generator(self, block: Block) -> Block:
        """$w$."""
        return _parts(block, 1, self)


class RescaleSymmetry(AbstractSymmetry):
    r"""$(w_1, w_2) \to (\alpha w_1, w_2/\alpha^p)$ with $\alpha > 0$: around units that are homogeneous.

    They have $\phi(\alpha z) = \alpha^p\phi(z)$: $p = 1$ for (leaky) rectifiers and linear units, $p = 2$ for quadratic
    ones. Charge $\lVert w_1\rVert^2 - p\lVert w_2\rVert^2$.

    **Arguments:**

    - `where`: from a model to the two arrays, whose last axes are scaled; around the units of a hidden layer that is
      `lambda model: (model.first, model.second.T)`.
    - `power`: $p > 0$, a number that is not trained.

    **Raises:**

    `ValueError` for a power that is no positive number.
    """

    where: Callable[[PyTree], Any] = eqx.field(static=True)
    power: float = eqx.field(static=True)
    degree: ClassVar[int] = 2

    def __init__(self, where: Callable[[PyTree], Any], power: PyTree = 1.0):
        if isinstance(power, bool) or not isinstance(power, int | float) or not 0 < power < math.inf:
            raise ValueError(f"`power` must be a positive number; got {power!r}.")
        self.where = where
        self.power = float(power)

    def generator(self, block: Block) -> Block:
        """$(w_1, -pw_2)$."""
        first, second = _parts(block, 2, self)
        return first, -self.power * second


class RotationSymmetry(AbstractSymmetry):
    r"""$w \to e^{\alpha A}w$ with an antisymmetric $A$: weights that the loss sees through their lengths and angles only.

    Its `charge` is zero whatever the weights. What it says is about velocities: the angular `momentum` $\dot w^\top Aw$.

    **Arguments:**

    - `where`: from a model to the block, an array whose last axis is rotated.
    - `matrix`: $A$, shape `(n, n)`.

    **Raises:**

    `ValueError` for a matrix that is not square and antisymmetric.
    """

    matrix: Float[Array, "n n"]
    where: Callable[[PyTree], Any] = eqx.field(static=True)
    degree: ClassVar[int] = 2

    def __init__(self, where: Callable[[PyTree], Any], matrix: PyTree):
        matrix = check_matrix("matrix", matrix)
        if matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"`matrix` must be square; got shape {matrix.shape}.")
        self.matrix = require(matrix, jnp.all(matrix == -matrix.T), "`matrix` must be antisymmetric.")
        self.where = where

    def generator(self, block: Block) -> Block:
        """$Aw$."""
        (w,) = _parts(block, 1, self)
        if w.shape[-1] != self.matrix.shape[0]:
            raise ValueError(f"`matrix` must rotate a last axis of length {w.shape[-1]}; got {self.matrix.shape}.")
        return (w @ self.matrix.astype(w.dtype).T,)


def _parts(block: Block, wanted: int, symmetry: AbstractSymmetry) -> Block:
    if len(block) != wanted:
        raise ValueError(f"`where` must return {wanted} array(s) for {type(symmetry).__name__}; got {len(block)}.")
    return block


def _square(block: Block) -> Array:
    return sum(jnp.sum(part**2, axis=-1) for part in block)
