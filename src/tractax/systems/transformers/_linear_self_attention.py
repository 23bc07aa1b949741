"""Linear self-attention learns regression in context; what it learned tolerates some shifts and not others."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...core import Kind
from ...plotting import overlay
from ...rules import GradientFlow
from ...transformers import InContextRegression, LinearAttentionFlow, balanced_attention
from .._system import AbstractRunSystem, Citation, Run, Tolerance

_SCALES = (0.5, 1.0, 2.0, 4.0)


class LinearSelfAttentionSystem(AbstractRunSystem):
    """One head, three correlated inputs, forty examples in a prompt; all weights of the layer are trained."""

    name: ClassVar[str] = "linear_self_attention"
    family: ClassVar[str] = "transformers"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "a layer of linear attention learns regression in context; its risk under every shift"
    citation: ClassVar[Citation] = Citation("Zhang, Frei, Bartlett", 2023, "2306.09927")
    claim: ClassVar[Tolerance] = Tolerance(1e-8)

    def run(self) -> Run:
        """From small balanced weights to the minimum."""
        covariance = jnp.asarray([[1.5, 0.4, 0.0], [0.4, 0.8, -0.2], [0.0, -0.2, 0.4]])
        task = InContextRegression(covariance, length=40)
        model = balanced_attention(3, scale=0.1, key=jax.random.key(0))
        rule = GradientFlow()
        solution = LinearAttentionFlow.from_model(model, task, rule, t1=100.0)
        return Run(model, task, rule, solution, jnp.logspace(-1.0, 2.0, 61))

    def draw(self, figure: Any) -> None:
        """The effective map over time, and the risk of the trained network on prompts of other length and scale."""
        run = self.run()
        trajectory = run.simulate()
        left, right = figure.subplots(1, 2)
        predicted = _entries(jax.vmap(run.solution.effective_map)(run.ts))
        simulated = _entries(trajectory.observed.effective_map)
        overlay(left, run.ts, predicted, simulated, ("$A_{11}$", "$A_{22}$", "$A_{33}$", "$A_{12}$"))
        left.set(xlabel="time $t/\\tau$", ylabel="effective map $A$", title="Training", xscale="log")
        final, network = run.solution.limit().effective_map, trajectory.model
        lengths, sampled = np.unique(np.geomspace(1, 3000, 30).astype(int)).tolist(), [2, 10, 40, 200]
        for i, scale in enumerate(_SCALES):
            tasks = {m: InContextRegression(scale * run.task.covariance, length=m) for m in lengths + sampled}
            power = jnp.trace(scale * run.task.covariance)
            theory = [tasks[m].risk_of_map(final) / power for m in lengths]
            right.plot(lengths, theory, color=f"C{i}", label=f"${scale:g}\\,\\Lambda$")
            for m in sampled:
                batch = tasks[m].sample(jax.random.key(m), 20_000)
                risk = 2 * tasks[m].batch_loss(network, batch) / power
                right.plot(m, risk, "o", color=f"C{i}", mfc="white", ms=4)
        right.axvline(run.task.length, color="0.7", ls=":", lw=1)
        right.set(xlabel="examples in the prompt", ylabel="risk / risk of zero", title="Covariate shift")
        right.set(xscale="log", yscale="log")
        right.legend(fontsize=8, title="covariance at test")


def _entries(maps: Float[Array, "times inputs inputs"]) -> Float[Array, "times 4"]:
    return jnp.stack([maps[:, 0, 0], maps[:, 1, 1], maps[:, 2, 2], maps[:, 0, 1]], axis=1)
