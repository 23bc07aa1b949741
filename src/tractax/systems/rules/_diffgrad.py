"""diffGrad on a linear slope: half of Adam's steps, but for the first."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ...core import AbstractTask, Kind
from ...rules import GradientDescent, diffgrad
from ...training import train
from .._system import AbstractSystem, Citation, Tolerance

_RATE = 0.1


class _Position(eqx.Module):
    position: Float[Array, " parameters"]


class _Slope(AbstractTask):
    """The loss g · w, or its absolute value entry by entry, whose gradient changes sign."""

    gradient: Float[Array, " parameters"]
    folded: bool = eqx.field(static=True, default=False)

    def loss(self, model: PyTree) -> Float[Array, ""]:
        """The loss of a position."""
        w = self.gradient * model.position
        return jnp.sum(jnp.abs(w) if self.folded else w)


class DiffGradSystem(AbstractSystem):
    """Four parameters with constant gradients of different size."""

    name: ClassVar[str] = "diffgrad"
    family: ClassVar[str] = "rules"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "diffGrad halves Adam's steps where the gradient does not change"
    citation: ClassVar[Citation] = Citation("Dubey, Chakraborty, Roy, Mukherjee, Singh, Chaudhuri", 2019, "1909.11015")
    claim: ClassVar[Tolerance] = Tolerance(1e-8)

    def measure(self) -> Float[Array, ""]:
        """Positions after up to twenty steps, against the first step and the half steps after it."""
        gradient = jnp.asarray([-3.0, -0.2, 0.5, 8.0])
        steps = jnp.arange(1.0, 21.0)
        rule = GradientDescent(_RATE, lambda rate: diffgrad(rate, eps=0.0), time_per_step=1.0)
        run = train(_Position(jnp.zeros(4)), _Slope(gradient), rule, steps, observe=lambda model: model.position)
        path = jax.nn.sigmoid(jnp.abs(gradient))[None, :] + (steps[:, None] - 1) / 2
        expected = -_RATE * jnp.sign(gradient)[None, :] * path
        return jnp.max(jnp.abs(run.observed - expected)) / jnp.max(jnp.abs(expected))

    def draw(self, figure: Any) -> None:
        """A slope, where diffGrad goes at half of Adam's speed, and a kink, where gradients of 8 change sign."""
        slope, kink = figure.subplots(1, 2)
        ts = jnp.arange(0.0, 31.0)
        for axes, task in ((slope, _Slope(jnp.asarray([1.0]))), (kink, _Slope(jnp.asarray([8.0]), True))):
            start = _Position(jnp.ones(1))
            for label, optimiser, colour in (("Adam", optax.adam, "0.5"), ("diffGrad", diffgrad, "tab:red")):
                rule = GradientDescent(_RATE, optimiser, time_per_step=1.0)
                run = train(start, task, rule, ts, observe=lambda model: model.position[0])
                axes.plot(ts, run.observed, "o", color=colour, mfc="white", ms=4, label=label)
            axes.set(xlabel="steps")
        steps = jnp.arange(1.0, 31.0)
        slope.plot(steps, 1 - _RATE * (jax.nn.sigmoid(1.0) + (steps - 1) / 2), color="tab:red", label="theory")
        slope.set(ylabel="position $w$", title="$L = w$")
        kink.set(title="$L = 8\\,|w|$")
        slope.legend(fontsize=8)
