r"""Single-index models with any links: the overlap obeys a polynomial differential equation.

Set-up. As in `SingleIndexFlow`: unit vectors $\theta$ and $\theta^*$ in $\mathbb R^d$ with overlap $m$, links
$f = \sum_ka_kh_k$ and $f^* = \sum_kb_kh_k$ in orthonormal Hermite polynomials, label noise of variance $\sigma^2$, loss
$\tfrac12(f - y)^2$.

Gradient flow on the sphere, exact in any dimension: $\tau\dot m = (1 - m^2)\sum_kk\,a_kb_k\,m^{k-1}$.

Online SGD on the sphere (`SphericalSGD`: steps $\eta/d$ on $B$ fresh examples, back to unit length, time is
steps$/d$), as $d\to\infty$ at fixed $\eta$: every step also adds a random vector of squared length $\eta^2V/(Bd)$, and
the normalisation takes its share,

$$\dot m = \eta\,(1 - m^2)\sum_kk\,a_kb_k\,m^{k-1} - \frac{\eta^2}{2B}\,m\,V(m),\qquad
V = \mathbb E\big[(f - y)^2f'^2\big].$$

$V$ is a polynomial in $m$ as well: with $(g)_j = \mathbb E\,g(u)h_j(u)$,
$V = (f^2f'^2)_0 + \sigma^2(f'^2)_0 - 2\sum_j(ff'^2)_jb_jm^j + \sum_j(f'^2)_j(f^{*2})_jm^j$, and Gauss-Hermite nodes give
these averages of polynomials exactly. A run of size $d$ scatters about the limit by $O(d^{-1/2})$, and its mean is off by
$O(1/d)$.

Source: Ben Arous, Gheissari and Jagannath 2021, arXiv 2003.10409, for the setting and the flow.
"""

from typing import Any, ClassVar, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import AbstractReducedFlow, AbstractRule, AbstractTask, Assumption, FlowPath, Kind, integrate_flow, require
from ..special import monotone_inverse
from ._hermite_link import HermiteLink, check_link, gauss_hermite, hermite_values
from ._single_index import SingleIndex, SingleIndexTask, check_single_index, hermite_signals
from ._single_index_flow import Alignment
from ._spherical import SphericalFlow, SphericalSGD
from ._teacher_task import check_noise_scale

_Rule = TypeVar("_Rule", bound=AbstractRule)

# Points among which the limit looks for the next zero of the velocity.
_GRID = 2048


class AbstractOverlapFlow(AbstractReducedFlow[Alignment]):
    """An overlap whose velocity is a polynomial in itself.

    **Attributes:**

    - `path`: the integrated overlap.
    - `velocity`: the coefficients of the polynomial, lowest first.
    - `task`: the case.
    """

    path: eqx.AbstractVar[FlowPath]
    velocity: eqx.AbstractVar[Float[Array, " powers"]]
    task: eqx.AbstractVar[SingleIndexTask]

    def vector_field(self, t: Float[Array, ""], state: Alignment) -> Alignment:
        """The flow of the overlap."""
        return _field(self.velocity, t, state)

    def reduce(self, model: SingleIndex) -> Alignment:
        """The overlap of a student with the teacher."""
        return Alignment(self.task.overlap(model))

    def limit(self) -> Alignment:
        """The overlap as t → ∞: the first zero of the velocity on its way, told from others if 1/1000 apart."""
        start = self.evaluate(0.0).overlap
        return Alignment(_next_rest(self.velocity, start))


class MixedSingleIndexFlow(AbstractOverlapFlow):
    """The overlap over time under spherical gradient flow, for links with any Hermite orders; exact in any dimension.

    Build it with `from_model`. Time is in the rule's units. Where the links share a single order, `SingleIndexFlow` is
    the same in closed form.

    **Attributes:**

    - `path`: the integrated overlap.
    - `velocity`: $\\dot m$ as a polynomial in $m$: its coefficients, lowest first.
    - `task`: the case.
    """

    path: FlowPath
    velocity: Float[Array, " powers"]
    task: SingleIndexTask
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: PyTree, task: AbstractTask, rule: AbstractRule, *, t1: ArrayLike, check: bool = True
    ) -> "MixedSingleIndexFlow":
        """Integrates the overlap up to `t1`.

        **Arguments:**

        - `model`, `task`, `rule`: a `SingleIndex`, a `SingleIndexTask`, a `SphericalFlow`.
        - `t1`: the horizon.
        - `check`: has no effect; any start is covered.

        **Raises:**

        `ValueError` for another kind of model, task or rule.
        """
        del check
        model, task, rule = _check_case(model, task, rule, SphericalFlow)
        velocity = _drift(model.link, task.teacher.link) / rule.time_constant.astype(model.direction.dtype)
        return cls(_integrate(velocity, task.overlap(model), t1), velocity, task)

    @classmethod
    def assumptions(cls, model: PyTree, task: AbstractTask, rule: AbstractRule) -> tuple[Assumption, ...]:
        """None: any links and any start are covered."""
        _check_case(model, task, rule, SphericalFlow)
        return ()


