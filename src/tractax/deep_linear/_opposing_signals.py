r"""Opposing signals: progressive sharpening, and the edge of stability, in a network with one hidden unit.

Set-up. Inputs $(z, x_o)$ with $\mathbb E\,zz^\top = I$, $\mathbb E\,x_ox_o^\top = \alpha I$ and $\mathbb E\,zx_o^\top =
0$; targets $\beta^\top z$ plus an even function of $x_o$, which no linear network can learn. The network is $f = c\,
(b^\top z + b_o^\top x_o)$, and up to a constant the population loss is

$$L = \tfrac12\lVert\beta - cb\rVert^2 + \tfrac\alpha2\,c^2\lVert b_o\rVert^2.$$

Under gradient flow $\tau\dot\theta = -\partial L$, $C = c^2 - \lVert b\rVert^2 - \lVert b_o\rVert^2$ is conserved. The
flow keeps the directions of $b_o$ and of the part of $b$ orthogonal to $\beta$, so it reduces exactly to four numbers:
with $s = \lVert\beta\rVert$, $p = b^\top\beta/s$, $q = \lVert b_\perp\rVert$, $o = \lVert b_o\rVert$,

$$\tau\dot p = c\,(s - cp), \quad \tau\dot q = -c^2q, \quad \tau\dot o = -\alpha c^2o, \quad
\tau\dot c = p\,(s - cp) - cq^2 - \alpha co^2.$$

It ends at $c_\infty^2 = \tfrac12(C + \sqrt{C^2 + 4s^2})$ with sharpness $\max(\alpha c_\infty^2, 2c_\infty^2 - C)$: for
strong opposing inputs about $\alpha s$. Without $q$ and $o$ the flow is a `two_layer_mode`; in general it is integrated.

Source: Rosenfeld and Risteski 2023, arXiv 2311.04163 (a model in the spirit of theirs, with its own constants).
"""

from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..core import (
    AbstractRule,
    AbstractSolution,
    Assumption,
    Kind,
    check_matrix,
    check_positive,
    enforce,
    relative_norm,
    require,
    tolerance_for,
)
from ..special import safe_sqrt
from ._base import check_flow, no_weight_decay
from ._task import LinearTask


class OpposingNetwork(eqx.Module):
    """$f(z, x_o) = c\\,(b^\\top z + b_o^\\top x_o)$, for one input that holds $z$ first and $x_o$ after it.

    **Arguments:**

    - `signal`: $b$, weights of the inputs with signal.
    - `opposing`: $b_o$, weights of the opposing inputs.
    - `outer`: $c$, a scalar.
    """

    signal: Float[Array, " signal"]
    opposing: Float[Array, " opposing"]
    outer: Float[Array, ""]

    def __init__(self, signal: Float[ArrayLike, " signal"], opposing: Float[ArrayLike, " opposing"], outer: ArrayLike):
        self.signal = check_matrix("signal", signal, (None,))
        self.opposing = check_matrix("opposing", opposing, (None,)).astype(self.signal.dtype)
        self.outer = check_matrix("outer", outer, ()).astype(self.signal.dtype)

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, " 1"]:
        """The output for one input."""
        return self.outer * jnp.dot(jnp.concatenate([self.signal, self.opposing]), x)[None]


def opposing_signals_task(
    beta: Float[ArrayLike, " signal"], strength: ArrayLike, n_opposing: int, *, target_power: ArrayLike | None = None
) -> LinearTask:
    r"""The population loss of targets $\beta^\top z$ plus an even function of the opposing inputs.

    **Arguments:**

    - `beta`: $\beta$.
    - `strength`: $\alpha > 0$, the variance of each opposing input.
    - `n_opposing`: the number of opposing inputs.
    - `target_power`: $\mathbb E\,y^2$, which only sets the constant that the loss cannot go below; `None` for no
      constant.
    """
    beta = check_matrix("beta", beta, (None,))
    alpha = check_positive("strength", strength).astype(beta.dtype)
    if n_opposing < 1:
        raise ValueError(f"`n_opposing` must be at least 1; got {n_opposing}.")
    nothing = jnp.zeros(n_opposing, beta.dtype)
    variances = jnp.concatenate([jnp.ones_like(beta), nothing + alpha])
    return LinearTask(jnp.concatenate([beta, nothing])[None, :], jnp.diag(variances), target_power=target_power)


