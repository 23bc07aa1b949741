"""Link functions as sums of Hermite polynomials."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import check_matrix


class HermiteLink(eqx.Module):
    r"""$f(u) = \sum_k a_k\,h_k(u)$ with $h_k = \mathrm{He}_k/\sqrt{k!}$, orthonormal under $u\sim\mathcal N(0, 1)$.

    `HermiteLink([0.0, 0.0, 1.0])` and `HermiteLink([1.0], orders=(2,))` are the same function; the second also says to
    JAX, which compiles without knowing numbers, that there is no other order.

    **Arguments:**

    - `coefficients`: $a_k$, shape `(orders,)`.
    - `orders`: $k$ of each coefficient, increasing; $0, 1, 2, \dots$ by default.

    **Raises:**

    `ValueError` for orders that do not increase, are negative, or are not as many as the coefficients.
    """

    coefficients: Float[Array, " orders"]
    orders: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, coefficients: ArrayLike | Sequence, orders: Sequence[int] | None = None):
        self.coefficients = check_matrix("coefficients", coefficients, (None,))
        orders = tuple(range(self.coefficients.size)) if orders is None else tuple(orders)
        whole = all(isinstance(k, int) and not isinstance(k, bool) and k >= 0 for k in orders)
        if not whole or len(orders) != self.coefficients.size or list(orders) != sorted(set(orders)):
            raise ValueError(
                f"`orders` must be {self.coefficients.size} increasing whole numbers, one for each coefficient; "
                f"got {orders}."
            )
        self.orders = orders

    @classmethod
    def project(cls, function: Callable[[Array], Array], degree: int, *, nodes: int = 100) -> "HermiteLink":
        """The polynomial of this degree that is nearest to a function, by Gauss-Hermite quadrature.

        **Arguments:**

        - `function`: from numbers to numbers, entry by entry; the smoother, the more accurate.
        - `degree`: the largest order.
        - `nodes`: of the quadrature, more than `degree`.
        """
        if not isinstance(degree, int) or not 0 <= degree < nodes:
            raise ValueError(f"`degree` must be a whole number from 0 to {nodes - 1}; got {degree}.")
        points, weights = gauss_hermite(nodes, jnp.zeros(()).dtype)
        return cls(hermite_values(points, degree) @ (weights * function(points)))

    @property
    def degree(self) -> int:
        """The largest order."""
        return self.orders[-1]

    @property
    def all_coefficients(self) -> Float[Array, " degree_and_one"]:
        """The coefficients of all orders from zero to the degree."""
        zeros = jnp.zeros(self.degree + 1, self.coefficients.dtype)
        return zeros.at[np.asarray(self.orders)].set(self.coefficients)

    def __call__(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """$f(u)$."""
        return jnp.tensordot(self.coefficients, hermite_values(u, self.degree)[np.asarray(self.orders)], 1)


def check_link(name: str, link: PyTree) -> HermiteLink:
    """`link`, if it is a `HermiteLink`, or an error naming `name`."""
    if not isinstance(link, HermiteLink):
        raise ValueError(f"`{name}` must be a HermiteLink; got {type(link).__name__}.")
    return link


def hermite_values(u: Float[Array, "*shape"], degree: int) -> Float[Array, "orders *shape"]:
    """$h_0(u), \\dots, h_n(u)$, orthonormal."""
    values = [jnp.ones_like(u), u]
    for k in range(1, degree):
        values.append((u * values[k] - k**0.5 * values[k - 1]) / (k + 1) ** 0.5)
    return jnp.stack(values[: degree + 1])


def gauss_hermite(nodes: int, dtype: jax.typing.DTypeLike) -> tuple[Float[Array, " nodes"], Float[Array, " nodes"]]:
    """Points and weights with which averages over a standard normal variable become sums."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    return jnp.asarray(points, dtype), jnp.asarray(weights / weights.sum(), dtype)
