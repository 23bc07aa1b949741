"""Units that descend the entropy of their own decisions."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ...core import Kind
from ...rules import EntropyTask, GradientFlow, KnowledgeFlow, KnowledgeLayer, decision_entropy
from .._system import AbstractRunSystem, Citation, Run, Tolerance


class StructuredKnowledgeSystem(AbstractRunSystem):
    """Four units and two orthogonal inputs."""

    name: ClassVar[str] = "structured_knowledge"
    family: ClassVar[str] = "rules"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "logits grow without labels, first exponentially and then as the logarithm of time"
    citation: ClassVar[Citation] = Citation("Mahi", 2025, "2504.03214")
    claim: ClassVar[Tolerance] = Tolerance(1e-8)

    def run(self) -> Run:
        """The layer and its closed form."""
        model = KnowledgeLayer(jnp.asarray([[1.0, 0.2], [0.2, -0.4], [-0.02, 0.05], [-0.5, 0.0]]))
        task = EntropyTask(jnp.asarray([[1.5, 0.5], [-0.6, 1.8]]))
        ts = jnp.concatenate([jnp.zeros(1), jnp.geomspace(0.05, 100.0, 40)])
        return Run(model, task, GradientFlow(), KnowledgeFlow.from_model(model, task), ts)

    def draw(self, figure: Any) -> None:
        """The logits of the first input over time, the entropy, and the entropy of one decision."""
        import matplotlib

        run = self.run()
        trajectory = run.simulate()
        growth, entropy = figure.subplots(1, 2)
        colours = matplotlib.colormaps["viridis"]([0.0, 0.28, 0.56, 0.84])
        fine = jnp.geomspace(0.05, 1e4, 200)
        theory = jax.vmap(run.solution.evaluate)(fine)
        for unit, colour in enumerate(colours):
            growth.semilogx(fine, theory.logits[:, 0, unit], color=colour)
            simulated = trajectory.observed.logits[1::2, 0, unit]
            growth.semilogx(run.ts[1::2], simulated, "o", color=colour, mfc="white", ms=4)
        growth.plot([], [], color="0.3", label="theory")
        growth.plot([], [], "o", color="0.3", mfc="white", ms=4, label="simulation")
        growth.set(xlabel="time $t$", ylabel="logits $z$ of one input")
        growth.legend(fontsize=8)
        entropy.semilogx(fine, theory.entropy, color="tab:blue", label="theory")
        entropy.semilogx(run.ts[1::2], trajectory.observed.entropy[1::2], "o", color="tab:blue", mfc="white", ms=4)
        entropy.set(xlabel="time $t$", ylabel="entropy of four decisions, bits", ylim=(0, 4.1))
        inset = entropy.inset_axes((0.66, 0.62, 0.32, 0.34))
        z = jnp.linspace(-8, 8, 101)
        inset.plot(z, decision_entropy(z), color="0.3", lw=1)
        inset.set_xlabel("$z$", fontsize=8, labelpad=1)
        inset.set_title("$H(z)$", fontsize=8)
        inset.tick_params(labelsize=7)
