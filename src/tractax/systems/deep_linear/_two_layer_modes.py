"""Saxe et al.'s learning curves: every singular mode is a sigmoid, and the loss is a staircase."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ...core import Kind
from ...deep_linear import LinearTask, TwoLayerModes, aligned
from ...plotting import overlay
from ...rules import GradientFlow
from .._system import AbstractRunSystem, Citation, Run, Tolerance


class TwoLayerModesSystem(AbstractRunSystem):
    """Three modes of strengths 3, 2, 1, learned from small aligned weights."""

    name: ClassVar[str] = "two_layer_modes"
    family: ClassVar[str] = "deep_linear"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "sigmoidal learning of each singular mode by an aligned two-layer network"
    citation: ClassVar[Citation] = Citation("Saxe, McClelland, Ganguli", 2013, "1312.6120")
    claim: ClassVar[Tolerance] = Tolerance(1e-8)

    def run(self) -> Run:
        """Modes of initial strength 1e-3, up to twice the slowest learning time."""
        task = LinearTask(jnp.diag(jnp.array([3.0, 2.0, 1.0])))
        model = aligned(task, (4,), strength=1e-3, key=jax.random.key(0))
        rule = GradientFlow()
        solution = TwoLayerModes.from_model(model, task, rule)
        return Run(model, task, rule, solution, jnp.linspace(0.0, 7.0, 71))

    def draw(self, figure: Any) -> None:
        """Mode strengths with their half-times, the loss, and a shallow network for comparison."""
        run = self.run()
        observed = run.simulate().observed
        theory = jax.vmap(run.solution.evaluate)(run.ts)
        loss = jax.vmap(run.solution.loss)(run.ts)
        simulated_loss = jax.vmap(run.task.loss_of_map)(jax.vmap(run.solution.product_of)(observed))
        shallow = 1 - jnp.exp(-run.ts)
        left, right = figure.subplots(1, 2)
        singular_values = run.solution.singular_values
        overlay(left, run.ts, theory.strength, observed.strength, [f"s = {s:.0f}" for s in singular_values])
        left.vlines(run.solution.half_times(), 0, singular_values / 2, colors="0.7", linestyles=":")
        left.plot(run.ts, singular_values[None, :] * shallow[:, None], color="0.8", lw=1, zorder=0)
        left.set(xlabel="time $t/\\tau$", ylabel="mode strength", title="Modes (grey: a shallow network)")
        overlay(right, run.ts, loss[:, None], simulated_loss[:, None], ["loss"])
        right.set(xlabel="time $t/\\tau$", ylabel="loss", title="Loss: strong modes first")