class OnlineSingleIndex(AbstractOverlapFlow):
    """The overlap over time under online SGD on the sphere, in the limit of many inputs.

    Build it with `from_model`. Time is steps$/d$.

    **Attributes:**

    - `path`: the integrated overlap.
    - `velocity`: $\\dot m$ as a polynomial in $m$: its coefficients, lowest first.
    - `task`: the case.
    """

    path: FlowPath
    velocity: Float[Array, " powers"]
    task: SingleIndexTask
    kind: ClassVar[Kind] = "asymptotic"

    @classmethod
    def from_model(
        cls, model: PyTree, task: AbstractTask, rule: AbstractRule, *, t1: ArrayLike, check: bool = True
    ) -> "OnlineSingleIndex":
        """Integrates the overlap up to `t1`.

        **Arguments:**

        - `model`, `task`, `rule`: a `SingleIndex`, a `SingleIndexTask`, a `SphericalSGD`.
        - `t1`: the horizon, in steps$/d$.
        - `check`: has no effect; any start is covered.

        **Raises:**

        `ValueError` for another kind of model, task or rule, or a rule for another number of inputs.
        """
        del check
        model, task, rule = _check_case(model, task, rule, SphericalSGD)
        size, steps = model.direction.size, 1 / rule.time_per_step
        message = f"`rule` must have `size` {size}, the inputs of the model; got another."
        rule = require(rule, jnp.abs(steps - size) < 0.5, message)
        eta = rule.learning_rate.astype(model.direction.dtype)
        drift = eta * _drift(model.link, task.teacher.link)
        noise = eta**2 / (2 * rule.batch_size) * gradient_noise(model.link, task.teacher.link, task.noise_scale)
        velocity = jnp.zeros(max(drift.size, noise.size + 1), eta.dtype)
        velocity = velocity.at[: drift.size].add(drift).at[1 : noise.size + 1].add(-noise)
        return cls(_integrate(velocity, task.overlap(model), t1), velocity, task)

    @classmethod
    def assumptions(cls, model: PyTree, task: AbstractTask, rule: AbstractRule) -> tuple[Assumption, ...]:
        """None beyond the size going to infinity: any links, rates and starts are covered."""
        _check_case(model, task, rule, SphericalSGD)
        return ()


def gradient_noise(student: HermiteLink, teacher: HermiteLink, noise_scale: ArrayLike = 0.0) -> Float[Array, " powers"]:
    r"""$V(m) = \mathbb E\big[(f(u) - f^*(v) - \sigma\zeta)^2f'(u)^2\big]$ of normal $u, v$ with correlation $m$.

    **Arguments:**

    - `student`, `teacher`: $f$, $f^*$.
    - `noise_scale`: $\sigma$.

    **Returns:**

    The coefficients of a polynomial in $m$, lowest first.

    **Raises:**

    `ValueError` for other links, or a negative noise.
    """
    n, n_star = check_link("student", student).degree, check_link("teacher", teacher).degree
    largest = max(n_star, min(2 * max(n - 1, 0), 2 * n_star))
    # Exact for polynomials of degree below twice the number of nodes.
    points, weights = gauss_hermite(2 * (n + n_star) + 2, student.coefficients.dtype)
    hermite = hermite_values(points, largest)
    f, f_star = student(points), teacher(points)
    slope_square = jax.jvp(student, (points,), (jnp.ones_like(points),))[1] ** 2
    answers = jnp.zeros(largest + 1, f.dtype).at[: n_star + 1].set(teacher.all_coefficients.astype(f.dtype))
    noise = check_noise_scale(noise_scale).astype(f.dtype)
    coefficients = (hermite @ (weights * slope_square)) * (hermite @ (weights * f_star**2))
    coefficients = coefficients - 2 * (hermite @ (weights * f * slope_square)) * answers
    return coefficients.at[0].add(jnp.sum(weights * (f**2 + noise**2) * slope_square))


def _drift(student: HermiteLink, teacher: HermiteLink) -> Array:
    """$(1 - m^2)\\sum_kk\\,a_kb_k\\,m^{k-1}$."""
    signals = hermite_signals(student, teacher)
    slope = jnp.zeros(max([1, *signals]), student.coefficients.dtype)
    for k, c in signals.items():
        slope = slope.at[max(k - 1, 0)].add(k * c)
    return jnp.pad(slope, (0, 2)) - jnp.pad(slope, (2, 0))


def _field(velocity: Array, t: Any, state: Alignment) -> Alignment:
    del t
    return Alignment(jnp.polyval(velocity[::-1], state.overlap))


def _integrate(velocity: Array, start: Array, t1: ArrayLike) -> FlowPath:
    return integrate_flow(eqx.Partial(_field, velocity), Alignment(start), t1)


def _next_rest(velocity: Array, start: Array) -> Array:
    """Where a flow along a line comes to rest, on the way from its start to an end that it cannot pass."""

    def speed(m):
        return jnp.polyval(velocity[::-1], m)

    direction = jnp.sign(speed(start))
    # A double zero at m = 0, which stops the flow from one side only, has no change of sign to look for.
    end = jnp.where((velocity[0] == 0) & (start * direction < 0), 0.0, direction)
    fractions = jnp.linspace(0.0, 1.0, _GRID + 1).astype(start.dtype)
    points = start + (end - start) * fractions
    turned = speed(points) * direction < 0
    first = jnp.argmax(turned)
    near, far = points[jnp.maximum(first - 1, 0)], points[first]
    rest = monotone_inverse(lambda m: -speed(m), 0.0, jnp.minimum(near, far), jnp.maximum(near, far))
    return jnp.where(direction == 0, start, jnp.where(jnp.any(turned), rest, end))


def _check_case(model: Any, task: Any, rule: Any, wanted: type[_Rule]) -> tuple[SingleIndex, SingleIndexTask, _Rule]:
    if not isinstance(rule, wanted):
        raise ValueError(f"`rule` must be {wanted.__name__} for this theory; got {type(rule).__name__}.")
    return check_single_index(model, task), task, rule
