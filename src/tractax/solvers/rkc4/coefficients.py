r"""Computes the coefficients of `RKC4` and writes `table.npz`: `python -m tractax.solvers.rkc4.coefficients`.

**Stages.** Let $G_j$ be the Jacobi polynomials with parameters $(\alpha, -1/2)$, scaled to $G_j(1) = 1$, and let
$z = h\lambda \in [-\ell, 0]$ be mapped to $\xi = 1 + 2z/\ell \in [-1, 1]$. The stages $j = 2, \dots, m$ have the
stability polynomials

$$P_j(z) = 1 - b_j + b_j G_j(\xi), \qquad b_j = G_j''(1) / G_j'(1)^2,$$

which are bounded by one and agree with $e^{c_j z}$ to second order, as those of RKC2 do (there $\alpha = -1/2$). The
three-term recurrence of $G_j$ is a recurrence for the stages. Its first stage would be an Euler step, whose error no
later stage forgets; the vector field is therefore not evaluated there but extrapolated from the start, by one
Jacobian-vector product. Then all stages have stage order two exactly: $\sum_k a_{jk} c_k = c_j^2/2$. Of the eight order
conditions up to order four five are left, those of $c$, $c^2$, $Ac^2$, $Ac^3$ and $AAc^2$ for a combination of stages.
The parameter $\alpha$ is chosen to put the last stage at the end of the step, $c_m = 1$, so that no stage leaves it.

**Combinations.** $Ac^3$ and $AAc^2$ are proportional to each other up to lower orders, in a ratio that the order
conditions contradict, so that no combination of the stages has order four. One more evaluation at the end of the step
cures it:

$$U = \sum_j v_j Y_j, \qquad y_1 = \sum_j w_j Y_j + b\, h f(t_1, U),$$

where $U$ has order three ($y_1 - U$ estimates the error) and $y_1$ order four. The conditions are linear in $v$, and
then in $(w, b)$. What they leave free makes the stability polynomials small in the mean: with
$\xi = \cos\vartheta$, $\int |z U(z)|^2 d\vartheta$ and $\int |R(z)|^2 d\vartheta$ are least. The weight $z$ is there
because $z\,U(z)$ is part of $R(z)$. The interval $\ell$ is the longest of the form $(0.34 - 0.002\,i)(m + 1)^2$ on which
$|R| \le 0.95$ away from zero.
"""

from pathlib import Path

import numpy as np

TABLE = Path(__file__).with_name("table.npz")
# About one in thirty: a method has more stages than asked for by half of that on average.
SIZES = (*range(5, 30), *(int(m) for m in np.geomspace(30.5, 800.5, 104)))

_BETA = -0.5
_DAMPING = 0.95
# Around z = 0 the stability polynomial follows the exponential and is not asked to be damped.
_UNDAMPED = 3.0
_NODES_PER_STAGE = 3
_CHECKS_PER_STAGE = 10


def alpha(m: int, interval: float) -> float:
    """The Jacobi parameter that puts stage `m` at the end of the step."""
    return (m**2 + m / 2 - 1.5 - 2 * interval) / (interval - m + 1)


def stages(m: int, interval: float) -> np.ndarray:
    r"""Rows $(\mu, \nu, \kappa, \gamma, c)$ of the recurrence for the stages' distances $D_j = Y_j - Y_0$ from the start,

    $$D_j = \mu D_{j-1} + \nu D_{j-2} + h(\kappa F_{j-1} + \gamma F_0), \qquad j = 1, \dots, m.$$
    """
    a = alpha(m, interval)
    total = a + _BETA
    j = np.arange(1, m + 1)
    # G_j = (slope xi + intercept) G_{j-1} - back G_{j-2}
    n = j[1:] - 1
    slope = np.append((total + 2) / 2, (2 * n + total + 1) * (2 * n + total + 2) / (2 * (n + 1) * (n + total + 1)))
    slope *= j / (j + a)
    back = (n + a) * (n + _BETA) * (2 * n + total + 2) / ((n + 1) * (n + total + 1) * (2 * n + total))
    back = np.append(0, back * (n + 1) / (n + 1 + a) * n / (n + a))
    eigenvalue = j * (j + total + 1)
    b = np.append(1, (1 - eigenvalue[0] / eigenvalue) * (a + 1) / (a + 2))
    # Stage 1 is that of G_1 itself.
    b[1] = 1
    mu = b[1:] / b[:-1] * (1 + back)
    nu = np.append(0, -b[2:] / b[:-2] * back[1:])
    kappa = b[1:] / b[:-1] * slope * 2 / interval
    c = (eigenvalue - eigenvalue[0]) / ((a + 2) * interval)
    c[0], c[-1] = kappa[0], 1
    return np.stack([mu, nu, kappa, -(1 - b[:-1]) * kappa, c], axis=1)


