r"""Two-layer linear networks whose weights are aligned with the task: every mode learns on its own.

Set-up. Inputs $x$, targets $y$, network $W_2 W_1 x$, loss $\tfrac12\mathbb E\lVert y - W_2W_1x\rVert^2$, gradient flow
$\tau\dot W = -\partial L$. With $\Sigma_{yx} = U S V^\top$ and weights $W_1 = R A V^\top$, $W_2 = U B R^\top$ ($R$ with
orthonormal columns, $A$ and $B$ diagonal), every mode obeys

$$\tau\dot a = b\,(s - ab), \qquad \tau\dot b = a\,(s - ab),$$

and conserves $\lambda = b^2 - a^2$. Inputs that are not white are covered if $\Sigma_{xx} = V\,\mathrm{diag}(\ell)\,
V^\top$, and layers may learn at different rates.

Source: Saxe, McClelland and Ganguli 2013, arXiv 1312.6120 (the implicit solution printed in their appendix lacks a
factor 2; the explicit one below does not use it).
"""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..core import AbstractRule, Assumption, Kind, enforce, relative_norm, tolerance_for
from ..special import exprel
from ._base import AbstractLinearSolution, check_flow, check_layers, no_weight_decay
from ._network import DeepLinear
from ._singular_modes import singular_modes
from ._task import LinearTask


class Modes(eqx.Module):
    """The modes of a two-layer network.

    **Attributes:**

    - `first`: $a$, the strength of each mode in the first layer, shape `(modes,)`.
    - `second`: $b$, in the second layer, shape `(modes,)`.
    """

    first: Float[Array, " modes"]
    second: Float[Array, " modes"]

    @property
    def strength(self) -> Float[Array, "*times modes"]:
        """$ab$, the strength of each mode in the product of the layers."""
        return self.first * self.second


