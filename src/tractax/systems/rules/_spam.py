"""SPAM under gradients with spikes: no spike moves the moments by more than the threshold lets it."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ...core import Kind
from ...rules import SpamState, spam
from .._system import AbstractSystem, Citation, Tolerance

_B1, _B2, _THRESHOLD, _UNCLIPPED, _INTERVAL, _STEPS = 0.9, 0.99, 25.0, 10, 100, 300


class SpamSystem(AbstractSystem):
    """Noisy gradients of twenty parameters, one in fifty of which is a thousand times larger."""

    name: ClassVar[str] = "spam"
    family: ClassVar[str] = "rules"
    kind: ClassVar[Kind] = "bound"
    summary: ClassVar[str] = "clipped spikes: no gradient counts for more than a multiple of its usual size"
    citation: ClassVar[Citation] = Citation("Huang, Zhu, Jin, Liu, Wang, Liu", 2025, "2501.06842")
    claim: ClassVar[Tolerance] = Tolerance(1e-12, "largest excess over the bound, relative")

    def gradients(self) -> Float[Array, "steps parameters"]:
        """What is fed to the optimiser."""
        keys = jax.random.split(jax.random.key(3))
        spikes = jax.random.bernoulli(keys[0], 0.02, (_STEPS, 20))
        return (1 + jax.random.normal(keys[1], (_STEPS, 20))) * jnp.where(spikes, 1000.0, 1.0)

    def optimiser(self) -> optax.GradientTransformation:
        """SPAM that resets every hundred steps."""
        return spam(0.01, _B1, _B2, threshold=_THRESHOLD, interval=_INTERVAL, warmup=50, unclipped=_UNCLIPPED)

    def measure(self) -> Float[Array, ""]:
        """The excess of every change of the first moment over the bound, wherever clipping is on.

        The first moment moves to $\\beta_1m + (1-\\beta_1)g$, with $\\lvert g\\rvert\\le\\sqrt{\\theta v}$.
        """
        _, states = _record(self.optimiser(), self.gradients())
        counted = jnp.abs(states.first[1:] - _B1 * states.first[:-1]) / (1 - _B1)
        bound = jnp.sqrt(_THRESHOLD * states.second[:-1])
        since = states.count[:-1] % _INTERVAL
        return jnp.max(jnp.where(since[:, None] >= _UNCLIPPED, counted / bound - 1, -jnp.inf))

    def draw(self, figure: Any) -> None:
        """The gradient of one parameter, as it comes and as it counts, and the updates that follow from it."""
        gradients = self.gradients()
        updates, states = _record(self.optimiser(), gradients)
        adam, _ = _record(optax.adam(0.01, _B1, _B2), gradients)
        which, steps = int(jnp.argmax(jnp.sum(jnp.abs(gradients) > 50, axis=0))), jnp.arange(1, _STEPS)
        left, right = figure.subplots(1, 2)
        counted = jnp.abs(states.first[1:] - _B1 * states.first[:-1])[:, which] / (1 - _B1)
        fresh = (states.count[:-1] % _INTERVAL) == 0
        counted = jnp.where(fresh, jnp.abs(gradients[1:, which]), counted)
        bound = jnp.sqrt(_THRESHOLD * states.second[:-1, which])
        left.semilogy(steps, jnp.abs(gradients[1:, which]), ".", color="0.7", ms=4, label="gradient")
        left.semilogy(steps, counted, "o", color="tab:red", mfc="none", ms=4, label="as it counts")
        left.semilogy(steps, bound, color="k", lw=1.2, label="bound $\\sqrt{\\theta v}$")
        left.set(xlabel="steps", ylabel="size of the gradient", ylim=(1e-2, 1e5))
        left.legend(fontsize=8, loc="upper right")
        right.plot(jnp.arange(_STEPS), -adam[:, which], color="0.6", label="Adam")
        right.plot(jnp.arange(_STEPS), -updates[:, which], color="tab:red", label="SPAM")
        right.set(xlabel="steps", ylabel="step at learning rate 0.01")
        right.legend(fontsize=8)


def _record(optimiser: optax.GradientTransformation, gradients: Array) -> tuple[Array, SpamState]:
    """The update and the optimiser's own state after every gradient."""

    def step(state: Any, gradient: Array) -> tuple[Any, tuple[Array, SpamState]]:
        update, state = optimiser.update(gradient, state)
        return state, (update, state[0])

    with jax.numpy_dtype_promotion("standard"):
        return jax.lax.scan(step, optimiser.init(gradients[0]), gradients)[1]
