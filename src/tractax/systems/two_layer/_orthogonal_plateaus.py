"""From small weights on orthogonal inputs: long plateaus at the saddles of narrower networks, one after the other."""

from typing import Any, ClassVar

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...analysis import plateaus
from ...core import Kind
from ...deep_linear import RegressionTask
from ...rules import GradientFlow
from ...training import train
from ...two_layer import OrthogonalSaddles, TwoLayerNetwork, balanced_units, effective_width
from .._system import AbstractSystem, Citation, Signature

_END = 120.0


class OrthogonalPlateausSystem(AbstractSystem):
    """Four orthogonal examples, 24 rectifiers of scale 1e-10."""

    name: ClassVar[str] = "orthogonal_plateaus"
    family: ClassVar[str] = "two_layer"
    kind: ClassVar[Kind] = "phenomenon"
    summary: ClassVar[str] = "from small weights the loss rests at saddles of zero, one and two directions"
    citation: ClassVar[Citation] = Citation("Zhang, Saxe, Latham", 2025, "2512.20607")
    claim: ClassVar[Signature] = Signature(1.5, "shortest plateau over longest passage, at predicted losses and widths")

    def measure(self) -> float:
        """How much longer the loss rests than it falls; zero if levels or effective widths are not the predicted ones."""
        ts = jnp.linspace(0.0, _END, 1201)
        loss, widths = self.run(1e-10, ts)
        rests = plateaus(ts, loss, rate=5e-3, duration=3.0)
        predicted = np.asarray(OrthogonalSaddles.from_task(self.task()).plateau_losses)
        middles = np.searchsorted(ts, (rests.start + rests.end) / 2)
        if widths[middles].tolist() != [0, 1, 2] or np.max(np.abs(rests.level - predicted)) > 0.01 * predicted[0]:
            return 0.0
        return float(np.min(rests.end - rests.start) / np.max(rests.start[1:] - rests.end[:-1]))

    def task(self) -> RegressionTask:
        """Two positive targets, and two smaller negative ones."""
        return RegressionTask(2**0.5 * jnp.eye(4), jnp.asarray([1.5, 0.8, -0.6, -0.4]))

    def run(self, scale: float, ts: Float[Array, " times"]) -> tuple[Array, Array]:
        """Loss and effective width along the flow of the whole network, from weights of this scale."""
        task, model = self.task(), balanced_units(4, 24, scale=scale, key=jax.random.key(2))
        tight = {"solver": diffrax.Tsit5(), "stepsize_controller": diffrax.PIDController(rtol=1e-7, atol=1e-8 * scale)}
        return train(model, task, GradientFlow(), ts, observe=(task.loss, _width), **tight).observed

    def draw(self, figure: Any) -> None:
        """Loss and effective width from three scales."""
        import matplotlib

        left, right = figure.subplots(1, 2, sharex=True)
        ts = jnp.linspace(0.0, _END, 601)
        colours = matplotlib.colormaps["viridis"]([0.1, 0.5, 0.8])
        for level in OrthogonalSaddles.from_task(self.task()).plateau_losses:
            left.axhline(float(level), color="0.7", ls=":", lw=1, zorder=0)
        for colour, exponent in zip(colours, (2, 6, 10), strict=True):
            loss, widths = self.run(10.0**-exponent, ts)
            left.plot(ts, loss, color=colour, label=f"scale $10^{{-{exponent}}}$")
            right.plot(ts, widths, color=colour, drawstyle="steps-mid")
        left.plot([], [], color="0.7", ls=":", lw=1, label="saddles, predicted")
        left.set(xlabel="time $t/\\tau$", ylabel="loss", title="Longer plateaus from smaller weights")
        left.legend(fontsize=8)
        right.set(xlabel="time $t/\\tau$", ylabel="effective width", title="One direction more a plateau")
        right.set_yticks(range(4))


def _width(model: TwoLayerNetwork) -> Array:
    return effective_width(model, angle=0.1, floor=0.2)
