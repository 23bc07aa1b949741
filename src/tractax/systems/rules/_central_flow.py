"""Gradient descent at the edge of stability, and the central flows that its means follow."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from ...core import AbstractRule, Kind
from ...deep_linear import RegressionTask
from ...plotting import overlay
from ...rules import (
    CentralFlow,
    GradientDescent,
    GradientFlow,
    RMSPropCentralFlow,
    SharpeningValley,
    SharpeningValleyFlow,
    ValleyFloor,
    ValleyPoint,
    scalar_rmsprop,
)
from ...training import train
from ...two_layer import TwoLayerNetwork
from .._system import AbstractRunSystem, AbstractSystem, Citation, Run, Signature, Tolerance

_CITATION = Citation("Cohen, Damian, Talwalkar, Kolter, Lee", 2024, "2410.24206")


class CentralFlowSystem(AbstractSystem):
    """Descent in a valley that steepens downhill, from the edge of stability."""

    name: ClassVar[str] = "central_flow"
    family: ClassVar[str] = "rules"
    kind: ClassVar[Kind] = "phenomenon"
    summary: ClassVar[str] = "at the edge of stability descent follows its central flow, not gradient flow"
    citation: ClassVar[Citation] = _CITATION
    claim: ClassVar[Signature] = Signature(20.0, "how many times closer the means of descent are to the central flow")

    rate: ClassVar[float] = 0.1

    def descend(self, steps: int) -> Array:
        """$z$ at every step of descent that oscillates from the start."""
        model, task = ValleyPoint(0.02**0.5, 2 / self.rate - 0.04, 0.2), SharpeningValley(0.01, 0.004, 3.0)
        ts = self.rate * jnp.arange(steps + 1.0)
        return train(model, task, GradientDescent(self.rate), ts, observe=_sideways).observed

    def flow(self, rule: AbstractRule, ts: Float[Array, " times"]) -> Array:
        """$z$ of a flow along the valley's floor."""
        model, task = ValleyPoint(0.0, 2 / self.rate - 0.04, 0.2), SharpeningValley(0.01, 0.004, 3.0)
        return train(model, task, rule, ts, observe=_sideways).observed

    def measure(self) -> Float[Array, ""]:
        """The least ratio of the two distances from the means of descent over 801 steps, at four times."""
        steps = np.asarray([500, 2000, 5000, 10_000])
        means = _window_means(self.descend(10_400), steps, 400)
        ts = self.rate * jnp.asarray(steps, means.dtype)
        central, gradient = (self.flow(rule, ts) for rule in (CentralFlow(self.rate), GradientFlow()))
        return jnp.min(jnp.abs(gradient - means) / jnp.abs(central - means))

    def draw(self, figure: Any) -> None:
        """The valley, and a tanh network: descent, its means, the central flow and gradient flow."""
        left, right = figure.subplots(1, 2)
        steps = 5000
        iterates, centres = self.descend(steps + 400), np.arange(400, steps + 1, 400)
        ts = self.rate * jnp.linspace(0.0, steps, 201)
        left.plot(ts / self.rate, self.flow(GradientFlow(), ts), color="0.6", ls="--", label="gradient flow")
        left.plot(ts / self.rate, self.flow(CentralFlow(self.rate), ts), color="tab:blue", label="central flow")
        means = _window_means(iterates, centres, 400)
        left.plot(centres, means, "o", color="tab:blue", mfc="white", ms=5, label="descent, mean of 801 steps")
        left.axhline(0.5, color="0.6", ls=":", lw=1.2)
        left.set(xlabel="steps $t/\\eta$", ylabel="$z$", title="Valley: predicted end dotted")
        left.legend(fontsize=8)
        self._draw_network(right)

    def _draw_network(self, axes: Any) -> None:
        rng = np.random.default_rng(1)
        inputs = np.stack([np.linspace(-1, 1, 8), np.ones(8)], axis=1)
        task = RegressionTask(inputs, np.sin(3 * inputs[:, 0]) + inputs[:, 0] ** 2 / 2)
        model = TwoLayerNetwork(rng.normal(size=(8, 2)), rng.normal(size=8) / 2, "tanh")
        rule = CentralFlow(0.555)
        model = train(model, task, rule, [105.0]).model
        ts = jnp.linspace(0.0, 150.0, 76)
        central = train(model, task, rule, ts, observe=lambda model: rule.oscillation(model, task).loss).observed
        gradient = train(model, task, GradientFlow(), ts).observed
        steps = rule.learning_rate * jnp.arange(271.0)
        shaken = _oscillating(model, task, rule)
        descent = train(shaken, task, GradientDescent(rule.learning_rate), steps).observed
        centres = np.arange(10, 261, 10)
        axes.plot(ts, gradient, color="0.6", ls="--", label="gradient flow")
        axes.plot(ts, central, color="tab:blue", label="central flow, $L + S\\sigma^2/2$")
        means = _window_means(descent, centres, 10)
        axes.plot(steps[centres], means, "o", color="tab:blue", mfc="white", ms=5, label="descent, mean of 21 steps")
        axes.set(xlabel="time $t = \\eta k$", ylabel="loss", ylim=(0, 0.03), title="Two-layer tanh network at the edge")
        axes.legend(fontsize=8, loc="upper right")


