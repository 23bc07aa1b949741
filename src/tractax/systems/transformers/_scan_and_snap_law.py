"""Scan and snap in closed form: two phases of attention, and how the winner grows."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ...analysis import Scaling, scaling
from ...core import Kind
from ...rules import GradientFlow
from ...training import train
from ...transformers import NextTokenTask, ScanAndSnap, ScanAndSnapLaw, TokenAttention, winner_bounds
from .._system import AbstractSystem, Citation, Exponent


class ScanAndSnapLawSystem(AbstractSystem):
    """Three classes with two shared tokens and four of their own, and a decoder that is faster than attention."""

    name: ClassVar[str] = "scan_and_snap_law"
    family: ClassVar[str] = "transformers"
    kind: ClassVar[Kind] = "asymptotic"
    summary: ClassVar[str] = "a decoder faster than attention: quadratic scanning, logarithmic snapping, in closed form"
    citation: ClassVar[Citation] = Citation("Tian, Wang, Chen, Du", 2023, "2305.16380")
    claim: ClassVar[Exponent] = Exponent(1.0, "exponent in the ratio of rates of the error of the logits")

    def measure(self) -> Scaling:
        """The logits of attention against those of the trained network."""
        task, model = alike_case()
        ts = jnp.asarray([3.0, 30.0, 100.0])

        def error(ratio: float) -> Float[Array, ""]:
            rule = GradientFlow(rates=jnp.asarray([1.0, ratio]))
            law = ScanAndSnapLaw.from_model(model, task, rule)
            found = train(model, task, rule, ts, observe=law.reduce).observed.logits
            return jnp.linalg.norm(jax.vmap(law.evaluate)(ts).logits - found) / jnp.linalg.norm(found)

        return scaling(error, (0.1, 0.03, 0.01, 0.003, 0.001), correction=1.0)

    def draw(self, figure: Any) -> None:
        """The logit of the winner over time, and how much it falls short of its lower bound."""
        left, right = figure.subplots(1, 2)
        task, model = alike_case()
        ts, winner = jnp.logspace(-1.0, 4.0, 61), 2
        law = ScanAndSnapLaw.from_model(model, task)
        left.plot(ts, jax.vmap(law.evaluate)(ts).logits[:, winner], color="0.1", label="law")
        for i, ratio in enumerate((1.0, 0.1, 0.01)):
            rule = GradientFlow(rates=jnp.asarray([1.0, ratio]))
            found = train(model, task, rule, ts, observe=law.reduce).observed.logits[:, winner] / ratio
            left.plot(ts[i::6], found[i::6], "o", color=f"C{i}", mfc="white", ms=4, label=f"$\\varepsilon = {ratio:g}$")
        left.axvline(float(law.snap_time), color="0.7", ls=":", lw=1)
        left.set(
            xlabel="time $\\eta_Yt/\\tau$", ylabel="logit of the winner / $\\varepsilon$", xscale="log", yscale="log"
        )
        left.set_title("Scanning $\\propto t^2$, snapping $\\propto \\ln^2t$")
        left.legend(fontsize=8)
        ratios = jnp.logspace(-3.0, 0.0, 7)
        for i, share in enumerate((0.05, 0.1, 0.2)):
            short = jnp.asarray([shortfall(share, ratio) for ratio in ratios])
            right.plot(ratios, short, "o", color=f"C{i}", mfc="white", ms=4, label=f"{share:g} of tokens shared")
        right.plot(ratios, 0.4 * ratios, color="0.5", lw=1, label="$\\propto\\varepsilon$")
        right.set(xlabel="ratio of rates $\\varepsilon = \\eta_Z/\\eta_Y$", xscale="log", yscale="log")
        right.set(ylabel="short of the lower bound by", title="The lower bound holds up to $O(\\varepsilon)$")
        right.legend(fontsize=8)


def alike_case() -> tuple[NextTokenTask, TokenAttention]:
    """Zero weights; the third token is the most frequent one of the first class's own."""
    task = NextTokenTask.symmetric(jnp.asarray([0.2, 0.15]), jnp.asarray([0.3, 0.2, 0.1, 0.05]), 3)
    return task, TokenAttention.zeros(task.tokens, 3, 3)


def shortfall(share: float, ratio: ArrayLike) -> Float[Array, ""]:
    """The fraction by which the growth of the winner misses its lower bound late, where shared tokens are rare."""
    task = NextTokenTask.symmetric(jnp.asarray([share]), (1 - share) * jnp.asarray([0.6, 0.4]), 3)
    rule = GradientFlow(rates=jnp.stack([jnp.ones(()), jnp.asarray(ratio, float)]))
    solution = ScanAndSnap.from_model(TokenAttention.zeros(task.tokens, 3, 3), task, rule, t1=500.0)
    bounds = winner_bounds(solution, jnp.asarray([500.0]))
    return 1 - bounds.growth[0] / bounds.lower[0]
