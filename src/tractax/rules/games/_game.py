"""Two players that learn at the same time, each with a loss of its own."""

import abc

import equinox as eqx
from jaxtyping import Array, Float, PyTree

from ...core import AbstractTask, check_matrix


class Players(eqx.Module):
    """A pair of players, each any Equinox module, or an array.

    **Arguments:**

    - `first`, `second`: their models.
    """

    first: PyTree
    second: PyTree


class AbstractGame(AbstractTask):
    """A task for two players: a loss for each, of the parameters of both."""

    @abc.abstractmethod
    def losses(self, model: Players) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """The loss that the first player lowers, and that of the second."""

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """The loss of the first player."""
        return self.losses(model)[0]


class BilinearGame(AbstractGame):
    r"""The zero-sum game of value $x^\top Ay$: the first player $x$ lowers it, the second $y$ raises it.

    **Arguments:**

    - `matrix`: $A$, shape `(m, n)`.

    **Raises:**

    `ValueError` for a matrix that is empty or not finite.
    """

    matrix: Float[Array, "m n"]

    def __init__(self, matrix: PyTree):
        self.matrix = check_matrix("matrix", matrix)

    def losses(self, model: Players) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """$x^\\top Ay$ and its negative."""
        value = model.first @ self.matrix @ model.second
        return value, -value
