r"""Tensor principal component analysis: one direction in a noisy symmetric tensor."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ..core import AbstractTask, as_float_array, check_count, check_finite, check_key, require, standard_normal
from ._information_exponent import check_order
from ._spherical import AbstractSpherical, check_unit


class UnitVector(AbstractSpherical):
    """A direction, and nothing else.

    **Arguments:**

    - `direction`: $\\theta$, of unit length, shape `(in,)`.

    **Raises:**

    `ValueError` if it is not of unit length.
    """

    direction: Float[Array, " in"]

    def __init__(self, direction: ArrayLike | Sequence):
        self.direction = check_unit("direction", direction)


class TensorPCATask(AbstractTask):
    r"""The energy $L(\theta) = -\langle T, \theta^{\otimes k}\rangle$ of a direction.

    Without noise, $T = \theta^{*\otimes k}$, this is $-m^k$ in the overlap $m = \theta\cdot\theta^*$, as for single-index
    models of one Hermite order.

    **Arguments:**

    - `tensor`: $T$, symmetric under all exchanges of its $k \ge 1$ axes, shape `(in, ..., in)`.

    **Raises:**

    `ValueError` for axes of different lengths, or a tensor that is not symmetric.
    """

    tensor: Float[Array, "..."]

    def __init__(self, tensor: ArrayLike | Sequence):
        tensor = check_cubic("tensor", tensor)
        rounding = 100 * jnp.finfo(tensor.dtype).eps * jnp.max(jnp.abs(tensor))
        for axis in range(tensor.ndim - 1):
            off = jnp.max(jnp.abs(tensor - jnp.swapaxes(tensor, axis, axis + 1)))
            tensor = require(tensor, off <= rounding, f"`tensor` must be symmetric; exchanging axes changes it by {off}.")
        self.tensor = tensor

    @property
    def order(self) -> int:
        """$k$."""
        return self.tensor.ndim

    @property
    def size(self) -> int:
        """$d$."""
        return self.tensor.shape[0]

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """The energy of a model with a `direction`, whatever its length."""
        theta = check_direction(model, self.size)
        theta = theta / jnp.linalg.norm(theta)
        value = self.tensor.astype(theta.dtype)
        for _ in range(self.order):
            value = value @ theta
        return -value

    def typical_energy(self) -> Float[Array, ""]:
        """The root mean square of the energy over all directions."""
        k, trace, square = self.order, self.tensor, jnp.zeros((), self.tensor.dtype)
        # Pair the axes of two copies of the tensor in every way: j pairs within each copy, and the rest between them.
        for j in range(k // 2 + 1):
            within = math.comb(k, 2 * j) * math.factorial(2 * j) // (2**j * math.factorial(j))
            square = square + within**2 * math.factorial(k - 2 * j) * jnp.sum(trace**2)
            if trace.ndim >= 2:
                trace = jnp.trace(trace, axis1=-2, axis2=-1)
        return jnp.sqrt(square / float(math.prod(range(self.size, self.size + 2 * k, 2))))


def spiked_tensor(
    direction: ArrayLike | Sequence, *, order: int, samples: ArrayLike, key: PRNGKeyArray
) -> Float[Array, "..."]:
    r"""$T = \theta^{*\otimes k} + n^{-1/2}\,\mathrm{Sym}(G)$: a direction seen $n$ times through noise.

    $G$ has independent standard normal entries and $\mathrm{Sym}$ averages over all orders of the axes, so that the noise
    of the energy of every direction has variance $1/n$.

    **Arguments:**

    - `direction`: $\theta^*$, of unit length, shape `(in,)`.
    - `order`: $k \ge 1$.
    - `samples`: $n > 0$; infinite for no noise.
    - `key`: for the noise.

    **Returns:**

    The tensor, with $k$ axes of length `in`.

    **Raises:**

    `ValueError` for a direction that is not of unit length, an order below 1, or samples that are not positive.
    """
    check_key(key)
    check_order(order)
    direction = check_unit("direction", direction)
    samples = as_float_array("samples", samples).astype(direction.dtype)
    samples = require(samples, samples > 0, f"`samples` must be positive; got {samples}.")
    spike = direction
    for _ in range(order - 1):
        spike = jnp.tensordot(spike, direction, 0)
    return spike + _symmetrised(standard_normal(key, spike.shape, spike.dtype)) / jnp.sqrt(samples)


def random_direction(size: int, *, key: PRNGKeyArray) -> UnitVector:
    """A uniformly distributed direction in a space of the given size."""
    check_key(key)
    size = check_count("size", size)
    normal = jax.random.normal(key, (size,))
    return UnitVector(normal / jnp.linalg.norm(normal))


def check_cubic(name: str, tensor: ArrayLike | Sequence) -> Float[Array, "..."]:
    """`tensor` as a finite array with at least one axis, all of the same length, or an error naming `name`."""
    tensor = check_finite(name, tensor)
    if tensor.ndim == 0 or tensor.size == 0 or len(set(tensor.shape)) != 1:
        raise ValueError(f"`{name}` must have axes of one length, at least one of them; got shape {tensor.shape}.")
    return tensor


def check_direction(model: PyTree, size: int) -> Float[Array, " in"]:
    """The direction of a model with so many inputs."""
    if not isinstance(model, AbstractSpherical):
        raise ValueError(f"`model` must be a unit vector, such as a UnitVector; got {type(model).__name__}.")
    if model.direction.shape != (size,):
        raise ValueError(f"`model` must have {size} inputs, as the tensor has; got {model.direction.size}.")
    return model.direction


def _symmetrised(tensor: Array) -> Array:
    """The average over all orders of the axes: one axis after the other changes places with those before it."""
    for last in range(1, tensor.ndim):
        exchanged = [jnp.swapaxes(tensor, axis, last) for axis in range(last)]
        tensor = sum(exchanged, tensor) / (last + 1)
    return tensor
