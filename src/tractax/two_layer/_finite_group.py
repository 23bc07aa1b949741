"""Finite groups, as multiplication tables."""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from ..core import check_count


class FiniteGroup(eqx.Module):
    """A finite group.

    **Arguments:**

    - `table`: the product of elements $g$ and $h$ at `table[g, h]`, elements numbered from zero; shape
      `(order, order)`.
    - `real_dimensions`: the dimensions of its irreducible representations of real type, without the trivial one.
    - `complex_dimensions`: the dimensions of its irreducible representations of complex type, one of each conjugate pair.

    **Raises:**

    `ValueError` for a table that is not that of a group, and for dimensions that do not add up to its order.
    """

    table: Int[Array, "order order"]
    real_dimensions: tuple[int, ...] = eqx.field(static=True)
    complex_dimensions: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, table: PyTree, real_dimensions: Any = (), complex_dimensions: Any = ()):
        products = np.asarray(table)
        elements = np.arange(products.shape[0] if products.ndim else 0)
        square = products.ndim == 2 and products.shape == (elements.size,) * 2 and elements.size > 0
        if not square or not np.issubdtype(products.dtype, np.integer):
            raise ValueError(f"`table` must be a square table of whole numbers; got shape {products.shape}.")
        latin = all(np.array_equal(np.sort(products, axis=axis), _along(elements, axis)) for axis in (0, 1))
        if not latin or not np.array_equal(products[products], products[:, products]):
            raise ValueError("`table` must be the multiplication table of a group: here it is no group.")
        self.table = jnp.asarray(products)
        self.real_dimensions = tuple(check_count("real_dimensions", d) for d in real_dimensions)
        self.complex_dimensions = tuple(check_count("complex_dimensions", d) for d in complex_dimensions)
        total = 1 + sum(d**2 for d in self.real_dimensions) + 2 * sum(d**2 for d in self.complex_dimensions)
        # Groups with representations of quaternionic type are left with what is said of the others.
        if (self.real_dimensions or self.complex_dimensions) and total > elements.size:
            raise ValueError(
                "`real_dimensions` and `complex_dimensions` must have squares that add up to at most the order, "
                f"1 + Σd² + 2Σd² <= {elements.size}; got {total}."
            )

    @property
    def order(self) -> int:
        """The number of elements."""
        return self.table.shape[0]


def cyclic_group(order: int) -> FiniteGroup:
    """Residues under addition.

    **Arguments:**

    - `order`: at least 2.
    """
    order = check_count("order", order, least=2)
    x = np.arange(order)
    return FiniteGroup((x[:, None] + x[None, :]) % order, (1,) * (order % 2 == 0), (1,) * math.ceil(order / 2 - 1))


def dihedral_group(corners: int) -> FiniteGroup:
    """The symmetries of a regular polygon: rotations first, then reflections. That of a triangle is $S_3$.

    **Arguments:**

    - `corners`: at least 3.
    """
    n = check_count("corners", corners, least=3)
    rotation, flip = np.arange(2 * n) % n, np.arange(2 * n) // n
    turned = np.where(flip[:, None] == 1, -rotation[None, :], rotation[None, :])
    table = (rotation[:, None] + turned) % n + n * (flip[:, None] ^ flip[None, :])
    return FiniteGroup(table, (1,) * (3 if n % 2 == 0 else 1) + (2,) * ((n - 1) // 2))


def _along(elements: np.ndarray, axis: int) -> np.ndarray:
    order = elements.size
    return np.broadcast_to(elements[:, None] if axis == 0 else elements[None, :], (order, order))
