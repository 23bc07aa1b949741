"""Attention over tokens scans for those that tell the next one, and snaps."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ...core import Kind
from ...plotting import overlay
from ...rules import GradientFlow
from ...training import train
from ...transformers import NextTokenTask, ScanAndSnap, TokenAttention
from .._system import AbstractRunSystem, Citation, Run, Tolerance


class ScanAndSnapSystem(AbstractRunSystem):
    """Two classes with ten shared tokens, and ten of their own from rare to frequent; decoder and attention trained."""

    name: ClassVar[str] = "scan_and_snap"
    family: ClassVar[str] = "transformers"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "softmax attention over tokens: what classes share loses, what is distinct and frequent wins"
    citation: ClassVar[Citation] = Citation("Tian, Wang, Chen, Du", 2023, "2305.16380")
    claim: ClassVar[Tolerance] = Tolerance(1e-8)

    def run(self) -> Run:
        """From zero weights, with equal rates."""
        return headline_run(1.0)

    def draw(self, figure: Any) -> None:
        """Attention over time, and its entropy for several ratios of the rates."""
        left, right = figure.subplots(1, 2)
        run = self.run()
        logits = run.simulate().observed.logits
        tokens = {"a shared token": 0, "rarest own": 10, "middle own": 14, "most frequent own": 19}
        shown = jnp.asarray(list(tokens.values()))
        predicted = jax.vmap(run.solution.attention)(run.ts)[:, shown]
        overlay(left, run.ts, predicted, jax.vmap(run.solution.alike.attention)(logits)[:, shown], list(tokens))
        left.set(xlabel="time $\\eta_Zt/\\tau$", ylabel="attention", title="Scan, then snap", xscale="log")
        ratios, theory, simulated = (0.5, 2.0, 10.0, 50.0), [], []
        for ratio in ratios:
            run = headline_run(ratio)
            maps = train(run.model, run.task, run.rule, run.ts, observe=run.task.attention_map).observed
            theory.append(jax.vmap(run.solution.entropy)(run.ts))
            simulated.append(jnp.sum(jax.scipy.special.entr(maps[:, 0]), axis=1))
        labels = [f"$\\eta_Y/\\eta_Z = {ratio:g}$" for ratio in ratios]
        overlay(right, run.ts, jnp.stack(theory, axis=1), jnp.stack(simulated, axis=1), labels)
        right.set(xlabel="time $\\eta_Zt/\\tau$", ylabel="entropy of attention", xscale="log")
        right.set_title("A fast decoder leaves attention flat")


def headline_run(ratio: float) -> Run:
    r"""The rates $\eta_Y$ = `ratio` and $\eta_Z = 1$."""
    task = NextTokenTask.symmetric(jnp.ones(10), jnp.linspace(0.1, 1.0, 10), 2)
    model = TokenAttention.zeros(task.tokens, 2, 2)
    rule = GradientFlow(rates=jnp.asarray([ratio, 1.0]))
    solution = ScanAndSnap.from_model(model, task, rule, t1=1000.0)
    return Run(model, task, rule, solution, jnp.logspace(-1.0, 3.0, 61))
