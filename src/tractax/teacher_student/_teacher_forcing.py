r"""Generalised teacher forcing: how much of the truth a recurrent network needs, so that its gradients do not explode.

Set-up. A recurrent network $F$ (`AbstractPLRNN`) is trained on a sequence $\bar z_0, \dots, \bar z_T$. Before every step
its state is pulled towards the truth, $z_t = F(\tilde z_{t-1})$ with $\tilde z_s = (1-\alpha)z_s + \alpha\bar z_s$:
$\alpha = 0$ lets it run freely, $\alpha = 1$ is teacher forcing. The loss is the mean squared error of
$z_1, \dots, z_T$. Time is counted in steps.

Theory. With $J(z)$ the derivative of $F$, which is constant wherever the same units are active, exactly

$$\frac{\partial z_T}{\partial z_t} = (1-\alpha)^{T-t}\,J(\tilde z_{T-1})\cdots J(\tilde z_t),\qquad
\Big\lVert\frac{\partial z_T}{\partial z_t}\Big\rVert_2 \le \big[(1-\alpha)\,\tilde\sigma\big]^{T-t},
\quad \tilde\sigma = \max\lVert J\rVert_2 ,$$

over the visited states or over all patterns of active units. Hence gradients cannot explode, however long the sequence,
if $\alpha \ge \alpha_* = \max(0, 1 - 1/\tilde\sigma)$. On a sequence of its own (a perfect model), the network's largest
Lyapunov exponent $\lambda$ becomes $\lambda + \ln(1-\alpha)$: then $1 - e^{-\lambda}\le\alpha_*$ is enough.

Source: Hess, Monfared, Brenner and Durstewitz 2023, arXiv 2306.04406.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import AbstractTask, as_float_array, check_matrix, check_positive, require
from ._plrnn import AbstractPLRNN


class ForcedSequenceTask(AbstractTask):
    r"""Follow a sequence, with the state pulled towards it before every step.

    **Arguments:**

    - `sequence`: $\bar z_0, \dots, \bar z_T$, shape `(steps + 1, units)`; the network starts at the first.
    - `forcing`: $\alpha$, from 0 (free) to 1 (teacher forcing).

    **Raises:**

    `ValueError` for a sequence without a step, NaN, or a forcing outside $[0, 1]$.
    """

    sequence: Float[Array, "times units"]
    forcing: Float[Array, ""]

    def __init__(self, sequence: ArrayLike, forcing: ArrayLike):
        self.sequence = check_matrix("sequence", sequence)
        if self.sequence.shape[0] < 2:
            raise ValueError("`sequence` must have at least 2 states, one step; got 1.")
        self.forcing = check_forcing(forcing).astype(self.sequence.dtype)

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """The squared error of the states after every step, averaged over steps and units."""
        states = forced_rollout(model, self.sequence[0], self.sequence[:-1], self.forcing)
        return jnp.mean((states[1:] - self.sequence[1:]) ** 2)


def forced_rollout(model: PyTree, start: ArrayLike, truth: ArrayLike, forcing: ArrayLike) -> Float[Array, "times units"]:
    r"""The states $z_0, \dots, z_T$ of a forced network.

    **Arguments:**

    - `model`: an `AbstractPLRNN`.
    - `start`: $z_0$, shape `(units,)`.
    - `truth`: $\bar z_0, \dots, \bar z_{T-1}$, to which the state is pulled before each step, shape `(steps, units)`.
    - `forcing`: $\alpha$, from 0 to 1.

    **Returns:**

    Shape `(steps + 1, units)`, the start first.

    **Raises:**

    `ValueError` for another kind of model, wrong shapes, or a forcing outside $[0, 1]$.
    """
    model, start, truth, alpha = _check_case(model, start, truth, forcing)

    def step(z, target):
        after = model((1 - alpha) * z + alpha * target)
        return after, after

    _, states = jax.lax.scan(step, start, truth)
    return jnp.concatenate([start[None, :], states])


def forced_sensitivity(
    model: PyTree, start: ArrayLike, truth: ArrayLike, forcing: ArrayLike
) -> Float[Array, "times units units"]:
    r"""$\partial z_T/\partial z_t$ for all $t = 0, \dots, T$, as a product of the network's pieces.

    **Arguments:**

    - `model`, `start`, `truth`, `forcing`: as in `forced_rollout`.

    **Returns:**

    Shape `(steps + 1, units, units)`; the last is the identity.

    **Raises:**

    `ValueError` as `forced_rollout` does.
    """
    model, start, truth, alpha = _check_case(model, start, truth, forcing)
    pulled = forced_states(model, start, truth, alpha)
    jacobians = (1 - alpha) * jax.vmap(model.jacobian)(pulled)

    def before(product, jacobian):
        product = product @ jacobian
        return product, product

    identity = jnp.eye(start.shape[0], dtype=start.dtype)
    _, products = jax.lax.scan(before, identity, jacobians, reverse=True)
    return jnp.concatenate([products, identity[None, :, :]])


def forced_states(model: PyTree, start: ArrayLike, truth: ArrayLike, forcing: ArrayLike) -> Float[Array, "steps units"]:
    r"""$\tilde z_0, \dots, \tilde z_{T-1}$, the states at which the network makes its steps.

    **Arguments:**

    - `model`, `start`, `truth`, `forcing`: as in `forced_rollout`.

    **Raises:**

    `ValueError` as `forced_rollout` does.
    """
    model, start, truth, alpha = _check_case(model, start, truth, forcing)
    return (1 - alpha) * forced_rollout(model, start, truth, alpha)[:-1] + alpha * truth


def largest_jacobian_norm(model: PyTree, states: ArrayLike | None = None) -> Float[Array, ""]:
    r"""$\tilde\sigma$, the largest spectral norm of the network's derivative.

    **Arguments:**

    - `model`: an `AbstractPLRNN`.
    - `states`: over which to maximise, shape `(states, units)`, such as `forced_states` returns; `None` for all patterns
      of active units.

    **Raises:**

    `ValueError` for another kind of model, wrong shapes, or `None` with more than 20 hidden units.
    """
    model = _check_model(model)
    if states is None:
        pieces = model.pieces()
    else:
        units = model.linear.shape[0]
        pieces = jax.vmap(model.jacobian)(check_matrix("states", states, (None, units)).astype(model.linear.dtype))
    return jnp.max(jnp.linalg.svd(pieces, compute_uv=False))


def sensitivity_bound(norm: ArrayLike, forcing: ArrayLike, steps: ArrayLike) -> Float[Array, "..."]:
    r"""$[(1-\alpha)\tilde\sigma]^{T-t}$, which $\lVert\partial z_T/\partial z_t\rVert_2$ does not exceed.

    **Arguments:**

    - `norm`: $\tilde\sigma$, see `largest_jacobian_norm`.
    - `forcing`: $\alpha$, from 0 to 1.
    - `steps`: $T - t$, a number or an array of them.

    **Raises:**

    `ValueError` for a negative norm or number of steps, or a forcing outside $[0, 1]$.
    """
    norm, steps = check_positive("norm", norm, zero=True), check_positive("steps", steps, zero=True)
    return ((1 - check_forcing(forcing).astype(norm.dtype)) * norm) ** steps.astype(norm.dtype)


def critical_forcing(norm: ArrayLike) -> Float[Array, "..."]:
    r"""$\alpha_* = \max(0, 1 - 1/\tilde\sigma)$, the forcing from which on gradients cannot explode.

    **Arguments:**

    - `norm`: $\tilde\sigma$, see `largest_jacobian_norm`.

    **Raises:**

    `ValueError` for a negative norm.
    """
    norm = check_positive("norm", norm, zero=True)
    return jnp.where(norm > 1, 1 - 1 / jnp.where(norm > 1, norm, 1.0), 0.0)


def check_forcing(forcing: Any) -> Array:
    """The forcing, if it lies between 0 and 1."""
    forcing = as_float_array("forcing", forcing)
    if forcing.ndim != 0:
        raise ValueError(f"`forcing` must be one number; got shape {forcing.shape}.")
    return require(forcing, (forcing >= 0) & (forcing <= 1), f"`forcing` must lie between 0 and 1; got {forcing}.")


def _check_model(model: Any) -> AbstractPLRNN:
    if not isinstance(model, AbstractPLRNN):
        raise ValueError(f"`model` must be a PLRNN or a ShallowPLRNN; got {type(model).__name__}.")
    return model


def _check_case(model: Any, start: Any, truth: Any, forcing: Any) -> tuple[AbstractPLRNN, Array, Array, Array]:
    model = _check_model(model)
    units, dtype = model.linear.shape[0], model.linear.dtype
    start = check_matrix("start", start, (units,)).astype(dtype)
    truth = check_matrix("truth", truth, (None, units)).astype(dtype)
    return model, start, truth, check_forcing(forcing).astype(dtype)
