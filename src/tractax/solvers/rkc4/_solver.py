"""The fourth-order Runge–Kutta–Chebyshev method."""

from typing import ClassVar

import diffrax
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._recurrence import Field, Recurrence, ScanKind
from .._stabilised import AbstractStabilisedSolver
from .coefficients import TABLE, stages


def _rows(m: int, interval: float, weights: np.ndarray, b: float) -> np.ndarray:
    """The stages after the first, with two sums of orders three and four, and one that adds the corrected slope.

    The vector field at the sums takes the place of that at the last two stages.
    """
    rows = np.zeros((m, 9))
    rows[:-1, :5] = stages(m, interval)[1:]
    rows[:-1, 5:7] = weights
    rows[-1, [2, 4, 6]] = b, 1, 1
    rows[-2:, 7:] = np.eye(2)
    return rows


with np.load(TABLE) as table:
    _SIZES, _INTERVALS, _B = (table[name].tolist() for name in ("sizes", "intervals", "b"))
    _WEIGHTS = np.split(table["weights"], np.cumsum(table["sizes"] - 1)[:-1])
# The lengths of the first stages.
_FIRST = np.asarray([stages(m, interval)[0, -1] for m, interval in zip(_SIZES, _INTERVALS, strict=True)])
_METHODS = tuple(_rows(*method) for method in zip(_SIZES, _INTERVALS, _WEIGHTS, _B, strict=True))


class RKC4(AbstractStabilisedSolver):
    r"""A Runge–Kutta–Chebyshev method of order four, for stiff problems with a real negative spectrum.

    With $s$ gradients and one Jacobian-vector product a step it is stable on $h\lambda \in [-0.32\,s^2, 0]$, and damps
    the stiffest modes strongly. It suits relative errors below about $10^{-4}$, where it needs fewer gradients than
    `RKC2`.

    The stages are those of RKC2 with Jacobi in place of Chebyshev polynomials, which keeps them within the step. Each is
    accurate to second order also where the problem is stiff. Two weighted sums of them, the second corrected by the
    vector field at the first, have orders three and four; their difference estimates the error. Other fourth-order
    stabilised methods (ROCK4: Abdulle 2002) end in four stages that amplify the rounding errors and the errors of stiff
    modes by $(h\lambda)^4/100$; here the factor is $h\lambda/75$. The coefficients are derived in
    `tractax.solvers.rkc4.coefficients`.

    Source for the stages: Sommeijer, Shampine and Verwer (1998), *RKC: an explicit solver for parabolic PDEs*.

    **Arguments:**

    - `scan_kind`: how the loop over stages can be differentiated: `"checkpointed"` (the default) in reverse mode;
      `"lax"` in forward mode, for `diffrax.ForwardMode`; `"bounded"` in both, at some cost, for
      `diffrax.DirectAdjoint`.
    """

    scan_kind: ScanKind = "checkpointed"

    recurrence: ClassVar[Recurrence] = Recurrence(_METHODS)
    stages: ClassVar[np.ndarray] = recurrence.stages
    intervals: ClassVar[np.ndarray] = np.asarray(_INTERVALS)
    products: ClassVar[int] = 1

    def order(self, terms: diffrax.AbstractTerm) -> int:
        """Four."""
        return 4

    def error_order(self, terms: diffrax.AbstractTerm) -> int:
        """Four: the local error of a third-order method."""
        return 4

    def advance(
        self,
        choice: Int[Array, ""],
        enabled: Bool[Array, ""],
        field: Field,
        y0: Float[Array, " size"],
        f0: Float[Array, " size"],
        h: Float[Array, ""],
    ) -> tuple[Float[Array, " size"], Float[Array, " size"], Float[Array, " size"]]:
        """One step with `stages[choice]` evaluations of the vector field and a Jacobian-vector product."""
        x = jnp.asarray(_FIRST, h.dtype)[choice]
        distance = x * h * f0
        # The change of the vector field along an Euler step, to first order: its curvature would spoil the order.
        change = jax.lax.cond(
            eqxi.unvmap_any(enabled),
            lambda: jax.jvp(field, (jnp.zeros_like(x), y0), (x, distance))[1],
            lambda: jnp.zeros_like(f0),
        )
        first = (distance, f0 + jnp.where(enabled, change, 0))
        _, f1, (third, fourth) = self.recurrence.run(choice, enabled, field, y0, f0, h, self.scan_kind, first)
        return y0 + fourth, f1, fourth - third
