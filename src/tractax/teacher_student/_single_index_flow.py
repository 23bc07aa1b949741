r"""Spherical gradient flow of a single-index model whose links share one Hermite order: closed forms for the overlap.

Set-up. Student $f(\theta\cdot x)$ and teacher $f^*(\theta^*\cdot x) + \sigma\zeta$ with unit vectors in $\mathbb R^d$ and
links $f = \sum_ka_kh_k$, $f^* = \sum_kb_kh_k$ in orthonormal Hermite polynomials, $x\sim\mathcal N(0, I_d)$, loss
$\tfrac12\mathbb E(f - y)^2 = \text{const} - \sum_ka_kb_km^k$ with the overlap $m = \theta\cdot\theta^*$. Gradient flow on
the sphere obeys, exactly and in any dimension,

$$\tau\dot m = (1 - m^2)\sum_kk\,a_kb_k\,m^{k-1}.$$

With a single common order $k \ge 1$ and $c = a_kb_k$ it is solved by $F_k(m(t)) = F_k(m_0) + kct/\tau$,

$$F_1 = \operatorname{artanh}m,\qquad F_2 = \tfrac12\ln\frac{m^2}{1 - m^2},\qquad
F_k = F_{k-2} - \frac1{(k-2)\,m^{k-2}},$$

explicitly for $k = 1$ and $2$, by inversion in the variable $F_2$ for $k \ge 3$.

Source: Ben Arous, Gheissari and Jagannath 2021, arXiv 2003.10409.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import (
    AbstractRule,
    AbstractSolution,
    AbstractTask,
    Assumption,
    Kind,
    as_float_array,
    check_count,
    check_finite,
    concrete,
    enforce,
    require,
    tolerance_for,
)
from ..special import monotone_inverse
from ._single_index import SingleIndex, SingleIndexTask, check_overlap, check_single_index, hermite_signals
from ._spherical import SphericalFlow


class Alignment(eqx.Module):
    r"""How well a student's direction is aligned with the teacher's.

    **Attributes:**

    - `overlap`: $m = \theta\cdot\theta^*$.
    """

    overlap: Float[Array, "*times"]


class SingleIndexFlow(AbstractSolution[Alignment]):
    """The overlap over time where the links share one Hermite order; exact in any dimension.

    Build it with `from_model`. Time is in the rule's units ($\\tau$ is its `time_constant`). Links with several orders in
    common are `MixedSingleIndexFlow`.

    **Attributes:**

    - `initial`: the overlap at time zero.
    - `signal`: $c = a_kb_k$, over $\\tau$.
    - `order`: $k$; 1 where there is no common order, and no signal.
    - `task`: the case.
    """

    initial: Alignment
    signal: Float[Array, ""]
    order: int = eqx.field(static=True)
    task: SingleIndexTask
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: PyTree, task: AbstractTask, rule: AbstractRule, *, check: bool = True
    ) -> "SingleIndexFlow":
        """The solution for a student, having checked that it shares one Hermite order with the teacher.

        **Raises:**

        `ValueError` for another kind of model, task or rule, or if several orders matter.
        """
        model, task, rule = _check_case(model, task, rule)
        order, signal, _ = _single_order(model, task)
        time_constant = rule.time_constant.astype(signal.dtype)
        solution = cls(Alignment(task.overlap(model)), signal / time_constant, order, task)
        return enforce(solution, cls.__name__, cls.assumptions(model, task, rule)) if check else solution

    @classmethod
    def assumptions(cls, model: PyTree, task: AbstractTask, rule: AbstractRule) -> tuple[Assumption, ...]:
        """That the links have one Hermite order in common."""
        model, task, _ = _check_case(model, task, rule)
        _, signal, others = _single_order(model, task)
        share = others / jnp.where(others == 0, 1.0, jnp.abs(signal) + others)
        return (Assumption("one Hermite order in common", share, tolerance_for(signal)),)

    def state(self, t: Float[Array, ""]) -> Alignment:
        """The overlap at time `t`."""
        return Alignment(_overlap(self.initial.overlap, self.signal, t.astype(self.signal.dtype), self.order))

    def limit(self) -> Alignment:
        """The overlap as t → ∞: $\\pm1$, or 0 where the start is on the wrong side."""
        return self.state(jnp.asarray(jnp.inf, self.signal.dtype))

    def vector_field(self, t: Float[Array, ""], state: Alignment) -> Alignment:
        """The flow of the overlap."""
        del t
        m = state.overlap
        return Alignment((1 - m) * (1 + m) * self.order * self.signal * m ** (self.order - 1))

    def reduce(self, model: SingleIndex) -> Alignment:
        """The overlap of a student with the teacher."""
        return Alignment(self.task.overlap(model))


def overlap_of_order(start: ArrayLike, signal: ArrayLike, t: ArrayLike, *, order: int) -> Float[Array, ""]:
    r"""The solution of $\dot m = (1 - m^2)\,k\,c\,m^{k-1}$, a scalar.

    **Arguments:**

    - `start`: $m(0)$, from -1 to 1.
    - `signal`: $c$, of any sign.
    - `t`: time, not negative, up to infinity.
    - `order`: $k \ge 1$.

    **Returns:**

    $m(t)$.

    **Raises:**

    `ValueError` for an order below 1, an overlap that no unit vectors have, a signal that is not finite, or a negative
    time.
    """
    order = check_count("order", order)
    start = check_overlap("start", start)
    signal, t = check_finite("signal", signal).astype(start.dtype), as_float_array("t", t).astype(start.dtype)
    t = require(t, jnp.all(t >= 0), f"`t` must be a time, t >= 0; got {t}.")
    return _overlap(start, signal, t, order)


def _overlap(start: Array, signal: Array, t: Array, order: int) -> Array:
    # No signal for an infinite time is no signal.
    elapsed = signal * jnp.minimum(t, jnp.finfo(start.dtype).max)
    if order == 1:
        return _first_order(start, elapsed)
    if order == 2:
        return _second_order(start, elapsed)
    m = _higher_order(start, elapsed, order)
    lost = jnp.isinf(t) & (signal * jnp.sign(start) ** order < 0) & (jnp.abs(start) < 1)
    return jnp.where(lost, 0.0, m)


def _first_order(m: Array, elapsed: Array) -> Array:
    """$m = \\tanh(\\operatorname{artanh}m_0 + ct)$."""
    sign = jnp.where(elapsed >= 0, 1.0, -1.0)
    decayed, lost = jnp.exp(-2 * sign * elapsed), -jnp.expm1(-2 * sign * elapsed)
    whole = (1 + sign * m) + (1 - sign * m) * decayed
    still = whole <= 0
    return jnp.where(still, m, sign * (lost + sign * m * (1 + decayed)) / jnp.where(still, 1.0, whole))


def _second_order(m: Array, elapsed: Array) -> Array:
    """$m = m_0/\\sqrt{m_0^2 + (1 - m_0^2)e^{-4ct}}$."""
    grows = elapsed >= 0
    decayed = jnp.maximum(jnp.exp(-2 * jnp.where(grows, elapsed, -elapsed)), jnp.finfo(m.dtype).tiny ** 0.5)
    along = jnp.where(grows, 1.0, decayed) * m
    across = jnp.where(grows, decayed, 1.0) ** 2 * (1 - m) * (1 + m)
    return along / jnp.sqrt(along**2 + across)


def _higher_order(start: Array, elapsed: Array, order: int) -> Array:
    """By inversion of $F_k$ in $\\ell = F_2$, where $m = (1 + e^{-2\\ell})^{-1/2}$ and both of its ends are far away."""
    size = jnp.abs(start)
    moves = (size > 0) & (size < 1)
    size = jnp.where(moves, size, 0.5)
    # Of overlaps below zero the size moves, with a sign of its own.
    kicks = jnp.where(start < 0, (-1.0) ** order, 1.0) * order * elapsed
    largest = jnp.finfo(start.dtype).max ** 0.5
    kicks = jnp.clip(kicks, -largest, largest)
    logit = _logit(jnp.log(size))
    # Upwards l moves at most as kct, and from 25 on the overlap is one; downwards 1/m^(k-2) grows at most as kct.
    above = jnp.minimum(logit + kicks, jnp.maximum(logit, 25.0))
    power = size ** (2 - order) + (order - 2) * jnp.maximum(-kicks, 0.0)
    below = jnp.minimum(_logit(-jnp.log(power) / (order - 2)), logit)
    low, high = jnp.where(kicks > 0, logit, below), jnp.where(kicks > 0, above, logit)
    found = monotone_inverse(lambda l: _clock(l, order), _clock(logit, order) + kicks, low, high)
    return jnp.where(moves, jnp.sign(start) * jnp.exp(-jnp.log1p(jnp.exp(-2 * found)) / 2), start)


def _logit(log_size: Array) -> Array:
    """$F_2$ of an overlap, from its logarithm."""
    return log_size - jnp.log(-jnp.expm1(2 * log_size)) / 2


def _clock(logit: Array, order: int) -> Array:
    """$F_k$ as a function of $F_2$, for $k \\ge 3$."""
    if order % 2 == 0:
        time = logit
    else:
        # artanh m = arsinh e^l, without overflow.
        tail = jnp.log1p(jnp.sqrt(1 + jnp.exp(-2 * jnp.maximum(logit, 0.0)))) + logit
        time = jnp.where(logit > 0, tail, jnp.arcsinh(jnp.exp(jnp.minimum(logit, 0.0))))
    inverse_square = 1 + jnp.exp(-2 * logit)
    for j in range(order - 2, 0, -2):
        time = time - inverse_square ** (j / 2) / j
    return time


def _check_case(model: Any, task: Any, rule: Any) -> tuple[SingleIndex, SingleIndexTask, SphericalFlow]:
    if not isinstance(rule, SphericalFlow):
        raise ValueError(f"`rule` must be SphericalFlow for SingleIndexFlow; got {type(rule).__name__}.")
    return check_single_index(model, task), task, rule


def _single_order(model: SingleIndex, task: SingleIndexTask) -> tuple[int, Array, Array]:
    """The first common order with a signal (as far as is known), its signal, and the size of all others."""
    none = jnp.zeros((), model.direction.dtype)
    signals = {k: c for k, c in hermite_signals(model.link, task.teacher.link).items() if k > 0}
    order = next((k for k, c in signals.items() if concrete(c != 0) is not False), 1)
    others = sum((jnp.abs(c) for k, c in signals.items() if k != order), none)
    return order, signals.get(order, none), others
