"""Scalars that travel together."""

from typing import Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

_Tree = TypeVar("_Tree")


class Packed(eqx.Module, Generic[_Tree]):
    """A PyTree of arrays whose scalars are kept in one array for each kind of number.

    A solver's state is carried through diffrax's loop, and on a CPU each array costs a step some kernels of its own:
    ten scalars cost as much as a small network's gradient.

    **Arguments:**

    - `tree`: a PyTree of arrays.
    """

    arrays: list[Array]
    scalars: dict[str, Array]
    structure: PyTree = eqx.field(static=True)

    def __init__(self, tree: _Tree):
        leaves, structure = jax.tree.flatten(tree)
        kinds: dict[str, list[Array]] = {}
        places = []
        for leaf in leaves:
            kind = leaf.dtype.name if leaf.ndim == 0 else ""
            kinds.setdefault(kind, []).append(leaf)
            places.append((kind, len(kinds[kind]) - 1))
        self.arrays = kinds.pop("", [])
        self.scalars = {kind: jnp.stack(leaves) for kind, leaves in kinds.items()}
        self.structure = (structure, tuple(places))

    @property
    def tree(self) -> _Tree:
        """The PyTree."""
        structure, places = self.structure
        leaves = [self.scalars[kind][place] if kind else self.arrays[place] for kind, place in places]
        return jax.tree.unflatten(structure, leaves)
