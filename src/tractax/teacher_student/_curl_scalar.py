r"""Curl descent with one hidden unit and one input: a pendulum on a circle, in closed form.

Set-up. Network $w_2w_1x$, target $a$, whitened input, loss $\tfrac12(a - w_1w_2)^2$, and the rule flipped in one of the
two layers, $D_1 = -D_2$:

$$\tau\dot w_1 = D_1\,w_2\,(a - w_1w_2),\qquad \tau\dot w_2 = D_2\,w_1\,(a - w_1w_2).$$

Theory. $r^2 = w_1^2 + w_2^2$ is conserved and the phase $\varphi = 2\arctan(w_2/w_1)$ obeys Adler's equation
$\tau\dot\varphi = D_2\,(2a - r^2\sin\varphi)$. Where $2\lvert a\rvert \le r^2$ the phase locks to a solution of the task;
where $2\lvert a\rvert > r^2$ there is none on the circle, and the weights rotate for ever. The ratio $w_2/w_1$ obeys a
Riccati equation, so that $(w_1, w_2)$ points along the solution of a linear one,

$$\tau\frac{\mathrm d}{\mathrm dt}\begin{pmatrix}p\\q\end{pmatrix} = \tfrac12D_2
\begin{pmatrix}r^2 & -2a\\ 2a & -r^2\end{pmatrix}\begin{pmatrix}p\\q\end{pmatrix},\qquad (p, q)(0) = (w_1, w_2)(0),$$

which covers locking, rotation and what lies between them in one expression.

Source: Ninou, Kadmon and Cayco-Gajic 2025, arXiv 2510.02765, for curl descent; Adler 1946 for the phase equation.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..core import AbstractRule, AbstractSolution, AbstractTask, Assumption, Kind, enforce, require
from ..rules import CurlDescent, refuse_decay
from ._curl_stability import unit_signs
from ._two_layer_linear import TwoLayerLinear, VectorTask, check_two_layer


class ScalarWeights(eqx.Module):
    """The two weights of a network with one hidden unit and one input.

    **Attributes:**

    - `hidden`: $w_1$.
    - `readout`: $w_2$.
    """

    hidden: Float[Array, "*times"]
    readout: Float[Array, "*times"]

    @property
    def product(self) -> Float[Array, "*times"]:
        """$w_1w_2$, the slope of the network."""
        return self.hidden * self.readout

    @property
    def phase(self) -> Float[Array, "*times"]:
        r"""$\varphi = 2\arctan(w_2/w_1)$, between $-\pi$ and $\pi$."""
        return jnp.arctan2(2 * self.product, (self.hidden - self.readout) * (self.hidden + self.readout))


class CurlDescentScalar(AbstractSolution[ScalarWeights]):
    """The two weights over time when one of them climbs the loss.

    Build it with `from_model`. Time is in the rule's units ($\\tau$ is its `time_constant`). A rotating solution is as
    accurate as its phase, whose error grows by rounding in proportion to time.

    **Attributes:**

    - `initial`: the weights at time zero.
    - `target`: $a$.
    - `direction`: $D_2$, the sign of the readout's rule.
    - `time_constant`: $\\tau$.
    """

    initial: ScalarWeights
    target: Float[Array, ""]
    direction: Float[Array, ""]
    time_constant: Float[Array, ""]
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: PyTree, task: AbstractTask, rule: AbstractRule, *, check: bool = True
    ) -> "CurlDescentScalar":
        """The solution for a network, having checked that the rule is flipped in exactly one layer.

        **Raises:**

        `ValueError` for a network of another size, another task or rule, or equal signs in both layers.
        """
        model, task, rule = _check_case(model, task, rule)
        _, second = unit_signs(model, rule)
        target, time_constant = task.target[0].astype(model.hidden.dtype), rule.time_constant.astype(model.hidden.dtype)
        solution = cls(_weights(model), target, second[0], time_constant)
        return enforce(solution, cls.__name__, cls.assumptions(model, task, rule)) if check else solution

    @classmethod
    def assumptions(cls, model: PyTree, task: AbstractTask, rule: AbstractRule) -> tuple[Assumption, ...]:
        """That one layer is flipped and the other is not; with equal signs the weights move on a hyperbola."""
        model, task, rule = _check_case(model, task, rule)
        first, second = unit_signs(model, rule)
        return (Assumption("one layer flipped, D1 = -D2", jnp.abs(first[0] + second[0]) / 2, 0.0),)

    @property
    def rate(self) -> Float[Array, ""]:
        r"""$\sqrt{r^4 - 4a^2}/\tau$, the rate at which the phase locks; NaN where it does not."""
        square = _square(self._radius_square, 2 * self.target)
        return jnp.where(square >= 0, jnp.sqrt(jnp.maximum(square, 0.0)), jnp.nan) / self.time_constant

    @property
    def period(self) -> Float[Array, ""]:
        r"""$4\pi\tau/\sqrt{4a^2 - r^4}$, after which the weights recur; infinite where they lock.

        After half of it both have changed sign, and the loss is what it was.
        """
        square = -_square(self._radius_square, 2 * self.target)
        turns = square > 0
        period = 4 * jnp.pi * self.time_constant / jnp.sqrt(jnp.where(turns, square, 1.0))
        return jnp.where(turns, period, jnp.inf)

    @property
    def _radius_square(self) -> Float[Array, ""]:
        return self.initial.hidden**2 + self.initial.readout**2

    def state(self, t: Float[Array, ""]) -> ScalarWeights:
        """The weights at time `t`; those of a rotating solution are NaN at infinity."""
        start, b = jnp.stack([self.initial.hidden, self.initial.readout]), self._radius_square
        # At the origin nothing moves, and there is no direction.
        moving = b > 0
        time = jnp.where(moving, t.astype(b.dtype), 0.0) * self.direction / (2 * self.time_constant)
        along = _transport(b, 2 * self.target, time, start)
        scale = jnp.sqrt(jnp.where(moving, b, 1.0) / jnp.where(moving, jnp.sum(along**2), 1.0))
        return ScalarWeights(scale * along[0], scale * along[1])

    def limit(self) -> ScalarWeights:
        """The weights as t → ∞: a solution of the task.

        **Raises:**

        `ValueError` if the weights rotate for ever.
        """
        locks = _square(self._radius_square, 2 * self.target) >= 0
        message = "CurlDescentScalar has no limit: the weights rotate for ever, since 2|a| exceeds w1² + w2²."
        return self.state(require(jnp.asarray(jnp.inf, self.target.dtype), locks | (self._radius_square == 0), message))

    def vector_field(self, t: Float[Array, ""], state: ScalarWeights) -> ScalarWeights:
        """The flow of the weights."""
        del t
        error = self.direction * (self.target - state.product) / self.time_constant
        return ScalarWeights(-state.readout * error, state.hidden * error)

    def reduce(self, model: TwoLayerLinear) -> ScalarWeights:
        """The weights of a network."""
        return _weights(model)


def _check_case(model: Any, task: Any, rule: Any) -> tuple[TwoLayerLinear, VectorTask, CurlDescent]:
    model = _check_scalar(check_two_layer(model, task))
    if not isinstance(rule, CurlDescent):
        raise ValueError(f"`rule` must be CurlDescent for CurlDescentScalar; got {type(rule).__name__}.")
    return model, task, refuse_decay(rule, CurlDescentScalar.__name__)


def _check_scalar(model: TwoLayerLinear) -> TwoLayerLinear:
    if model.hidden.shape != (1, 1):
        raise ValueError(f"`model` must have one hidden unit and one input; got hidden of shape {model.hidden.shape}.")
    return model


def _weights(model: TwoLayerLinear) -> ScalarWeights:
    model = _check_scalar(model)
    return ScalarWeights(model.hidden[0, 0], model.readout[0])


def _square(b: Array, a: Array) -> Array:
    """$k^2 = b^2 - a^2$; what rounding of $b$ explains is zero (its derivative is not)."""
    square = (b - a) * (b + a)
    critical = jnp.abs(square) <= 4 * jnp.finfo(b.dtype).eps * b**2
    return jnp.where(critical, square - jax.lax.stop_gradient(square), square)


def _transport(b: Array, a: Array, time: Array, start: Array) -> Array:
    """$e^{M\\theta}$ times a vector, up to a positive factor, for $M = ((b, -a), (a, -b))$ with $M^2 = k^2$."""
    square = _square(b, a)
    moved = jnp.stack([b * start[0] - a * start[1], a * start[0] - b * start[1]])
    k = jnp.sqrt(jnp.where(square == 0, 1.0, jnp.abs(square)))
    x, sign = k * jnp.abs(time), jnp.where(time >= 0, 1.0, -1.0)
    early = (square == 0) | (x < 1)
    locked = _locked(b, a, k, jnp.where(early, 0.0, x), sign, start)
    rotated = jnp.cos(x) * start + sign * jnp.sin(x) / k * moved
    return jnp.where(early, _early(square, time, early, start, moved), jnp.where(square > 0, locked, rotated))


def _locked(b: Array, a: Array, k: Array, x: Array, sign: Array, start: Array) -> Array:
    """In the eigenvectors $(b + k, a)$ and $(a, b + k)$, with what grows kept at its size."""
    first, second = jnp.stack([b + k, a]), jnp.stack([a, b + k])
    along_first, along_second = (b + k) * start[0] - a * start[1], (b + k) * start[1] - a * start[0]
    forward = sign > 0
    growing, decaying = jnp.where(forward, along_first, along_second), jnp.where(forward, along_second, along_first)
    # At an unstable solution nothing but rounding grows, and would take over once x ≈ 18; its derivative does grow.
    stuck = _is_rounding(growing, (b + k) * start)
    change = (growing - jax.lax.stop_gradient(growing)) * jnp.exp(jnp.minimum(2 * x, 80.0))
    growing = jnp.where(stuck, change, growing)
    decaying = decaying * jnp.where(stuck, 1.0, jnp.exp(-2 * x))
    return growing * jnp.where(forward, first, second) + decaying * jnp.where(forward, second, first)


def _early(square: Array, time: Array, early: Array, start: Array, moved: Array) -> Array:
    """By series in $k^2\\theta^2$, over $1 + |\\theta|$: at $k = 0$ they hold at any time, infinity included."""
    finite = jnp.isfinite(time)
    clock = jnp.where(early & finite, time, 0.0)
    z = square * jnp.where(jnp.abs(clock) < jnp.finfo(clock.dtype).max ** 0.5, clock, 0.0) ** 2
    cosh, sinh = jnp.ones_like(z), jnp.ones_like(z)
    for n in range(9, 0, -1):
        cosh, sinh = 1 + cosh * z / (2 * n * (2 * n - 1)), 1 + sinh * z / (2 * n * (2 * n + 1))
    weight = 1 / (1 + jnp.abs(time))
    duration = jnp.where(finite, clock * weight, jnp.sign(time))
    # The one solution at k = 0 is at rest up to rounding.
    stuck = (square == 0) & _is_rounding(moved, start * jnp.sum(start**2))
    at_rest = start + clock * (moved - jax.lax.stop_gradient(moved))
    return jnp.where(stuck, at_rest, weight * cosh * start + duration * sinh * moved)


def _is_rounding(x: Array, reference: Array) -> Array:
    return jnp.max(jnp.abs(x)) <= 8 * jnp.finfo(x.dtype).eps * jnp.max(jnp.abs(reference))