class OpposingState(eqx.Module):
    """The four numbers that the flow reduces to.

    **Attributes:**

    - `signal`: $p$, the signal weights' component along $\\beta$.
    - `orthogonal`: $q \\ge 0$, the length of the rest of the signal weights.
    - `opposing`: $o \\ge 0$, the length of the opposing weights.
    - `outer`: $c$.
    """

    signal: Float[Array, ""]
    orthogonal: Float[Array, ""]
    opposing: Float[Array, ""]
    outer: Float[Array, ""]

    @property
    def conserved(self) -> Float[Array, ""]:
        """$C = c^2 - p^2 - q^2 - o^2$."""
        return self.outer**2 - self.signal**2 - self.orthogonal**2 - self.opposing**2


class OpposingSignals(AbstractSolution[OpposingState]):
    """The gradient flow of an `OpposingNetwork`: reduced to four numbers, with its limit and sharpness in closed form.

    Build it with `from_model`. Time is in the rule's units ($\\tau$ is its `time_constant`).

    **Attributes:**

    - `initial`: the state at time zero.
    - `beta`: $\\beta$, the linear part of the target.
    - `strength`: $\\alpha$, the variance of each opposing input.
    - `time_constant`: $\\tau$.
    """

    initial: OpposingState
    beta: Float[Array, " signal"]
    strength: Float[Array, ""]
    time_constant: Float[Array, ""]
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: OpposingNetwork, task: LinearTask, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "OpposingSignals":
        """The solution for a network, having checked that the task's inputs are of the two kinds.

        **Raises:**

        `ValueError` if model or task are of another kind, do not fit, or violate an assumption.
        """
        solution = cls._build(model, task, rule)
        return enforce(solution, cls.__name__, cls.assumptions(model, task, rule)) if check else solution

    @classmethod
    def assumptions(
        cls, model: OpposingNetwork, task: LinearTask, rule: AbstractRule | None = None
    ) -> tuple[Assumption, ...]:
        """How far the case is from what the solution takes for granted."""
        solution = cls._build(model, task, rule)
        n, dtype = solution.beta.shape[0], solution.beta.dtype
        variances = jnp.concatenate([jnp.ones(n, dtype), jnp.full(model.opposing.shape, solution.strength)])
        covariance = jnp.eye(variances.size, dtype=dtype) if task.input_covariance is None else task.input_covariance
        off = (covariance - jnp.diag(variances)) / jnp.sqrt(variances[:, None] * variances[None, :])
        tolerance = tolerance_for(off)
        return (
            Assumption("inputs of variance 1 and α, uncorrelated", jnp.max(jnp.abs(off)), tolerance),
            Assumption(
                "opposing inputs without linear signal",
                relative_norm(task.cross_covariance[0, n:], task.cross_covariance),
                tolerance,
            ),
            no_weight_decay(check_flow(rule, cls.__name__)),
        )

    @classmethod
    def _build(cls, model: OpposingNetwork, task: LinearTask, rule: AbstractRule | None) -> "OpposingSignals":
        rule = check_flow(rule, cls.__name__)
        if not isinstance(model, OpposingNetwork):
            raise ValueError(f"`model` must be an OpposingNetwork; got {type(model).__name__}.")
        if not isinstance(task, LinearTask):
            raise ValueError(f"`task` must be a LinearTask; got {type(task).__name__}.")
        n, n_in = model.signal.shape[0], model.signal.shape[0] + model.opposing.shape[0]
        if task.optimum.shape != (1, n_in):
            raise ValueError(
                f"`task` must have one output and {n_in} inputs to fit `model`; got {task.optimum.shape[0]} and "
                f"{task.optimum.shape[1]}."
            )
        beta = task.optimum[0, :n]
        if task.input_covariance is None:
            strength = jnp.ones((), beta.dtype)
        else:
            strength = jnp.mean(jnp.diagonal(task.input_covariance)[n:])
        return cls(_reduce(model, beta), beta, strength, rule.time_constant.astype(beta.dtype))

    @property
    def size(self) -> Float[Array, ""]:
        """$s = \\lVert\\beta\\rVert$."""
        return _length(self.beta)

    def state(self, t: Float[Array, ""]) -> OpposingState:
        """The state at time `t`: integrated to a relative tolerance of 1e-11 (float32: 1e-6)."""
        return _integrate(self, t.astype(self.beta.dtype))

    def derivative(self, t: ArrayLike, left: bool = True) -> OpposingState:
        """The time derivative of the state."""
        del left
        t = jnp.asarray(t, self.beta.dtype)
        return self.vector_field(t, self.evaluate(t))

    def vector_field(self, t: Float[Array, ""], state: OpposingState) -> OpposingState:
        """The reduced flow."""
        del t
        p, q, o, c = state.signal, state.orthogonal, state.opposing, state.outer
        error = self.size - c * p
        velocity = (
            c * error,
            -(c**2) * q,
            -self.strength * c**2 * o,
            p * error - c * q**2 - self.strength * c * o**2,
        )
        return OpposingState(*(v / self.time_constant for v in velocity))

    def reduce(self, model: OpposingNetwork) -> OpposingState:
        """The four numbers of a network."""
        return _reduce(model, self.beta)

    def limit(self) -> OpposingState:
        """The state as t → ∞, in closed form.

        **Raises:**

        `ValueError` if $p$ and $c$ start with opposite signs: which of the two minima $\\pm c_\\infty$ is reached then
        depends on the whole run. Also if both are zero, where nothing moves, and if $\\beta = 0$.
        """
        p, c = self.initial.signal, self.initial.outer
        c = require(
            c,
            (p * c >= 0) & (p + c != 0) & (self.size > 0),
            "`model` must start with outer weight and signal weight of one sign, and `task` must have a signal, for a "
            "closed form of the limit; evaluate the solution at a large time instead.",
        )
        conserved, sign = self.initial.conserved, jnp.sign(p + c)
        signal, outer = (sign * jnp.sqrt(limiting_outer_square(x, self.size)) for x in (-conserved, conserved))
        return OpposingState(signal, jnp.zeros_like(signal), jnp.zeros_like(signal), outer)

    def sharpness(self, state: OpposingState) -> Float[Array, ""]:
        """The largest eigenvalue of the Hessian of the whole network's loss in a given state."""
        p, q, o, c = state.signal, state.orthogonal, state.opposing, state.outer
        alpha = self.strength
        nothing = jnp.zeros_like(c)
        # In the directions of β, b⊥, b_o and c. In all others the Hessian is c² or αc², which interlacing keeps below.
        mixed = jnp.stack([2 * c * p - self.size, 2 * c * q, 2 * alpha * c * o, nothing])
        diagonal = jnp.stack([c**2, c**2, alpha * c**2, p**2 + q**2 + alpha * o**2])
        last = jnp.asarray([0.0, 0.0, 0.0, 1.0], c.dtype)
        hessian = jnp.diag(diagonal) + mixed[:, None] * last[None, :] + last[:, None] * mixed[None, :]
        return jnp.linalg.eigvalsh(hessian)[-1]

    def final_sharpness(self) -> Float[Array, ""]:
        """The sharpness as t → ∞: $\\max(\\alpha c_\\infty^2, 2c_\\infty^2 - C)$."""
        conserved = self.initial.conserved
        square = limiting_outer_square(conserved, self.size)
        return jnp.maximum(self.strength * square, 2 * square - conserved)


