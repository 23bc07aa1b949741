"""The norm of normalised weights as a moving average of squared gradients, and how fast they turn."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...analysis import Scaling, scaling
from ...core import Kind
from ...plotting import overlay
from ...rules import GradientDescent, NormalisedNetwork, angle_between, equilibrium_angle, norm_from_gradients
from ...training import train
from .._system import AbstractSystem, Citation, Exponent
from ._noether_charges import descent, noisy_classes

_TIME, _RATES = 20.0, (0.2, 0.1, 0.05, 0.025)


class NormalisedWeightsSystem(AbstractSystem):
    """The filters of a normalised layer, with weight decay."""

    name: ClassVar[str] = "normalised_weights"
    family: ClassVar[str] = "rules"
    kind: ClassVar[Kind] = "asymptotic"
    summary: ClassVar[str] = "the norm of normalised weights is a moving average of gradients, as in RMSProp"
    citation: ClassVar[Citation] = Citation("Tanaka, Kunin", 2021, "2105.02716")
    claim: ClassVar[Exponent] = Exponent(1.0, "exponent in the learning rate")

    def filters(self, rule: GradientDescent, steps: int, examples: int = 8) -> Float[Array, "steps filters in"]:
        """The weights before every step."""
        model, task = noisy_classes(examples, scale=0.8)
        ts = rule.time_per_step * jnp.arange(0.0, steps)
        return train(model, task, rule, ts, observe=_first, key=jax.random.key(1)).observed

    def norms(self, filters: Array, rate: float, decay: float) -> tuple[Array, Array]:
        """The squared norm of every filter before each step but the last, and what the gradients met predict."""
        square = jnp.sum(filters[:-1] ** 2, axis=-1)
        # The gradient of whatever batch it was, from what the step did.
        gradients = ((1 - rate * decay) * filters[:-1] - filters[1:]) / rate
        ts = rate * jnp.arange(0.0, square.shape[0])
        return square, _predicted(ts, square * jnp.sum(gradients**2, axis=-1), square[0], rate, decay)

    def measure(self) -> Scaling:
        """How the error of the moving average falls with the learning rate, on the full loss."""

        # As many steps at every learning rate, so that one compiled program serves all.
        steps = round(_TIME / _RATES[-1]) + 2

        def error(rate: float) -> Array:
            square, predicted = self.norms(self.filters(descent(rate, 0.1), steps), rate, 0.1)
            return jnp.max(jnp.abs(predicted / square - 1)[: round(_TIME / rate) + 1])

        return scaling(error, _RATES, correction=1.0)

    def draw(self, figure: Any) -> None:
        """Mini-batches of eight: the norm of every filter, and the angle by which it turns at each step."""
        rate, decay, steps = 0.5, 0.02, 1500
        filters = self.filters(descent(rate, decay, batch_size=8), steps, examples=32)
        square, predicted = self.norms(filters, rate, decay)
        ts = rate * jnp.arange(0.0, steps - 1)
        norms, angles = figure.subplots(1, 2)
        overlay(norms, ts, predicted, square, ["filter 1", "filter 2", "filter 3"], markers=40)
        norms.set(xlabel="time $\\eta k$", ylabel="$N = \\Vert w\\Vert^2$", title="squared norm", yscale="log")
        norms.set_yticks([0.1, 0.2, 0.5, 1.0, 2.0, 5.0], ["0.1", "0.2", "0.5", "1", "2", "5"])
        norms.minorticks_off()
        turned = angle_between(filters[:-1], filters[1:])
        window = 100
        smooth = jnp.stack([jnp.convolve(x**2, jnp.ones(window) / window, mode="valid") for x in turned.T], axis=1)
        for angle, line in zip(smooth.T, norms.lines[::3], strict=False):
            angles.plot(ts[window // 2 : window // 2 + angle.size], jnp.sqrt(angle), lw=1, color=line.get_color())
        angles.axhline(float(equilibrium_angle(rate, decay)), color="k", ls="--", label="$\\arccos(1 - \\eta\\gamma)$")
        angles.set(xlabel="time $\\eta k$", ylabel="radians a step", title="rotation, root mean square of 100 steps")
        angles.legend(fontsize=8)


_predicted = jax.jit(norm_from_gradients)


def _first(model: NormalisedNetwork) -> Array:
    return model.first
