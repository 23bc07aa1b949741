r"""How long a single-index model looks for its teacher.

A random start in $\mathbb R^d$ has an overlap of order $d^{-1/2}$. The first Hermite order that both links have, the
information exponent $k$, says how flat the loss is there, and so how long the search lasts: under spherical gradient
flow, with $c = a_kb_k$, a time $m_0^{2-k}/(k(k-2)c) \propto d^{(k-2)/2}$ for $k\ge3$ and $\ln(1/m_0)/(2c)$ for $k = 2$.
Online SGD must also keep the noise of its steps below the signal, which for $k\ge3$ takes rates that fall as
$d^{-(k-2)/2}$, and so $d^{k-1}$ samples ($d\ln d$ for $k = 2$, $d$ for $k = 1$).

Source: Ben Arous, Gheissari and Jagannath 2021, arXiv 2003.10409.
"""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..core import check_finite, check_fraction, check_positive
from ._hermite_link import HermiteLink, check_link
from ._single_index import check_overlap, hermite_signals


def information_exponent(student: HermiteLink, teacher: HermiteLink | None = None, *, tolerance: float = 1e-10) -> int:
    """The first Hermite order, one or more, that both links have.

    **Arguments:**

    - `student`, `teacher`: the links; without a teacher, a link learns itself.
    - `tolerance`: products of coefficients below this fraction of the largest one count as zero.

    **Raises:**

    `ValueError` if there is none.
    """
    student = check_link("student", student)
    signals = hermite_signals(student, student if teacher is None else check_link("teacher", teacher))
    sizes = {k: abs(float(c)) for k, c in signals.items() if k > 0}
    largest = max(sizes.values(), default=0.0)
    if largest == 0:
        raise ValueError("`student` and `teacher` have no Hermite order above zero in common: nothing pulls the overlap.")
    return min(k for k, size in sizes.items() if size > tolerance * largest)


def passage_time(start: ArrayLike, end: ArrayLike, signal: ArrayLike, *, order: int) -> Float[Array, "..."]:
    r"""The time in which spherical gradient flow takes the overlap from `start` to `end`, exactly.

    **Arguments:**

    - `start`, `end`: overlaps, between -1 and 1.
    - `signal`: $c = a_kb_k$, of any sign.
    - `order`: $k\ge1$, the one order that the links have in common.

    **Returns:**

    The time, in units of the flow's $\tau$; infinite where `end` is not on the way.

    **Raises:**

    `ValueError` for an order below 1, overlaps that no unit vectors have, or a signal that is not finite.
    """
    check_order(order)
    start, end = check_overlap("start", start), check_overlap("end", end)
    signal = check_finite("signal", signal).astype(start.dtype)
    x, y = jnp.abs(start), jnp.abs(end.astype(start.dtype))
    if order == 1:
        x, y = start, end.astype(start.dtype)
    inside = (jnp.abs(x) < 1) & (jnp.abs(y) < 1) & (signal != 0)
    if order > 1:
        inside = inside & (start * end > 0)
        signal = signal * jnp.where(start < 0, (-1.0) ** order, 1.0)
    x, y, c = jnp.where(inside, x, 0.5), jnp.where(inside, y, 0.5), jnp.where(inside, signal, 1.0)
    time = (_clock(y, order) - _clock(x, order)) / (order * c)
    return jnp.where(start == end, 0.0, jnp.where(inside & (time >= 0), time, jnp.inf))


def escape_time(start: ArrayLike, signal: ArrayLike, *, order: int) -> Float[Array, "..."]:
    r"""How long the overlap stays small, to leading order: $m_0^{2-k}/(k(k-2)c)$; for $k = 2$, $\ln(1/m_0)/(2c)$.

    **Arguments:**

    - `start`: $m_0$, positive and small.
    - `signal`: $c = a_kb_k$, positive.
    - `order`: $k\ge2$; at $k = 1$ a start is left at once.

    **Raises:**

    `ValueError` for an order below 2, a start that is not between 0 and 1, or a signal that is not positive.
    """
    check_order(order, least=2)
    start = check_fraction("start", start, zero=False)
    signal = check_positive("signal", signal).astype(start.dtype)
    if order == 2:
        return -jnp.log(start) / (2 * signal)
    return start ** (2 - order) / (order * (order - 2) * signal)


def flow_exponent(order: int) -> float:
    """$(k-2)/2$, the power of $d$ in the time of a search by gradient flow; zero for $k = 1$ and (a logarithm) 2."""
    check_order(order)
    return max(order - 2, 0) / 2


def sample_exponent(order: int) -> int:
    """$k - 1$, the power of $d$ in the samples of a search by online SGD; one for $k = 1$ and (times a logarithm) 2."""
    check_order(order)
    return max(order - 1, 1)


def _clock(m: Array, order: int) -> Array:
    """$F_k(m)$, which gradient flow moves at constant speed."""
    if order % 2 == 1:
        time = jnp.arctanh(m)
    else:
        time = jnp.log(m) - jnp.log((1 - m) * (1 + m)) / 2
    for j in range(order - 2, 0, -2):
        time = time - m ** (-j) / j
    return time


def check_order(order: int, least: int = 1) -> None:
    """The order of a polynomial or of a tensor."""
    if not isinstance(order, int) or isinstance(order, bool) or order < least:
        raise ValueError(f"`order` must be a whole number of at least {least}; got {order}.")
