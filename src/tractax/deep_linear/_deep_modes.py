r"""Aligned, balanced linear networks of any depth: every mode learns on its own, in a time known in closed form.

Set-up. Inputs $x$ with $\Sigma_{xx} = I$, targets $y$, network $W_L \cdots W_1 x$ with $L$ weight matrices, loss
$\tfrac12\mathbb E\lVert y - W_L\cdots W_1x\rVert^2$, gradient flow $\tau\dot W_l = -\partial L/\partial W_l$. With
$\Sigma_{yx} = U S V^\top$ and $W_l = R_{l+1} A_l R_l^\top$ ($R_1 = V$, $R_{L+1} = U$, all with orthonormal columns, $A_l$
diagonal) the modes decouple; where a mode has the same $|a_l|$ in every layer, its strength $u = \prod_l a_l$ obeys

$$\tau\dot u = L\,|u|^{2-2/L}\,(s - u).$$

In $z = \ln\frac{u}{s-u}$ this is $\dot z \propto (1 + e^{-z})^{-(1-2/L)}$, whose integral, the time, is elementary: a sum
of logarithms over the $L$-th roots of unity. `learning_time` evaluates it and `deep_mode` inverts it.

Source: Saxe, McClelland and Ganguli 2013, arXiv 1312.6120.
"""

import functools
import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, ArrayLike, Float

from ..core import AbstractRule, Assumption, Kind, check_positive, enforce, relative_norm, tolerance_for
from ..special import exprel
from ._base import AbstractLinearSolution, check_flow, check_layers, no_weight_decay, whitened
from ._network import DeepLinear
from ._singular_modes import singular_modes
from ._task import LinearTask
from ._two_layer_modes import two_layer_mode


class Strengths(eqx.Module):
    """The modes of a network with the same strength in every layer.

    **Attributes:**

    - `strength`: $u$, the strength of each mode in the product of the layers, shape `(modes,)`.
    """

    strength: Float[Array, " modes"]


