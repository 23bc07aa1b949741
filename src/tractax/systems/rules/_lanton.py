"""LANTON: equal steps for layers of equal noise, shorter ones for noisier layers."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ...core import Kind
from ...rules import lanton
from .._system import AbstractSystem, Citation, Signature

_RATE, _ALPHA = 0.1, 0.5


class LantonSystem(AbstractSystem):
    """Three layers with the same mean gradient, of which two have the same noise and the third its own."""

    name: ClassVar[str] = "lanton"
    family: ClassVar[str] = "rules"
    kind: ClassVar[Kind] = "phenomenon"
    summary: ClassVar[str] = "layers whose gradients are noisier take shorter steps, equally noisy ones equal steps"
    citation: ClassVar[Citation] = Citation("Hao et al.", 2025, "2510.14009")
    claim: ClassVar[Signature] = Signature(2.0, "ratio of the steps of a quiet and a noisy layer")

    def norms(self, noise: ArrayLike) -> Float[Array, "steps layers"]:
        """The spectral norm of every step: of two layers with noise 0.1, and of one with its own."""
        draws = jax.random.normal(jax.random.key(0), (60, 3, 4, 4))
        scales = jnp.stack([jnp.asarray(0.1), jnp.asarray(0.1), jnp.asarray(noise)])
        gradients = jnp.eye(4)[None, None] + scales[None, :, None, None] * draws
        optimiser = lanton(_RATE, alpha=_ALPHA)
        layers = {str(i): gradients[:, i] for i in range(3)}

        def step(state: Any, gradient: dict[str, Array]) -> tuple[Any, Array]:
            update, state = optimiser.update(gradient, state)
            return state, jnp.stack([jnp.linalg.norm(u, 2) for u in jax.tree.leaves(update)])

        first = {name: g[0] for name, g in layers.items()}
        return jax.lax.scan(step, optimiser.init(first), layers)[1]

    def measure(self) -> Float[Array, ""]:
        """How much longer the steps of the quieter layers are; nothing if those two differ by more than 15 %."""
        norms = jnp.mean(jax.jit(self.norms)(1.0)[30:], axis=0)
        alike = jnp.abs(norms[0] - norms[1]) < 0.15 * norms[0]
        return jnp.where(alike, jnp.minimum(norms[0], norms[1]) / norms[2], jnp.nan)

    def draw(self, figure: Any) -> None:
        """Steps in the course of training, and against the noise of the third layer."""
        during, against = figure.subplots(1, 2)
        steps = jax.jit(self.norms)(1.0)
        colours = ("tab:blue", "tab:cyan", "tab:red")
        for norms, colour, noise in zip(steps.T, colours, (0.1, 0.1, 1.0), strict=True):
            during.plot(jnp.arange(1, 61), norms, color=colour, label=f"noise {noise}")
        during.set(xlabel="steps", ylabel="norm of the step", ylim=(0, 0.11))
        during.legend(fontsize=8)
        noises = jnp.geomspace(0.02, 5.0, 13)
        means = jax.jit(jax.vmap(lambda noise: jnp.mean(self.norms(noise)[30:], axis=0)))(noises)
        for column, colour, label in ((0, "tab:blue", "layer of noise 0.1"), (2, "tab:red", "third layer")):
            against.semilogx(noises, means[:, column], "o-", color=colour, mfc="white", ms=5, lw=0.8, label=label)
        against.axvline(0.1, color="0.7", lw=0.8)
        against.set(xlabel="noise of the third layer", ylim=(0, 0.11))
        against.legend(fontsize=8)