def limiting_outer_square(conserved: ArrayLike, size: ArrayLike) -> Float[Array, ""]:
    r"""$c_\infty^2 = \tfrac12(C + \sqrt{C^2 + 4s^2})$, the outer weight at which gradient flow ends.

    **Arguments:**

    - `conserved`: $C$.
    - `size`: $s = \lVert\beta\rVert$.
    """
    conserved, size = jnp.asarray(conserved), jnp.asarray(size)
    flat = (conserved == 0) & (size == 0)
    root = jnp.where(flat, 0.0, jnp.hypot(jnp.where(flat, 1.0, conserved), 2 * size))
    # For C < 0 the sum cancels; its conjugate does not.
    falling = conserved < 0
    other = jnp.where(falling, root - conserved, 1.0)
    return jnp.where(falling, 2 * size**2 / other, (conserved + root) / 2)


def _reduce(model: OpposingNetwork, beta: Array) -> OpposingState:
    size = _length(beta)
    direction = beta / jnp.where(size == 0, 1.0, size)
    p = jnp.dot(direction, model.signal)
    rest, whole = _length(model.signal - p * direction), _length(model.signal)
    # What remains of weights along β is rounding.
    q = jnp.where(rest <= 8 * jnp.finfo(rest.dtype).eps * whole, 0.0, rest)
    return OpposingState(p, q, _length(model.opposing), model.outer)


