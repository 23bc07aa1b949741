"""Regression in one dimension from small weights: the loss rests, and sixteen units end in a few kinks."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...analysis import plateaus
from ...core import Kind, Trajectory
from ...deep_linear import RegressionTask
from ...rules import GradientDescent
from ...training import train
from ...two_layer import TwoLayerNetwork, count_kinks
from .._system import AbstractSystem, Citation, Signature

_END = 500.0


class KinkPlateausSystem(AbstractSystem):
    """Sixteen rectifiers with biases, a target of three kinks on 41 points."""

    name: ClassVar[str] = "kink_plateaus"
    family: ClassVar[str] = "two_layer"
    kind: ClassVar[Kind] = "phenomenon"
    summary: ClassVar[str] = "regression in one dimension learns in stages, and ends with few kinks"
    citation: ClassVar[Citation] = Citation("Zhang, Saxe, Latham", 2025, "2512.20607")
    claim: ClassVar[Signature] = Signature(3.0, "plateaus of the loss, if at most eight kinks remain")

    def measure(self) -> float:
        """The fewest plateaus of two runs; none for a run whose units do not come to share kinks."""
        ts = jnp.linspace(0.0, _END, 251)
        counts = []
        for seed in (0, 1):
            loss, kinks, _ = self.run(seed, ts).observed
            rests = plateaus(ts, loss, rate=1e-3, duration=15.0).level.size
            counts.append(rests if kinks[-1] <= 8 else 0)
        return float(min(counts))

    def run(self, seed: int, ts: Float[Array, " times"]) -> Trajectory:
        """Loss, number of kinks and fit along a run from weights of scale 1e-4."""
        rng = np.random.default_rng(seed)
        weights = 1e-4 * rng.normal(size=(16, 2)) / 4
        readout = np.linalg.norm(weights, axis=1) * rng.choice([-1, 1], 16)
        model = TwoLayerNetwork(weights[:, :1], readout, bias=weights[:, 1])
        task = self.task()
        return train(model, task, GradientDescent(0.02), ts, observe=(task.loss, _count, _fit))

    def task(self) -> RegressionTask:
        """A zigzag."""
        x = np.linspace(-2.0, 2.0, 41)
        return RegressionTask(x[:, None], np.interp(x, [-2, -1, 0, 1, 2], [-2, 1, -1, 1, -2]))

    def draw(self, figure: Any) -> None:
        """The loss and the kinks of a run; the function at its plateaus."""
        import matplotlib

        left, right = figure.subplots(1, 2)
        ts = jnp.linspace(0.0, _END, 501)
        loss, counts, fits = self.run(0, ts).observed
        left.plot(ts, loss, color="C0")
        rests = plateaus(ts, loss, rate=1e-3, duration=15.0)
        for start, end, level in zip(*rests, strict=True):
            left.plot([start, end], [level, level], color="0.6", lw=5, alpha=0.5, zorder=0)
        left.plot([], [], color="0.6", lw=5, alpha=0.5, label="plateaus")
        left.set(xlabel="time $t$", ylabel="loss", title="Sixteen units, scale $10^{-4}$", ylim=(0, 0.47))
        left.legend(fontsize=8, loc="upper center")
        steps = left.twinx()
        steps.plot(ts, counts, color="tab:red", lw=1.2, drawstyle="steps-mid")
        steps.set_ylabel("kinks within the data", color="tab:red")
        steps.set(yticks=range(5), ylim=(-0.1, 9.4))
        task = self.task()
        inputs = task.inputs[:, 0]
        right.plot(inputs, task.targets, "o", color="0.3", mfc="white", ms=4, label="data")
        middles = np.searchsorted(ts, (rests.start + rests.end) / 2)
        colours = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.85, len(middles)))
        for colour, k in zip(colours, middles, strict=True):
            right.plot(inputs, fits[k], color=colour, label=f"$t = {float(ts[k]):.0f}$")
        right.set(xlabel="input", ylabel="output", title="Fits at the plateaus", ylim=(-2.2, 2.6))
        right.legend(fontsize=8, ncols=3, loc="upper center")


def _count(model: TwoLayerNetwork) -> Array:
    return count_kinks(model, -2.0, 2.0, apart=0.1, floor=0.05)


def _fit(model: TwoLayerNetwork) -> Float[Array, " points"]:
    return jax.vmap(model)(jnp.linspace(-2.0, 2.0, 41)[:, None])[:, 0]