def sums(m: int, interval: float) -> tuple[np.ndarray, float]:
    r"""The weights $(v_j, w_j)$ of the stages $j = 2, \dots, m$, and $b$."""
    rows = stages(m, interval)
    c = rows[1:, -1]
    ac2 = _integrate(rows, c**2)
    ac3 = _integrate(rows, c**3)
    aac2 = _integrate(rows, ac2)
    z = _grid(interval, _NODES_PER_STAGE * m)
    distances = _polynomials(rows, z)[1:].T

    v = _least_squares(z[:, None] * distances, z, np.stack([c, c**2, ac2]), np.asarray([1, 1, 1 / 3]))
    zu = z * (1 + distances @ v)
    conditions = np.stack([c, c**2, ac2, ac3, aac2])
    conditions = np.concatenate([conditions, np.asarray([[1, 2, 1, 1, 1 / 3]]).T], axis=1)
    columns = np.concatenate([distances, zu[:, None]], axis=1)
    w = _least_squares(columns, np.ones_like(z), conditions, np.asarray([1, 1, 1 / 3, 1 / 4, 1 / 12]))
    return np.stack([v, w[:-1]], axis=1), w[-1]


def amplification(m: int, interval: float, weights: np.ndarray, b: float, z: np.ndarray) -> np.ndarray:
    """The stability polynomial $R(z)$."""
    third, fourth = weights.T @ _polynomials(stages(m, interval), z)[1:]
    return 1 + fourth + b * z * (1 + third)


def _grid(interval: float, size: int) -> np.ndarray:
    """Points of the stability interval, as dense at its ends as the oscillations of polynomials."""
    return -interval * np.sin((np.arange(size) + 0.5) * np.pi / (2 * size)) ** 2


def _polynomials(rows: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The stability polynomials of the stages, less one."""
    before, distance, values = np.zeros_like(z), np.zeros_like(z), []
    for mu, nu, kappa, gamma, _ in rows:
        distance, before = mu * distance + nu * before + z * (kappa * (1 + distance) + gamma), distance
        values.append(distance)
    return np.stack(values)


def _integrate(rows: np.ndarray, f: np.ndarray) -> np.ndarray:
    """The matrix of the stages 2, ..., m applied to values there; those at the start and at stage 1 are zero."""
    before, value, values = 0.0, 0.0, []
    for (mu, nu, kappa), previous in zip(rows[1:, :3], np.append(0, f[:-1]), strict=True):
        value, before = mu * value + nu * before + kappa * previous, value
        values.append(value)
    return np.asarray(values)


def _least_squares(columns: np.ndarray, offset: np.ndarray, conditions: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The `x` with `conditions @ x == values` that minimises the norm of `offset + columns @ x`."""
    scale = np.linalg.norm(columns, axis=0)
    columns, conditions = columns / scale, conditions / scale
    q, r = np.linalg.qr(conditions.T, mode="complete")
    k = len(values)
    particular = q[:, :k] @ np.linalg.solve(r[:k].T, values)
    q, r = np.linalg.qr(columns @ (free := q[:, k:]))
    return (particular - free @ np.linalg.solve(r, q.T @ (offset + columns @ particular))) / scale


def longest(m: int) -> tuple[float, np.ndarray, float]:
    """The longest interval on which the method with `m` stages is stable, and its `sums`."""
    for i in range(160):
        interval = (0.34 - 0.002 * i) * (m + 1) ** 2
        if interval > m:
            weights, b = sums(m, interval)
            z = np.append(_grid(interval, _CHECKS_PER_STAGE * m), -interval)
            growth = np.abs(amplification(m, interval, weights, b, z))
            if np.all(growth <= np.where(z < -_UNDAMPED, _DAMPING, 1)):
                return interval, weights, b
    raise ValueError(f"no stable method with {m} stages")


def main() -> None:
    """Writes the table."""
    methods = []
    for m in SIZES:
        methods.append(longest(m))
        interval, weights, _ = methods[-1]
        largest = ", ".join(f"{w:.1f}" for w in np.abs(weights).sum(axis=0))
        print(
            f"m = {m:3d}: stable to {interval:8.1f} = {interval / (m + 1) ** 2:.3f} (m + 1)^2, weights {largest}",
            flush=True,
        )
    intervals, weights, b = zip(*methods, strict=True)
    np.savez_compressed(TABLE, sizes=SIZES, intervals=intervals, weights=np.concatenate(weights), b=b)


if __name__ == "__main__":
    main()