def _length(x: Array) -> Array:
    return safe_sqrt(jnp.sum(x**2))


class _Moving(eqx.Module):
    """What has to be integrated: with the decay $T = \\int c^2 dt/\\tau$ known, $q$ and $o$ follow."""

    signal: Float[Array, ""]
    outer: Float[Array, ""]
    decay: Float[Array, ""]


@eqx.filter_jit
def _integrate(solution: OpposingSignals, t: Array) -> OpposingState:
    last = jnp.where(jnp.isinf(t), jnp.finfo(t.dtype).max / 2, t)
    rtol = _tolerance(t.dtype)
    found = diffrax.diffeqsolve(
        diffrax.ODETerm(_velocity),
        diffrax.Tsit5(),
        t0=jnp.zeros_like(t),
        t1=last,
        dt0=None,
        y0=_Moving(solution.initial.signal, solution.initial.outer, jnp.zeros_like(t)),
        args=solution,
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=1e-3 * rtol),
        event=diffrax.Event(_settled),
        max_steps=2**14,
    )
    reached = jax.tree.map(lambda leaf: leaf[0], found.ys)
    # Once settled, what is left is linear: p and c relax across the valley of minima, q and o decay.
    left = (last - found.ts[0]) / solution.time_constant  # pyright: ignore
    p, c = reached.signal, reached.outer
    relaxed = jnp.exp(-left * (p**2 + c**2))
    conserved = solution.initial.conserved
    p_end = jnp.sign(p) * safe_sqrt(limiting_outer_square(-conserved, solution.size))
    c_end = jnp.sign(c) * safe_sqrt(limiting_outer_square(conserved, solution.size))
    settled = left > 0
    p = jnp.where(settled, p_end + (p - p_end) * relaxed, p)
    c = jnp.where(settled, c_end + (c - c_end) * relaxed, c)
    return _complete(solution, _Moving(p, c, reached.decay + left * c**2))


def _complete(solution: OpposingSignals, moving: _Moving) -> OpposingState:
    q = solution.initial.orthogonal * jnp.exp(-moving.decay)
    o = solution.initial.opposing * jnp.exp(-solution.strength * moving.decay)
    return OpposingState(moving.signal, q, o, moving.outer)


def _velocity(t: Any, moving: _Moving, solution: OpposingSignals) -> _Moving:
    speed = solution.vector_field(t, _complete(solution, moving))
    return _Moving(speed.signal, speed.outer, moving.outer**2 / solution.time_constant)


def _settled(t: Any, moving: _Moving, solution: OpposingSignals, **_: Any) -> Array:
    """Whether p and c are at rest up to the tolerance, and q and o too small to move them."""
    state = _complete(solution, moving)
    speed = solution.vector_field(t, state)
    still = jnp.maximum(jnp.abs(speed.signal), jnp.abs(speed.outer)) * solution.time_constant
    rate, size = state.signal**2 + state.outer**2, jnp.maximum(jnp.abs(state.signal), jnp.abs(state.outer))
    rest = jnp.maximum(state.orthogonal, jnp.sqrt(solution.strength) * state.opposing)
    resting = still <= 100 * _tolerance(still.dtype) * rate * size
    return resting & (rest <= jnp.sqrt(jnp.finfo(still.dtype).eps) * jnp.abs(state.outer))


def _tolerance(dtype: Any) -> float:
    return 1e-11 if dtype == jnp.float64 else 1e-6