class DeepModes(AbstractLinearSolution):
    r"""Exact learning curves of the modes of an aligned and balanced linear network of any depth.

    Build it with `from_model`. Time is in the rule's units ($\tau$ is its `time_constant`). Modes may start below or
    above what is to be learned, at zero, or with the wrong sign. With two layers or more, those of the wrong sign lie on
    the stable manifold of the saddle at zero and decay to it; a simulation escapes at last, by rounding.

    **Attributes:**

    - `initial`: the modes at time zero.
    - `singular_values`: $s$ of $\Sigma_{yx}$, shape `(modes,)`; negative where the network is aligned with a sign flip.
    - `output_modes`, `input_modes`: the columns of $U$ and $V$.
    - `time_constant`: $\tau$.
    - `depth`: $L$, the number of weight matrices.
    """

    initial: Strengths
    singular_values: Float[Array, " modes"]
    output_modes: Float[Array, "out modes"]
    input_modes: Float[Array, "in modes"]
    time_constant: Float[Array, ""]
    task: LinearTask
    depth: int = eqx.field(static=True)
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: DeepLinear, task: LinearTask, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "DeepModes":
        """The solution for a network, having checked that its weights are aligned with the task and balanced.

        **Raises:**

        `ValueError` if the network does not fit the task, or violates an assumption.
        """
        solution = cls._build(model, task, rule)
        return enforce(solution, cls.__name__, cls.assumptions(model, task, rule)) if check else solution

    @classmethod
    def assumptions(cls, model: DeepLinear, task: LinearTask, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """How far the case is from what the solution takes for granted."""
        solution = cls._build(model, task, rule)
        factors, bases = _follow(model, solution.output_modes, solution.input_modes)
        off = [
            relative_norm(w - (after * a[None, :]) @ before.T, w)
            for w, a, before, after in zip(model.weights, factors, bases[:-1], bases[1:], strict=True)
        ]
        overlaps = [r.T @ r for r in bases[1:-1]]
        mixed = [jnp.max(jnp.abs(g - jnp.diag(jnp.diagonal(g)))) for g in overlaps] or [jnp.zeros_like(off[0])]
        sizes = jnp.abs(jnp.stack(factors))
        largest = jnp.max(sizes, axis=0)
        spread = (largest - jnp.min(sizes, axis=0)) / jnp.where(largest == 0, 1.0, largest)
        tolerance = tolerance_for(sizes)
        return (
            Assumption("aligned weights, W_l = R_{l+1} A_l R_lᵀ", jnp.max(jnp.stack(off)), tolerance),
            Assumption("separate hidden modes, RᵀR diagonal", jnp.max(jnp.stack(mixed)), tolerance),
            Assumption("balanced modes, |a_l| equal in all layers", jnp.max(spread), tolerance),
            whitened(task),
            no_weight_decay(check_flow(rule, cls.__name__)),
        )

    @classmethod
    def _build(cls, model: DeepLinear, task: LinearTask, rule: AbstractRule | None) -> "DeepModes":
        rule = check_flow(rule, cls.__name__)
        model = check_layers(model, task)
        product = model.product
        u, s, v = singular_modes(task, product)
        factors, _ = _follow(model, u, v)
        present = jnp.all(jnp.stack(factors) != 0, axis=0)
        strength = jnp.where(present, jnp.sum(u * (product @ v), axis=0), 0.0)
        return cls(Strengths(strength), s, u, v, rule.time_constant.astype(s.dtype), task, model.depth)

    def state(self, t: Float[Array, ""]) -> Strengths:
        """The modes at time `t`."""
        t = t.astype(self.time_constant.dtype) / self.time_constant
        mode = jax.vmap(lambda u, s: deep_mode(u, s, t, self.depth))
        return Strengths(mode(self.initial.strength, self.singular_values))

    def limit(self) -> Strengths:
        """The modes as t → ∞: learned, or at zero if they start there or with the wrong sign."""
        return self.state(jnp.asarray(jnp.inf, self.singular_values.dtype))

    def vector_field(self, t: Float[Array, ""], state: Strengths) -> Strengths:
        """The flow of the modes."""
        del t
        u = state.strength
        speed = self.depth * jnp.abs(u) ** (2 - 2 / self.depth) / self.time_constant
        return Strengths(speed * (self.singular_values - u))

    def reduce(self, model: DeepLinear) -> Strengths:
        """The modes of a network, in the solution's basis."""
        return Strengths(jnp.sum(self.output_modes * (model.product @ self.input_modes), axis=0))

    def product_of(self, state: Strengths) -> Float[Array, "out in"]:
        """The input-output map."""
        return (self.output_modes * state.strength[None, :]) @ self.input_modes.T

    def half_times(self) -> Float[Array, " modes"]:
        """The time at which each mode reaches half of its singular value; NaN where it never does."""
        s = self.singular_values
        return self.time_constant * learning_time(self.initial.strength, s / 2, s, self.depth)


# Compiled once for each depth: without, every call outside of `jit` would compile its root finder anew.
@functools.partial(jax.jit, static_argnames="depth")
def deep_mode(u0: ArrayLike, s: ArrayLike, t: ArrayLike, depth: int) -> Float[Array, ""]:
    r"""One balanced mode of a deep linear network: the solution of $\dot u = L\,|u|^{2-2/L}(s - u)$.

    Any signs of `u0` and `s`, and any `t` up to infinity. Depths 1 and 2 are closed forms; from 3 on, the closed form of
    the time is inverted by Newton's method, in a coordinate in which it is almost a straight line, and differentiated
    implicitly.

    **Arguments:**

    - `u0`: the initial strength, a scalar.
    - `s`: the strength to be learned.
    - `t`: time, in units of $\tau$.
    - `depth`: $L \ge 1$, the number of weight matrices.

    **Returns:**

    $u(t)$.
    """
    depth = _check_depth(depth)
    u0, s, t = _floats(u0, s, t)
    if depth == 1:
        return s + (u0 - s) * jnp.exp(-t)
    moves = (u0 != 0) & (u0 != s)
    # The flow is odd in (u, s), so u0 > 0 is enough.
    sign = jnp.where(u0 < 0, -1.0, 1.0).astype(u0.dtype)
    u, target = jnp.where(moves, sign * u0, 1.0), jnp.where(moves, sign * s, 2.0)
    ends = jnp.isfinite(t)
    t = jnp.where(ends, t, 0.0)
    if depth == 2:
        a, b = two_layer_mode(jnp.sqrt(u), jnp.sqrt(u), target, t)
        moved = a * b
    else:
        rises = u < target
        rising = _rise(jnp.where(rises, u, 1.0), jnp.where(rises, target, 2.0), t, depth)
        falling = _fall(jnp.where(rises, 2.0, u), jnp.where(rises, 1.0, target), t, depth)
        moved = jnp.where(rises, rising, falling)
    moved = jnp.where(ends, moved, jnp.maximum(target, 0.0))
    # At a fixed point, the linearised flow carries the derivatives.
    rate = depth * jnp.where(moves | (s == 0), 1.0, jnp.abs(s)) ** (2 - 2 / depth)
    resting = jnp.where(u0 == 0, u0, s + (u0 - s) * jnp.where(ends, jnp.exp(-rate * t), 0.0))
    return jnp.where(moves, sign * moved, resting)


@functools.partial(jax.jit, static_argnames="depth")
def learning_time(
    u0: Float[ArrayLike, "*#shape"], u: Float[ArrayLike, "*#shape"], s: Float[ArrayLike, "*#shape"], depth: int
) -> Float[Array, "*#shape"]:
    r"""The time in which a balanced mode goes from strength `u0` to `u`.

    **Arguments:**

    - `u0`, `u`: strengths at the start and at the end.
    - `s`: the strength to be learned.
    - `depth`: $L \ge 1$, the number of weight matrices.

    **Returns:**

    The time in units of $\tau$, of the broadcast shape; infinite at the fixed point that is approached, and NaN where `u`
    is not reached.
    """
    depth = _check_depth(depth)
    u0, u, s = _floats(u0, u, s)
    if depth == 1:
        ratio = (u - s) / jnp.where(u0 == s, 1.0, u0 - s)
        ahead = (u0 != s) & (ratio >= 0) & (ratio <= 1)
        return jnp.where(u == u0, 0.0, jnp.where(ahead, -jnp.log(jnp.where(ahead, ratio, 1.0)), jnp.nan))
    sign = jnp.where(u0 < 0, -1.0, 1.0).astype(u0.dtype)
    u0, u, s = sign * u0, sign * u, sign * s
    rises = (0 < u0) & (u0 <= u) & (u < s)
    falls = (jnp.maximum(s, 0) < u) & (u <= u0)
    p, q, r = jnp.where(rises, u0, 1.0), jnp.where(rises, u, 1.0), jnp.where(rises, s, 2.0)
    rising = _rising_clock(_logit(q, r), depth) - _rising_clock(_logit(p, r), depth)
    rising = rising / (depth * r ** (2 - 2 / depth))
    p, q, r = jnp.where(falls, u0, 2.0), jnp.where(falls, u, 2.0), jnp.where(falls, s, 1.0)
    falling = (_falling_clock(q, r, depth) - _falling_clock(p, r, depth)) / depth
    approached = (u0 != 0) & (u0 != s) & (u == jnp.maximum(s, 0))
    elsewhere = jnp.where(u == u0, 0.0, jnp.where(approached, jnp.inf, jnp.nan))
    return jnp.where(rises, rising, jnp.where(falls, falling, elsewhere))


def infinite_depth_time(
    u0: Float[ArrayLike, "*#shape"], u: Float[ArrayLike, "*#shape"], s: Float[ArrayLike, "*#shape"]
) -> Float[Array, "*#shape"]:
    r"""$\lim_{L\to\infty} L\,t/\tau$ for a balanced mode that goes from strength `u0` to `u`.

    Gradient descent with $\eta = c/(L s^2)$, at large depth a fixed fraction of what is stable, therefore needs a number
    of steps that stays finite as depth grows: $s^2/c$ times this.

    **Arguments:**

    - `u0`, `u`: positive strengths, on the same side of `s`.
    - `s`: the strength to be learned, positive.

    **Returns:**

    $s^{-2}\ln\frac{u\,(s-u_0)}{u_0\,(s-u)} + \frac1{su_0} - \frac1{su}$; NaN where `u` is not reached.
    """
    u0, u, s = _floats(u0, u, s)
    reached = (s > 0) & (((0 < u0) & (u0 <= u) & (u < s)) | ((s < u) & (u <= u0)))
    u0, u, s = jnp.where(reached, u0, 1.0), jnp.where(reached, u, 1.0), jnp.where(reached, s, 2.0)
    log = jnp.log(u / u0) - jnp.log((s - u) / (s - u0))
    return jnp.where(reached, log / s**2 + (1 / u0 - 1 / u) / s, jnp.nan)


def largest_stable_rate(s: Float[ArrayLike, "*shape"], depth: int) -> Float[Array, "*shape"]:
    r"""$2/(L\,s^{2-2/L})$, the learning rate above which gradient descent leaves the balanced minimum of a deep network.

    The sharpness of that minimum is $L\,s^{2-2/L}$, with $s > 0$ the largest singular value of the product; inputs are
    whitened and the loss is $\tfrac12\mathbb E\lVert y - Wx\rVert^2$.
    """
    s = check_positive("s", s)
    return 2 / (_check_depth(depth) * s ** (2 - 2 / depth))


def _follow(model: DeepLinear, u: Array, v: Array) -> tuple[list[Array], list[Array]]:
    """Each mode's strength in every layer, and its unit vectors from the input layer to the output layer."""
    factors, bases = [], [v]
    for w in model.weights[:-1]:
        onward = w @ bases[-1]
        squares = jnp.sum(onward**2, axis=0)
        # A mode without a hidden unit shows up as rounding, which has no direction.
        absent = squares <= (8 * jnp.finfo(squares.dtype).eps) ** 2 * jnp.max(squares)
        norms = jnp.sqrt(jnp.where(absent, 1.0, squares))
        factors.append(jnp.where(absent, 0.0, norms))
        bases.append(jnp.where(absent[None, :], 0.0, onward / norms[None, :]))
    factors.append(jnp.sum(u * (model.weights[-1] @ bases[-1]), axis=0))
    return factors, [*bases, u]


def _rise(u0: Array, s: Array, t: Array, depth: int) -> Array:
    """The mode for 0 < u0 < s."""
    q = 1 - 2 / depth

    def straightened(x, goal):
        z = jnp.where(x < 0, -jnp.log1p(-q * jnp.minimum(x, 0.0)) / q, x)
        return (_rising_clock(z, depth) - goal) / (1 + jnp.abs(goal)), z

    z0 = _logit(u0, s)
    elapsed = depth * s ** (1 + q) * t
    x0 = jnp.where(z0 < 0, -jnp.expm1(-q * jnp.minimum(z0, 0.0)) / q, z0)
    z = _solve(straightened, x0 + elapsed, _rising_clock(z0, depth) + elapsed)
    return s * jax.nn.sigmoid(z)


def _fall(u0: Array, s: Array, t: Array, depth: int) -> Array:
    """The mode for u0 > 0 and s < u0: it falls to s, or to zero if s is zero or negative."""
    b = 2 - 2 / depth
    x0 = -jnp.log1p(-s / u0)
    start = _log_falling(x0, depth)
    grown = jnp.log1p(depth * t * jnp.exp(b * jnp.log(u0) - start))

    def straightened(p, args):
        x0, start, grown = args
        above, below = jnp.where(x0 > 0, x0, 0.0), jnp.where(x0 > 0, 0.0, x0)
        # Towards s > 0, x = -ln(1 - s/u) grows like e^p; towards zero, 1/u does.
        x_above = above * jnp.exp(p)
        fallen_above = p + jnp.log(exprel(-x_above)) - jnp.log(exprel(-above))
        x_below = -jnp.log1p(jnp.expm1(-below) * jnp.exp(p))
        x, fallen = jnp.where(x0 > 0, x_above, x_below), jnp.where(x0 > 0, fallen_above, p)
        return (b * fallen + _log_falling(x, depth)) - start - grown, fallen

    fallen = _solve(straightened, grown / b, (x0, start, grown))
    return u0 * jnp.exp(-fallen)


def _solve(function, guess: Array, args) -> Array:
    """The auxiliary output of `function` at its zero, differentiable in `args`."""
    # Newton's last step squares the error, so half of the digits are enough to stop.
    tolerance = float(jnp.finfo(guess.dtype).eps) ** 0.6
    newton = optx.Newton(rtol=tolerance, atol=tolerance)
    root = optx.root_find(function, newton, jax.lax.stop_gradient(guess), args, has_aux=True, throw=False)
    return function(root.value, args)[1]


def _rising_clock(z: Array, depth: int) -> Array:
    """∫ (1 + e^{-z})^{1-2/L} dz: the time below s, in units of 1/(L s^{2-2/L})."""
    if depth == 2:
        return z
    q = 1 - 2 / depth
    near = jnp.minimum(z, _cap(z))
    log_u = -jax.nn.softplus(-near)
    # Without its value 1/2 at u = s, the sum stays bounded as depth grows.
    total = _partial_fractions(log_u / depth, depth, 2, 1) - depth / 2
    return total - jnp.exp(-q * log_u) / q + (z - near)


def _falling_clock(u: Array, s: Array, depth: int) -> Array:
    """∫ du / (u^{2-2/L} (u - s)) from u to infinity."""
    return jnp.exp(_log_falling(-jnp.log1p(-s / u), depth) - (2 - 2 / depth) * jnp.log(u))


def _log_falling(x: Array, depth: int) -> Array:
    """ln ∫₀¹ r^{b-1} / (1 - r y) dr for y = s/u = 1 - e^{-x} < 1 and b = 2 - 2/L."""
    if depth == 2:
        return -jnp.log(exprel(-x))
    b = 2 - 2 / depth
    y = -jnp.expm1(-x)
    small = jnp.abs(y) <= 0.5
    near = jnp.where(small, y, 0.0)
    series = jnp.polyval(jnp.asarray(1 / (np.arange(54, -1, -1) + b), x.dtype), near)
    up = jnp.where(~small & (x > 0), x, 1.0)
    capped = jnp.minimum(up, _cap(x))
    log_up = jnp.log1p(-jnp.exp(-capped))
    above = _partial_fractions(log_up / depth, depth, depth - 2, 1) - jnp.exp((b - 1) * log_up) / (b - 1)
    down = jnp.where(~small & (x < 0), -x, 1.0)
    log_down = down + jnp.log1p(-jnp.exp(-down))
    below = jnp.exp((b - 1) * log_down) / (b - 1) - _partial_fractions(log_down / depth, depth, depth - 2, -1)
    far = jnp.where(x > 0, jnp.log(above + (up - capped)) - b * log_up, jnp.log(below) - b * log_down)
    return jnp.where(small, jnp.log(series), far)


def _partial_fractions(log_r: Array, depth: int, power: int, sign: int) -> Array:
    """L ∫₀^r x^{power-1} / (1 - sign x^L) dx for 0 < power < L, from ln r (which is negative if sign is 1)."""
    turns = np.arange(depth) + (0.0 if sign > 0 else 0.5)
    angles = 2 * np.pi * turns / depth
    functions = (np.cos(power * angles), np.sin(power * angles), np.sin(angles), 2 * np.sin(angles / 2) ** 2)
    shape = (1,) * log_r.ndim + (depth,)
    cos, sin, height, drop = (jnp.asarray(c.reshape(shape), log_r.dtype) for c in functions)
    r, gap = jnp.exp(log_r)[..., None], -jnp.expm1(log_r)[..., None]
    # The logarithm of 1 - r ω, for each root ω; what 1 - cos loses near r ω = 1 matters.
    modulus = jnp.log(gap**2 + 2 * r * drop) / 2
    phase = jnp.arctan2(-r * height, gap + r * drop)
    return -jnp.sum(cos * modulus + sin * phase, axis=-1)


def _cap(x: Array) -> float:
    """Where e^{-x} no longer changes 1."""
    return -1.5 * math.log(float(jnp.finfo(x.dtype).eps))


def _logit(u: Array, s: Array) -> Array:
    return jnp.log(u) - jnp.log(s - u)


def _floats(*xs: ArrayLike) -> list[Array]:
    return jnp.broadcast_arrays(*(jnp.asarray(x) for x in xs))


def _check_depth(depth: int) -> int:
    if not isinstance(depth, int) or isinstance(depth, bool) or depth < 1:
        raise ValueError(f"`depth` must be a whole number of weight matrices, at least 1; got {depth!r}.")
    return depth
