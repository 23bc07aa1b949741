"""Softmax collapse: single precision ends the training of a network that has fitted its labels."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float

from ...analysis import collapse_gap
from ...core import Kind
from ...rules import GradientDescent, perp_grad
from ...special import log_stablemax
from ...training import train
from ...two_layer import TwoLayerNetwork, residue_sums
from .._system import AbstractSystem, Citation, Signature

_P = 7


class SoftmaxCollapseSystem(AbstractSystem):
    """Rectifiers in single precision that add residues modulo 7, by descent with steps of a fixed length."""

    name: ClassVar[str] = "softmax_collapse"
    family: ClassVar[str] = "two_layer"
    kind: ClassVar[Kind] = "phenomenon"
    summary: ClassVar[str] = "rounding ends training on fitted labels, but not with StableMax or orthogonal gradients"
    citation: ClassVar[Citation] = Citation("Prieto, Barsbey, Mediano, Birdal", 2025, "2501.04697")
    claim: ClassVar[Signature] = Signature(0.5, "most examples of zero loss, softmax above both remedies")

    def measure(self) -> Float[Array, ""]:
        """The largest fraction of collapsed examples with softmax, less the largest one with either remedy."""
        ts = jnp.arange(0.0, 1401.0, 100.0)
        plain, *remedies = (jnp.max(run(ts)["collapse"]) for run in (self.softmax, self.stablemax, self.orthogonal))
        return plain - jnp.max(jnp.stack(remedies))

    def softmax(self, ts: Float[Array, " times"]) -> dict[str, Array]:
        """Loss, accuracy and collapse with softmax."""
        return _run(ts, "softmax", descent)

    def stablemax(self, ts: Float[Array, " times"]) -> dict[str, Array]:
        """The same with StableMax."""
        return _run(ts, "stablemax", descent)

    def orthogonal(self, ts: Float[Array, " times"]) -> dict[str, Array]:
        """The same with softmax and orthogonal gradients."""
        return _run(ts, "softmax", lambda rate: optax.chain(perp_grad(), descent(rate)))

    def draw(self, figure: Any) -> None:
        """The computed loss against the lead of the right answer; collapse in the course of training."""
        import matplotlib

        colours = matplotlib.colormaps["viridis"]([0.1, 0.5, 0.8])
        left, right = figure.subplots(1, 2)
        gaps = np.linspace(0.0, 24.0, 49)
        logits = jnp.stack([jnp.asarray(gaps, jnp.float32), jnp.zeros(49, jnp.float32)], axis=1)
        left.semilogy(gaps, np.log1p(np.exp(-gaps)), color=colours[0], label="softmax, exact")
        computed = -np.asarray(jax.nn.log_softmax(logits, axis=1)[:, 0])
        left.semilogy(gaps[computed > 0], computed[computed > 0], "o", color=colours[0], mfc="white", ms=4)
        left.semilogy(gaps, np.log1p(1 / (1 + gaps)), color=colours[1], label="StableMax, exact")
        left.semilogy(gaps, -log_stablemax(logits)[:, 0], "o", color=colours[1], mfc="white", ms=4)
        left.axvline(collapse_gap(jnp.float32), color="0.4", ls=":", lw=1.2)
        left.text(collapse_gap(jnp.float32) + 0.4, 1e-4, "$24\\ln2$:\nexactly zero\nbeyond", color="0.4", fontsize=8)
        left.plot([], [], "o", color="0.3", mfc="white", ms=4, label="in float32")
        left.set(xlabel="lead of the right score", ylabel="loss", title="Two classes")
        left.legend(fontsize=8, loc="lower left")
        ts = jnp.arange(0.0, 2001.0, 20.0)
        names = ("softmax", "StableMax", "softmax, orthogonal gradients")
        runs = (self.softmax, self.stablemax, self.orthogonal)
        for colour, name, style, run in zip(colours, names, ("-", "-", "--"), runs, strict=True):
            right.plot(ts, run(ts)["collapse"], color=colour, ls=style, label=name)
        right.set(xlabel="step", ylabel="fraction of examples with zero loss", ylim=(-0.03, 1.35))
        right.set_xticks([0, 500, 1000, 1500, 2000])
        right.set_title("Sums modulo 7, float32")
        right.legend(fontsize=8, loc="upper left")


def descent(rate: ArrayLike) -> optax.GradientTransformation:
    """Steps of one length, however small the gradient."""
    return optax.chain(optax.normalize_by_update_norm(eps=1e-30), optax.sgd(rate))


def _run(ts: Float[Array, " times"], probabilities: str, optimiser: Any) -> dict[str, Array]:
    """Loss, accuracy and collapse along a run in single precision."""
    rng = np.random.default_rng(0)
    task = residue_sums(_P, probabilities, dtype=jnp.float32)
    first = (0.4 * rng.normal(size=(24, 2 * _P))).astype(np.float32)
    second = (rng.normal(size=(_P, 24)) / 24**0.5).astype(np.float32)
    rule = GradientDescent(jnp.float32(0.05), optimiser, time_per_step=1.0)
    observe = {"loss": task.loss, "accuracy": task.accuracy, "collapse": task.collapse}
    return train(TwoLayerNetwork(first, second), task, rule, ts, observe=observe).observed
