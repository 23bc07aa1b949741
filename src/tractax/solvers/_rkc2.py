"""The second-order Runge–Kutta–Chebyshev method."""

from typing import ClassVar

import diffrax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ._recurrence import Field, Recurrence, ScanKind
from ._stabilised import AbstractStabilisedSolver

_DAMPING = 2 / 13
_STAGES = tuple(range(2, 30)) + tuple(int(s) for s in np.geomspace(30, 250, 44))


def _chebyshev(s: int, w0: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Chebyshev polynomials of the first kind at `w0`, and their first and second derivatives, up to degree `s`."""
    T, dT, ddT = [1.0, w0], [0.0, 1.0], [0.0, 0.0]
    for _ in range(2, s + 1):
        ddT.append(4 * dT[-1] + 2 * w0 * ddT[-1] - ddT[-2])
        dT.append(2 * T[-1] + 2 * w0 * dT[-1] - dT[-2])
        T.append(2 * w0 * T[-1] - T[-2])
    return np.asarray(T), np.asarray(dT), np.asarray(ddT)


def _method(s: int) -> tuple[np.ndarray, float]:
    """The rows of the method with `s` stages for `Recurrence`, and the length of its stability interval."""
    w0 = 1 + _DAMPING / s**2
    T, dT, ddT = _chebyshev(s, w0)
    w1 = dT[s] / ddT[s]
    b = np.empty(s + 1)
    b[2:] = ddT[2:] / dT[2:] ** 2
    b[:2] = b[2]
    x = w1 * ddT[1:] / dT[1:]
    x[0] = x[1] / dT[2]
    mu = 2 * w0 * b[2:] / b[1:-1]
    nu = -b[2:] / b[:-2]
    mu_f = 2 * w1 * b[2:] / b[1:-1]
    gamma = -(1 - b[1:-1] * T[1:-1]) * mu_f
    first = np.asarray([[1, 0, b[1] * w1, 0, x[0]]])
    rest = np.stack([mu, nu, mu_f, gamma, x[1:]], axis=1)
    rows = np.concatenate([first, rest])
    # The last stage is at the end of the step, without rounding.
    rows[-1, -1] = 1
    return rows, (w0 + 1) / w1


_METHODS = [_method(s) for s in _STAGES]


class RKC2(AbstractStabilisedSolver):
    r"""The Runge–Kutta–Chebyshev method of order two, for stiff problems with a real negative spectrum.

    With $s$ stages it is stable on $h\lambda \in [-0.65\,s^2, 0]$, so that it crosses a stiff phase in the square root
    of the number of gradients that a classical explicit method needs. It suits moderate accuracy (relative errors above
    about $10^{-6}$).

    Source: Sommeijer, Shampine and Verwer (1998), *RKC: an explicit solver for parabolic PDEs*.

    **Arguments:**

    - `scan_kind`: how the loop over stages can be differentiated: `"checkpointed"` (the default) in reverse mode;
      `"lax"` in forward mode, for `diffrax.ForwardMode`; `"bounded"` in both, at some cost, for
      `diffrax.DirectAdjoint`.
    """

    scan_kind: ScanKind = "checkpointed"

    recurrence: ClassVar[Recurrence] = Recurrence(tuple(rows for rows, _ in _METHODS))
    stages: ClassVar[np.ndarray] = recurrence.stages
    intervals: ClassVar[np.ndarray] = np.asarray([interval for _, interval in _METHODS])

    def order(self, terms: diffrax.AbstractTerm) -> int:
        """Two."""
        return 2

    def error_order(self, terms: diffrax.AbstractTerm) -> int:
        """Three: the error estimate is of the order of the local error."""
        return 3

    def advance(
        self,
        choice: Int[Array, ""],
        enabled: Bool[Array, ""],
        field: Field,
        y0: Float[Array, " size"],
        f0: Float[Array, " size"],
        h: Float[Array, ""],
    ) -> tuple[Float[Array, " size"], Float[Array, " size"], Float[Array, " size"]]:
        """One step with `stages[choice]` evaluations of the vector field."""
        distance, f1, _ = self.recurrence.run(choice, enabled, field, y0, f0, h, self.scan_kind)
        return y0 + distance, f1, 0.4 * h * (f0 + f1) - 0.8 * distance
