"""Lion with weight decay drives all parameters into a box."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...core import Kind
from ...deep_linear import DeepLinear, RegressionTask
from ...rules import LionBox, LionK
from ...training import train
from .._system import AbstractSystem, Citation, Tolerance

_RATE = 0.01
_INPUTS = 25


class LionBoxSystem(AbstractSystem):
    """A single layer and one example for each of its inputs, so that the loss is separable."""

    name: ClassVar[str] = "lion_box"
    family: ClassVar[str] = "rules"
    kind: ClassVar[Kind] = "bound"
    summary: ClassVar[str] = (
        "Lion with weight decay λ enters the box |θ| ≤ 1/λ exponentially, and clips the minimum to it"
    )
    citation: ClassVar[Citation] = Citation("Chen, Liu, Liang, Liu", 2023, "2310.05898")
    claim: ClassVar[Tolerance] = Tolerance(1e-12, "relative violation of the bound")

    def regression(self) -> tuple[DeepLinear, RegressionTask]:
        """Large weights, and a minimum on a grid."""
        start = 6 * jnp.cos(2.0 * jnp.arange(_INPUTS))
        inputs = _INPUTS**0.5 * jnp.eye(_INPUTS)
        return DeepLinear((start[None, :],)), RegressionTask(inputs, inputs @ self.minimum()[:, None])

    def minimum(self) -> Float[Array, " inputs"]:
        """The weights of least loss."""
        return jnp.linspace(-3.0, 3.0, _INPUTS)

    def run(self, weight_decay: Any, ts: Float[Array, " times"]) -> tuple[Array, Array]:
        """How far out of the box Lion is, and its weights."""
        model, task = self.regression()
        observe = {"excess": LionBox(weight_decay).excess, "weights": _weights}
        seen = train(model, task, LionK(_RATE, weight_decay=weight_decay), ts, observe=observe).observed
        return seen["excess"], seen["weights"]

    def measure(self) -> Float[Array, ""]:
        """The largest excess beyond the bound, over steps and decays, in units of the first one."""
        ts = _RATE * jnp.arange(0.0, 1001.0, 20.0)

        def violation(weight_decay: Array) -> Array:
            excess, _ = self.run(weight_decay, ts)
            return jnp.max(excess - LionBox(weight_decay, _RATE).bound(ts, excess[0])) / excess[0]

        return jnp.max(jax.vmap(violation)(jnp.asarray([0.3, 0.5, 1.0])))

    def draw(self, figure: Any) -> None:
        """The way into the box, and where the weights end."""
        import matplotlib

        decays = (0.3, 0.5, 1.0)
        colours = matplotlib.colormaps["viridis"]([0.0, 0.4, 0.8])
        entering, ends = figure.subplots(1, 2)
        ts = _RATE * jnp.arange(0.0, 3001.0, 40.0)
        fine = jnp.linspace(-3.2, 3.2, 201)
        for decay, colour in zip(decays, colours, strict=True):
            excess, weights = self.run(decay, ts)
            bound = LionBox(decay, _RATE).bound(ts, excess[0])
            entering.semilogy(ts, bound, color=colour, label=rf"$\lambda = {decay:g}$")
            entering.semilogy(ts, jnp.where(excess > 0, excess, jnp.nan), "o", color=colour, mfc="white", ms=5)
            ends.plot(fine, LionBox(decay).clip(fine), color=colour)
            ends.plot(self.minimum(), weights[-1], "o", color=colour, mfc="white", ms=5)
        entering.plot([], [], "o", color="0.3", mfc="white", ms=5, label="Lion, largest weight")
        entering.set(
            xlabel="time",
            ylabel=r"$\max_i\,(|\theta_i| - 1/\lambda)_+$",
            title="the way into the box",
            xlim=(-0.5, 12.2),
            ylim=(4e-6, 20),
        )
        entering.legend(fontsize=8)
        ends.plot([], [], color="0.3", label="clipped minimum")
        ends.plot([], [], "o", color="0.3", mfc="white", ms=5, label="Lion at the end")
        ends.set(xlabel="minimum without decay", ylabel="weight", title="where the weights end")
        ends.legend(fontsize=8, loc="upper left")


def _weights(model: DeepLinear) -> Array:
    return model.weights[0][0]
