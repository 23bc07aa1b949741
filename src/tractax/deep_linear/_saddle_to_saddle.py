r"""Small random weights: the network moves from saddle to saddle, learning one singular mode at a time.

Set-up. A two-layer linear network $W_2W_1x$ on whitened inputs, loss
$\tfrac12\lVert W_2W_1 - \Sigma_{yx}\rVert_F^2$ plus a constant, gradient flow $\tau\dot W = -\partial L$, generic weights
of scale $\varepsilon\to0$. With $\Sigma_{yx} = \sum_i s_i u_iv_i^\top$, $s_1 > s_2 > \dots$, mode $i$ starts along

$$A_i = \tfrac1{\sqrt2}\,(W_1v_i + W_2^\top u_i)\in\mathbb R^h$$

and grows as $e^{s_it/\tau}$. What modes learned before it claim of the hidden layer is lost to it; what is left is
$A_i^\perp$, the part orthogonal to $A_1,\dots,A_{i-1}$. Half of its singular value is reached at

$$t_i = \frac\tau{2s_i}\,\ln\frac{2s_i}{\lVert A_i^\perp\rVert^2} + O(\varepsilon^{p_i}),\qquad
p_i = \min\Bigl(2 - \frac{2s_{i+1}}{s_i},\ \frac{2s_{i-1}}{s_i} - 2\Bigr).$$

Between the steps the network dwells at saddles of rank $k$, with loss $\tfrac12\sum_{i>k}s_i^2$, which it leaves at the
rate $s_{k+1}/\tau$. A network with $h$ hidden units learns the $h$ largest modes only.

Beside it stands an exact statement: gradient flow keeps every linear dependence between hidden units (`hidden_units`,
`unit_dependences`, `dependence_violation`), whatever the loss, so that the rank of the units never grows.

Source: Zhang, Saxe and Latham 2025, arXiv 2512.20607 (invariant manifolds, separation of time scales); see also Jacot et
al. 2021 and Li, Luo and Lyu 2021. The half-rise times, with the constant inside the logarithm, are derived here.
"""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..core import AbstractRule, Assumption, Kind, check_matrix, enforce, relative_norm
from ._base import AbstractLinearSolution, check_flow, check_layers, no_weight_decay, whitened
from ._network import DeepLinear
from ._task import LinearTask


class Staircase(eqx.Module):
    """What has been learned of every mode.

    **Attributes:**

    - `strength`: $u_i^\\top W_2W_1v_i$, shape `(modes,)`, in order of decreasing singular value.
    """

    strength: Float[Array, " modes"]