class SharpeningValleySystem(AbstractRunSystem):
    """The central flow of a steep valley from its edge, and the same with RMSProp in the figure."""

    name: ClassVar[str] = "sharpening_valley"
    family: ClassVar[str] = "rules"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "the central flow of a valley that steepens downhill, in closed form"
    citation: ClassVar[Citation] = _CITATION
    claim: ClassVar[Tolerance] = Tolerance(1e-8)

    def run(self) -> Run:
        """From the middle of the valley, past its end."""
        model, task, rule = ValleyPoint(0.0, 19.0, 1.0), SharpeningValley(0.5, 0.3, 2.0), CentralFlow(0.1)
        solution = SharpeningValleyFlow.from_model(model, task, rule)
        return Run(model, task, rule, solution, jnp.linspace(0.0, 12.0, 41))

    def draw(self, figure: Any) -> None:
        """The position along the valley from three starts; and RMSProp with its own central flow."""
        left, middle, right = figure.subplots(1, 3)
        task, rule, ts = self.run().task, self.run().rule, jnp.linspace(0.0, 12.0, 97)
        starts = [ValleyPoint(0.0, 20.0 - z**2, z) for z in (0.0, 1.0, 2.0)]
        cases = [(SharpeningValleyFlow.from_model(start, task, rule), start) for start in starts]
        theory = jnp.stack([jax.vmap(solution.evaluate)(ts).z for solution, _ in cases], axis=1)
        flows = jnp.stack([train(start, task, rule, ts, observe=_sideways).observed for _, start in cases], axis=1)
        overlay(left, ts, theory, flows, [f"$z_0 = {z}$" for z in (0, 1, 2)], markers=16)
        left.set(xlabel="time $t$", ylabel="$z$", title="Central flow of descent")
        eta, decay, nu, steps = 0.02, 0.99, (0.02 * 1.04 / 2) ** 2, 6000
        task = SharpeningValley(0.002, 0.001, 3.0)
        optimiser = scalar_rmsprop(eta, decay, initial=nu)
        ks = eta * jnp.arange(steps + 1.0)
        descent = train(ValleyPoint(1e-3, 1.0, 0.2), task, GradientDescent(eta, optimiser), ks, observe=_floor).observed
        ts, centres = eta * jnp.linspace(0.0, steps, 121), np.arange(300, steps - 299, 300)
        flow = train(ValleyPoint(0.0, 1.0, 0.2), task, RMSPropCentralFlow(eta, decay, nu), ts, observe=_floor).observed
        for axes, name in ((middle, "y"), (right, "z")):
            axes.plot(ts / eta, getattr(flow, name), color="tab:blue", label="central flow")
            means = _window_means(getattr(descent, name), centres, 200)
            axes.plot(centres, means, "o", color="tab:blue", mfc="white", ms=4, label="descent, mean of 401")
            axes.set(xlabel="steps $t/\\eta$", ylabel=f"${name}$", title=f"RMSProp, ${name}$")
        middle.legend(fontsize=8)


def _sideways(model: ValleyPoint) -> Array:
    return model.z


def _floor(model: ValleyPoint) -> ValleyFloor:
    return ValleyFloor(model.y, model.z)


def _window_means(values: Array, centres: np.ndarray, half: int) -> Array:
    """The mean over the steps within a distance of each centre."""
    window = centres[:, None] + np.arange(-half, half + 1)[None, :]
    return jnp.mean(values[window], axis=1)


def _oscillating(model: TwoLayerNetwork, task: RegressionTask, rule: CentralFlow) -> TwoLayerNetwork:
    """The network, displaced along the leading eigenvector of the Hessian by the predicted oscillation."""
    params, static = eqx.partition(model, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(params)
    hessian = jax.hessian(lambda weights: task.loss(eqx.combine(unravel(weights), static)))(flat)
    size = jnp.sqrt(rule.oscillation(model, task).variance)
    return eqx.combine(unravel(flat + size * jnp.linalg.eigh(hessian)[1][:, -1]), static)
