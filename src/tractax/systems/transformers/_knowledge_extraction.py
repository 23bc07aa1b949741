"""Fine-tuning on a few questions: whether facts that were only stated can be asked for depends on how often they were."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...core import Kind
from ...transformers import Extraction, Facts, RecallTransformer, extract_facts, learn_facts
from .._system import AbstractSystem, Citation, Signature


class KnowledgeExtractionSystem(AbstractSystem):
    """Forty subjects, three relations with six templates each, ten answers; 128 hidden units, 1000 steps."""

    name: ClassVar[str] = "knowledge_extraction"
    family: ClassVar[str] = "transformers"
    kind: ClassVar[Kind] = "phenomenon"
    summary: ClassVar[str] = "facts stated in many templates can be asked for after fine-tuning on a few questions"
    citation: ClassVar[Citation] = Citation("Xu, Chen", 2025, "2508.00901")
    claim: ClassVar[Signature] = Signature(0.3, "gain in held-out accuracy from one template to six")

    def measure(self) -> Float[Array, ""]:
        """The gain after questions about a fifth of the subjects, mean of two runs; NaN unless accuracy grows with
        multiplicity and with the fraction asked about, and the questions asked about are always learned."""
        scores, tuned = [], []
        for multiplicity in (1, 3, 6):
            runs = _Runs(multiplicity, seeds=2)
            ends = [runs.extract(fraction) for fraction in (0.2, 0.8)]
            scores.append([jnp.mean(end.after) for end in ends])
            tuned += [jnp.min(end.tuned) for end in ends]
        after = jnp.asarray(scores)
        grows = jnp.all(jnp.diff(after, axis=0) >= 0) & jnp.all(jnp.diff(after, axis=1) >= 0)
        learned = jnp.min(jnp.stack(tuned)) == 1
        return jnp.where(grows & learned, after[-1, 0] - after[0, 0], jnp.nan)

    def draw(self, figure: Any) -> None:
        """Held-out accuracy against the multiplicity, and against the fraction of subjects asked about."""
        import matplotlib

        left, right = figure.subplots(1, 2, sharey=True)
        multiplicities, fractions = (1, 2, 3, 4, 6), (0.05, 0.1, 0.2, 0.4, 0.8)
        runs = {k: _Runs(k, seeds=3) for k in multiplicities}
        ends = {(k, b): runs[k].extract(b) for k in multiplicities for b in fractions}
        colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, 3))
        before = [ends[k, 0.2].before for k in multiplicities]
        _curve(left, multiplicities, before, "0.6", "before fine-tuning")
        for colour, b in zip(colours, (0.05, 0.2, 0.8), strict=True):
            _curve(left, multiplicities, [ends[k, b].after for k in multiplicities], colour, f"$b = {b:g}$")
        left.set(xlabel="templates for each fact $K$", ylabel="accuracy on other subjects", ylim=(0, 1.05))
        left.legend(fontsize=8, loc="lower right")
        for colour, k in zip(colours, (1, 3, 6), strict=True):
            _curve(right, fractions, [ends[k, b].after for b in fractions], colour, f"$K = {k}$")
        right.set(xlabel="fraction of subjects asked about $b$", xscale="log")
        right.set_xticks(fractions, [f"{b:g}" for b in fractions])
        right.minorticks_off()
        right.legend(fontsize=8, loc="lower right")


class _Runs:
    """Networks that have learned facts of their own, each stated in the same number of templates."""

    facts: Facts
    models: RecallTransformer

    def __init__(self, multiplicity: int, *, seeds: int):
        keys = jax.random.split(jax.random.key(0), seeds)
        self.facts = eqx.filter_vmap(lambda key: Facts.draw(key=key))(keys)
        self.models = eqx.filter_vmap(lambda facts, key: learn_facts(facts, multiplicity, key=key))(self.facts, keys)

    def extract(self, fraction: float) -> Extraction:
        """Each fine-tuned on the questions about this fraction of the subjects."""
        return eqx.filter_vmap(lambda model, facts: extract_facts(model, facts, fraction))(self.models, self.facts)


def _curve(axes: Any, x: Any, runs: list[Float[Array, " seeds"]], colour: Any, label: str) -> None:
    """The mean of the runs as a line, single ones as markers."""
    scores = np.asarray(jnp.stack(runs))
    axes.plot(x, scores.mean(axis=1), color=colour, label=label)
    axes.plot(x, scores, "o", color=colour, mfc="white", ms=4)