class TwoLayerModes(AbstractLinearSolution):
    """Exact learning curves of the modes of an aligned two-layer linear network, balanced or not.

    Build it with `from_model`. Time is in the rule's units ($\\tau$ is its `time_constant`).

    **Attributes:**

    - `initial`: the modes at time zero.
    - `singular_values`: $s$ of $\\Sigma_{yx}$, shape `(modes,)`; negative where the network is aligned with a sign flip.
    - `input_variances`: $\\ell$, the variance of the inputs along each mode; ones for whitened inputs.
    - `output_modes`, `input_modes`, `hidden_modes`: the columns of $U$, $V$, $R$.
    - `rates`: learning rates of the two layers, divided by $\\tau$.
    """

    initial: Modes
    singular_values: Float[Array, " modes"]
    input_variances: Float[Array, " modes"]
    output_modes: Float[Array, "out modes"]
    input_modes: Float[Array, "in modes"]
    hidden_modes: Float[Array, "hidden modes"]
    rates: Float[Array, "2"]
    task: LinearTask
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: DeepLinear, task: LinearTask, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "TwoLayerModes":
        """The solution for a network, having checked that its weights are aligned with the task.

        **Raises:**

        `ValueError` if the network has not two layers, does not fit the task, or violates an assumption.
        """
        solution = cls._build(model, task, rule)
        return enforce(solution, cls.__name__, cls.assumptions(model, task, rule)) if check else solution

    @classmethod
    def assumptions(cls, model: DeepLinear, task: LinearTask, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """How far the case is from what the solution takes for granted."""
        solution = cls._build(model, task, rule)
        w1, w2 = model.weights
        modes = solution.initial
        off_first = w1 - (solution.hidden_modes * modes.first[None, :]) @ solution.input_modes.T
        off_second = w2 - (solution.output_modes * modes.second[None, :]) @ solution.hidden_modes.T
        misaligned = jnp.maximum(relative_norm(off_first, w1), relative_norm(off_second, w2))
        overlaps = solution.hidden_modes.T @ solution.hidden_modes
        overlapping = jnp.max(jnp.abs(overlaps - jnp.diag(jnp.diagonal(overlaps))))
        tolerance = tolerance_for(w1)
        found = [
            Assumption("aligned weights, W1 = R A Vᵀ and W2 = U B Rᵀ", misaligned, tolerance),
            Assumption("separate hidden modes, RᵀR diagonal", overlapping, tolerance),
        ]
        if task.input_covariance is not None:
            v = solution.input_modes
            off = task.input_covariance @ v - v * solution.input_variances[None, :]
            found.append(
                Assumption("Σxx and Σyx share input modes", relative_norm(off, task.input_covariance), tolerance)
            )
        rule = check_flow(rule, cls.__name__, rates=True)
        return (*found, no_weight_decay(rule))

    @classmethod
    def _build(cls, model: DeepLinear, task: LinearTask, rule: AbstractRule | None) -> "TwoLayerModes":
        rule = check_flow(rule, cls.__name__, rates=True)
        w1, w2 = check_layers(model, task, depth=2).weights
        u, s, v = singular_modes(task, w2 @ w1)
        # Both W1 v and W2ᵀ u point along the hidden mode; the longer one gives its direction.
        from_first, from_second = w1 @ v, w2.T @ u
        longer = jnp.linalg.norm(from_first, axis=0) >= jnp.linalg.norm(from_second, axis=0)
        hidden = jnp.where(longer[None, :], from_first, from_second)
        norms = jnp.linalg.norm(hidden, axis=0)
        # A mode without a hidden unit shows up as rounding, which has no direction.
        absent = norms <= 8 * jnp.finfo(norms.dtype).eps * jnp.max(norms)
        hidden = jnp.where(absent[None, :], 0.0, hidden / jnp.where(absent, 1.0, norms)[None, :])
        modes = Modes(jnp.sum(hidden * from_first, axis=0), jnp.sum(hidden * from_second, axis=0))
        if task.input_covariance is None:
            variances = jnp.ones_like(s)
        else:
            variances = jnp.sum(v * (task.input_covariance @ v), axis=0)
        rates = jnp.ones(2, s.dtype) if rule.rates is None else rule.rates.astype(s.dtype)
        return cls(modes, s, variances, u, v, hidden, rates / rule.time_constant.astype(s.dtype), task)

    def state(self, t: Float[Array, ""]) -> Modes:
        """The modes at time `t`."""
        # Rescaling both layers' strengths reduces variances and rates to one time scale for each mode.
        g = jnp.sqrt(self.rates[0] * self.rates[1])
        moving = self.input_variances > 0
        gain = jnp.sqrt(jnp.where(moving, self.input_variances, 1.0) * g)
        first, second = gain / jnp.sqrt(self.rates[0]), gain / jnp.sqrt(self.rates[1])
        clock = jnp.where(moving, g * t, 0.0)
        a, b = jax.vmap(two_layer_mode)(
            first * self.initial.first, second * self.initial.second, self.singular_values, clock
        )
        return Modes(a / first, b / second)

    def limit(self) -> Modes:
        """The modes as t → ∞: learned, or stuck at a saddle if they start on its stable manifold."""
        return self.state(jnp.asarray(jnp.inf, self.singular_values.dtype))

    def vector_field(self, t: Float[Array, ""], state: Modes) -> Modes:
        """The flow of the modes."""
        del t
        error = self.singular_values - self.input_variances * state.strength
        return Modes(self.rates[0] * state.second * error, self.rates[1] * state.first * error)

    def reduce(self, model: DeepLinear) -> Modes:
        """The modes of a network, in the solution's basis."""
        w1, w2 = model.weights
        first = jnp.sum(self.hidden_modes * (w1 @ self.input_modes), axis=0)
        second = jnp.sum(self.output_modes * (w2 @ self.hidden_modes), axis=0)
        return Modes(first, second)

    def product_of(self, state: Modes) -> Float[Array, "out in"]:
        """The input-output map."""
        return (self.output_modes * state.strength[None, :]) @ self.input_modes.T

    def half_times(self) -> Float[Array, " modes"]:
        r"""The time at which each balanced mode reaches half of its singular value, $(\tau/2s)\ln(s/u_0 - 1)$.

        Only for balanced modes ($a = b$), whitened inputs and equal rates; NaN where $u_0 \le 0$ or $u_0 > s$.
        """
        s, start = self.singular_values, self.initial.strength
        learns = (start > 0) & (start <= s)
        ratio = jnp.where(learns, s, 1.0) / jnp.where(learns, start, 1.0) - 1
        return jnp.where(learns, jnp.log(ratio) / (2 * jnp.where(learns, s, 1.0) * self.rates[0]), jnp.nan)


@jax.jit
def two_layer_mode(a0: ArrayLike, b0: ArrayLike, s: ArrayLike, t: ArrayLike) -> tuple[Array, Array]:
    r"""One mode of a two-layer linear network: the solution of $\dot a = b(s - ab)$, $\dot b = a(s - ab)$.

    Any signs of `a0`, `b0` and `s`; all exponents are non-positive, so any `t` up to infinity.

    **Arguments:**

    - `a0`, `b0`: the initial strengths in the two layers, scalars.
    - `s`: the strength to be learned.
    - `t`: time.

    **Returns:**

    `(a, b)` at time `t`.
    """
    a0, b0, s, t = (jnp.asarray(x) for x in jnp.broadcast_arrays(*(jnp.asarray(x) for x in (a0, b0, s, t))))
    lam = (b0 - a0) * (b0 + a0)
    square = lam**2 + 4 * s**2
    still = square == 0
    r = jnp.where(still, 0.0, jnp.sqrt(jnp.where(still, 1.0, square)))
    # Early on (and at r = 0, where eigenvectors are undefined), powers of the matrix [[-λ/2, s], [s, λ/2]] itself.
    early = still | (r * t < 1.0)
    # A mode with nothing to learn decays like t^(-1/2) for ever; a finite time keeps 0 · ∞ out of it.
    t_early = jnp.where(early, jnp.minimum(t, jnp.finfo(r.dtype).max), 0.0)
    early_a, early_b, early_square = _early(a0, b0, s, lam, r, t_early)
    s, lam, r = jnp.where(still, 1.0, s), jnp.where(still, 0.0, lam), jnp.where(early, 1.0, r)
    late_a, late_b, late_square = _late(a0, b0, s, lam, r, t)
    norm = jnp.sqrt(jnp.where(early, early_square, late_square))
    return jnp.where(early, early_a, late_a) / norm, jnp.where(early, early_b, late_b) / norm


def _early(a0, b0, s, lam, r, t):
    """Both strengths times a common norm, and the norm's square."""
    elapsed = t * exprel(-r * t)
    decayed = 1 - r * elapsed
    cosh = (1 + decayed) / 2
    fa, fb = s * b0 - lam / 2 * a0, s * a0 + lam / 2 * b0
    square = decayed + elapsed * (cosh * (a0**2 + b0**2) + elapsed * (a0 * fa + b0 * fb))
    return cosh * a0 + elapsed * fa, cosh * b0 + elapsed * fb, square


def _late(a0, b0, s, lam, r, t):
    """The same in the eigenbasis."""
    # The angle atan2(2s, -λ)/2 by half-angle formulas: trigonometric functions would dominate the cost of a mode.
    rate = jnp.sqrt(lam**2 + 4 * s**2)
    wide = jnp.sqrt((1 + jnp.abs(lam) / rate) / 2)
    narrow = s / (rate * wide)
    c = jnp.where(lam > 0, jnp.abs(narrow), wide)
    n = jnp.where(lam > 0, jnp.copysign(wide, s), narrow)
    growing, decaying = c * a0 + n * b0, c * b0 - n * a0
    half = jnp.exp(-r * t / 2)
    decayed = half**2
    elapsed = (1 - decayed) / r
    # On the stable manifold of the saddle a = b = 0, rounding would make the mode escape after r t ≈ 35.
    saddle = jnp.abs(growing) <= 2 * jnp.finfo(r.dtype).eps * (jnp.abs(a0) + jnp.abs(b0))
    growing = jnp.where(saddle, 0.0, growing)
    square = jnp.where(saddle, 1 + elapsed * decaying**2, decayed + elapsed * (growing**2 + decaying**2 * decayed))
    left = jnp.where(saddle, half, decayed) * decaying
    return c * growing - n * left, n * growing + c * left, square