class SaddleToSaddle(AbstractLinearSolution):
    r"""Learning of a two-layer linear network from small generic weights, mode by mode.

    An asymptotic theory: half-rise times are wrong by $O(\varepsilon^{p_i})$ at initial scale $\varepsilon$ (`orders`).
    As a function of time it predicts a logistic step $s_i/(1 + e^{-2s_i(t - t_i)/\tau})$ for every mode. Build it with
    `from_model`. Modes that are not learned, with singular value zero or beyond the number of hidden units, have an
    infinite half-rise time or do not appear.

    **Attributes:**

    - `singular_values`: $s_i$ of all modes of $\Sigma_{yx}$, decreasing, shape `(min(in, out),)`.
    - `directions`: $\lVert A_i^\perp\rVert$ of the modes that can be learned, shape `(modes,)` with
      `modes = min(in, hidden, out)`.
    - `output_modes`, `input_modes`: the columns $u_i$ and $v_i$ of these modes.
    - `time_constant`: $\tau$.
    """

    singular_values: Float[Array, " all"]
    directions: Float[Array, " modes"]
    output_modes: Float[Array, "out modes"]
    input_modes: Float[Array, "in modes"]
    time_constant: Float[Array, ""]
    task: LinearTask
    kind: ClassVar[Kind] = "asymptotic"

    @classmethod
    def from_model(
        cls, model: DeepLinear, task: LinearTask, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "SaddleToSaddle":
        """The prediction for a network, having checked that its weights are small and the singular values distinct.

        **Raises:**

        `ValueError` if the network has not two layers, does not fit the task, or violates an assumption.
        """
        solution = cls._build(model, task, rule)[0]
        return enforce(solution, cls.__name__, cls.assumptions(model, task, rule)) if check else solution

    @classmethod
    def assumptions(cls, model: DeepLinear, task: LinearTask, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """How far the case is from what the prediction takes for granted."""
        solution, starts = cls._build(model, task, rule)
        s = solution._learnable
        signal = s > 0
        following = jnp.append(solution.singular_values, 0.0)[1 : s.shape[0] + 1]
        ratio = jnp.max(jnp.where(signal, following / jnp.where(signal, s, 1.0), 0.0))
        power = sum(jnp.sum(w**2) for w in model.weights)
        slowest = jnp.min(jnp.where(signal, s, jnp.inf))
        lengths = jnp.linalg.norm(starts, axis=0)
        crowding = jnp.where(signal, lengths / jnp.where(signal, solution.directions, 1.0) - 1, 0.0)
        return (
            whitened(task),
            Assumption("small weights, ‖W1‖² + ‖W2‖² ≪ 2s", power / (2 * slowest), 0.1),
            Assumption("distinct singular values, s_{i+1}/s_i < 1", ratio, 0.95),
            Assumption("generic weights, every mode has a hidden direction of its own", jnp.max(crowding), 1e3),
            no_weight_decay(check_flow(rule, cls.__name__)),
        )

    @classmethod
    def _build(
        cls, model: DeepLinear, task: LinearTask, rule: AbstractRule | None
    ) -> tuple["SaddleToSaddle", Float[Array, "hidden modes"]]:
        rule = check_flow(rule, cls.__name__)
        w1, w2 = check_layers(model, task, depth=2).weights
        sigma = task.cross_covariance
        u, s, vt = jnp.linalg.svd(sigma, full_matrices=False)
        s = jnp.where(s > max(sigma.shape) * jnp.finfo(s.dtype).eps * s[0], s, 0.0)
        modes = min(w1.shape[0], s.shape[0])
        u, v = u[:, :modes], vt[:modes].T
        starts = (w1 @ v + w2.T @ u) / jnp.sqrt(jnp.asarray(2.0, s.dtype))
        directions = jnp.abs(jnp.diagonal(jnp.linalg.qr(starts)[1]))
        return cls(s, directions, u, v, rule.time_constant.astype(s.dtype), task), starts

    @property
    def _learnable(self) -> Float[Array, " modes"]:
        return self.singular_values[: self.directions.shape[0]]

    @property
    def half_rise_times(self) -> Float[Array, " modes"]:
        r"""$t_i$, when each mode reaches half of its singular value; infinite for modes without signal or direction."""
        s, a = self._learnable, self.directions
        learns = (s > 0) & (a > 0)
        s, a = jnp.where(learns, s, 1.0), jnp.where(learns, a, 1.0)
        times = self.time_constant * (jnp.log(2 * s) - 2 * jnp.log(a)) / (2 * s)
        return jnp.where(learns, times, jnp.inf)

    @property
    def plateau_losses(self) -> Float[Array, " plateaus"]:
        r"""The loss at the saddle of rank $k = 0, 1, \dots$; the last one is what remains when all is learned."""
        squares = self.singular_values**2
        tails = jnp.flip(jnp.cumsum(jnp.flip(jnp.append(squares, 0.0))))
        return tails[: self.directions.shape[0] + 1] / 2 + self.task.floor

    @property
    def escape_rates(self) -> Float[Array, " modes"]:
        r"""$s_{k+1}/\tau$, the rate at which weights grow away from the saddle of rank $k = 0, 1, \dots$"""
        return self._learnable / self.time_constant

    @property
    def orders(self) -> Float[Array, " modes"]:
        r"""$p_i$, the power of the initial scale with which each half-rise time's error falls; NaN without signal."""
        modes = self.directions.shape[0]
        signal = self._learnable > 0
        s = jnp.where(signal, self._learnable, 1.0)
        following = jnp.append(self.singular_values, 0.0)[1 : modes + 1]
        before = jnp.concatenate([jnp.full((1,), jnp.inf, s.dtype), s[:-1]])
        return jnp.where(signal, 2 * jnp.minimum(1 - following / s, before / s - 1), jnp.nan)

    def state(self, t: Float[Array, ""]) -> Staircase:
        """The strength of every mode at time `t`, to leading order."""
        s, times = self._learnable, self.half_rise_times
        learns = jnp.isfinite(times)
        delay = t.astype(s.dtype) - jnp.where(learns, times, 0.0)
        return Staircase(jnp.where(learns, s * jax.nn.sigmoid(2 * s * delay / self.time_constant), 0.0))

    def vector_field(self, t: Float[Array, ""], state: Staircase) -> Staircase:
        """The flow of the modes once they are aligned: each on its own."""
        del t
        return Staircase(2 * state.strength * (self._learnable - state.strength) / self.time_constant)

    def limit(self) -> Staircase:
        """The strengths as t → ∞."""
        return Staircase(jnp.where(jnp.isfinite(self.half_rise_times), self._learnable, 0.0))

    def reduce(self, model: DeepLinear) -> Staircase:
        """The strengths of the modes of a network."""
        w1, w2 = model.weights
        return Staircase(jnp.sum((w2.T @ self.output_modes) * (w1 @ self.input_modes), axis=0))

    def product_of(self, state: Staircase) -> Float[Array, "out in"]:
        """The input-output map."""
        return (self.output_modes * state.strength[None, :]) @ self.input_modes.T


def hidden_units(model: DeepLinear, layer: int = 1) -> Float[Array, "hidden weights"]:
    """All weights of every unit of a hidden layer, incoming and then outgoing, one unit a row.

    **Arguments:**

    - `model`: a network with at least one hidden layer.
    - `layer`: which hidden layer, from 1 to `model.depth - 1`.

    **Raises:**

    `ValueError` if there is no such hidden layer.
    """
    if not 1 <= layer < model.depth:
        raise ValueError(f"`layer` must be a hidden layer, from 1 to {model.depth - 1}; got {layer}.")
    return jnp.concatenate([model.weights[layer - 1], model.weights[layer].T], axis=1)


def unit_dependences(units: Float[ArrayLike, "hidden weights"], *, rank: int) -> Float[Array, "dependences hidden"]:
    r"""The linear dependences between hidden units of a given rank.

    Gradient flow of a linear network keeps them, exactly and for any loss of its output: the flow multiplies the matrix
    of units $\Theta$ from the right, so $\Gamma\Theta = 0$ holds for ever. Gradient descent keeps them too.

    **Arguments:**

    - `units`: $\Theta$, from `hidden_units`.
    - `rank`: how many units are independent.

    **Returns:**

    $\Gamma$ with orthonormal rows, shape `(hidden - rank, hidden)`.

    **Raises:**

    `ValueError` if `rank` is not between 0 and the number of units.
    """
    units = check_matrix("units", units)
    if not 0 <= rank <= units.shape[0]:
        raise ValueError(f"`rank` must be between 0 and the number of units, {units.shape[0]}; got {rank}.")
    return jnp.linalg.svd(units)[0].T[rank:]


def dependence_violation(
    dependences: Float[Array, "dependences hidden"], units: Float[Array, "hidden weights"]
) -> Float[Array, ""]:
    r"""$\lVert\Gamma\Theta\rVert/\lVert\Theta\rVert$: zero while the units obey the dependences."""
    return relative_norm(dependences @ units, units)
