"""Attention chooses between tokens: gaps grow logarithmically, and the query turns to the largest margin."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ...core import Kind
from ...plotting import overlay
from ...rules import GradientFlow
from ...training import train
from ...transformers import AttentionPooling, TokenSelection, TwoTokenAttention, selection_margin
from .._system import AbstractRunSystem, Citation, Run, Tolerance


class TwoTokenAttentionSystem(AbstractRunSystem):
    """Three examples of two tokens, in two of which the query first prefers the wrong one."""

    name: ClassVar[str] = "two_token_attention"
    family: ClassVar[str] = "transformers"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "softmax attention chooses between tokens: logarithmic growth towards the largest margin"
    citation: ClassVar[Citation] = Citation("Tarzanagh, Li, Zhang, Oymak", 2023, "2306.13596")
    claim: ClassVar[Tolerance] = Tolerance(1e-8)

    def run(self) -> Run:
        """Differences in a rotated basis, of three lengths."""
        basis, _ = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (3, 3)))
        half = jnp.asarray([2.0, 1.0, 0.7])[:, None] * basis / 2
        task = TokenSelection(jnp.stack([half, -half], axis=1), jnp.asarray([[1.0, 0.0], [0.2, 0.5], [1.0, 0.0]]))
        model = AttentionPooling(jnp.asarray([1.0, 2.0, -3.0]) @ basis)
        rule = GradientFlow()
        return Run(model, task, rule, TwoTokenAttention.from_model(model, task, rule), jnp.logspace(-1.0, 4.0, 61))

    def draw(self, figure: Any) -> None:
        """Gaps over time; the distance to the direction of largest margin, for two and for more tokens."""
        left, right = figure.subplots(1, 2)
        run = self.run()
        predicted, found = jax.vmap(run.solution.evaluate)(run.ts).gaps, run.simulate().observed.gaps
        overlay(left, run.ts, predicted, found, [f"example {i + 1}" for i in range(3)])
        left.set(xlabel="time $t/\\tau$", ylabel="gap between the logits", xscale="log", title="Two tokens")
        ts = jnp.logspace(1.0, 8.0, 50)
        exact = jax.vmap(lambda t: run.solution.evaluate(t).query)(ts)
        right.plot(ts, _distance(exact, run.solution.final_direction()), color="C0", label="two tokens, exact")
        for i, tokens in enumerate((4, 8)):
            task, model = several_case(tokens)
            queries = train(model, task, GradientFlow(), ts, observe=lambda network: network.query).observed
            distance = _distance(queries, selection_margin(task).direction)
            label = f"{tokens} tokens, simulated"
            right.plot(ts[::2], distance[::2], "o", color=f"C{i + 1}", mfc="white", ms=4, label=label)
        right.plot(ts, 2 / jnp.log(ts), color="0.5", lw=1, ls=":", label="$\\propto 1/\\ln t$")
        right.set(xlabel="time $t/\\tau$", ylabel="distance to the largest margin", xscale="log", yscale="log")
        right.set_title("Direction of the query")
        right.legend(fontsize=8)


def several_case(tokens: int) -> tuple[TokenSelection, AttentionPooling]:
    """Random tokens around a best one, that all others differ from in a common direction too."""
    others = jax.random.normal(jax.random.key(tokens), (tokens - 1, 3)) - jnp.asarray([[2.0, 0.0, 0.0]])
    scores = jnp.concatenate([jnp.ones(1), jnp.linspace(0.0, 0.5, tokens - 1)])
    return TokenSelection(jnp.concatenate([jnp.zeros((1, 3)), others]), scores), AttentionPooling(jnp.zeros(3))


def _distance(queries: jax.Array, direction: jax.Array) -> jax.Array:
    """Between unit vectors."""
    units = queries / jnp.linalg.norm(queries, axis=1, keepdims=True)
    return jnp.linalg.norm(units - direction[None, :], axis=1)
