"""Opposing signals: gradient flow sharpens, and gradient descent that cannot follow ends at the edge of stability."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float

from ...analysis import compare
from ...core import Kind, Trajectory
from ...deep_linear import LinearTask, OpposingNetwork, OpposingSignals, opposing_signals_task
from ...plotting import overlay
from ...rules import GradientDescent, GradientFlow
from ...training import train
from .._system import AbstractRunSystem, AbstractSystem, Citation, Run, Signature, Tolerance

_CITATION = Citation("Rosenfeld, Risteski", 2023, "2311.04163")


class OpposingSignalsSystem(AbstractRunSystem):
    """Strong opposing inputs, unlearned first and sharpening all the while after."""

    name: ClassVar[str] = "opposing_signals"
    family: ClassVar[str] = "deep_linear"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "progressive sharpening of gradient flow by inputs with opposing signals"
    citation: ClassVar[Citation] = _CITATION
    claim: ClassVar[Tolerance] = Tolerance(1e-8)

    def run(self) -> Run:
        """Target of length 2, opposing inputs of variance 20, until the network has learned."""
        model, task = _start()
        solution = OpposingSignals.from_model(model, task)
        return Run(model, task, GradientFlow(), solution, jnp.linspace(0.0, 6.0, 121))

    def measure(self) -> Float[Array, ""]:
        """The largest relative error of any observable, or of the final sharpness against the whole Hessian."""
        run = self.run()
        trajectory = run.simulate()
        worst = compare(run.solution, trajectory).worst
        final = run.solution.final_sharpness()
        return jnp.maximum(worst, jnp.abs(_sharpness(trajectory.model, run.task) / final - 1))

    def draw(self, figure: Any) -> None:
        """The reduced flow, and the sharpness of the whole network with its predicted end."""
        run = self.run()
        theory = jax.vmap(run.solution.evaluate)(run.ts)
        observed = run.simulate().observed
        left, right = figure.subplots(1, 2)
        names = ("signal", "opposing", "outer")
        labels = ("signal $p$", "opposing $o$", "outer $c$")
        predicted, simulated = (
            jnp.stack([getattr(state, name) for name in names], axis=1) for state in (theory, observed)
        )
        overlay(left, run.ts, predicted, simulated, labels)
        left.set(xlabel="time $t/\\tau$", ylabel="weight", title="Reduced flow")
        networks = train(run.model, run.task, run.rule, run.ts, observe=lambda model: _sharpness(model, run.task))
        sharpness = jax.vmap(run.solution.sharpness)(theory)
        overlay(right, run.ts, sharpness[:, None], networks.observed[:, None], ["sharpness"])
        right.axhline(float(run.solution.final_sharpness()), color="0.6", ls=":", lw=1.2)
        right.set(xlabel="time $t/\\tau$", ylabel="sharpness", title="Progressive sharpening (dotted: predicted end)")


class EdgeOfStabilitySystem(AbstractSystem):
    """Gradient descent on the same network, with steps too large for the end of the flow."""

    name: ClassVar[str] = "edge_of_stability"
    family: ClassVar[str] = "deep_linear"
    kind: ClassVar[Kind] = "phenomenon"
    summary: ClassVar[str] = "gradient descent that outgrows 2/η settles just below it"
    citation: ClassVar[Citation] = _CITATION
    claim: ClassVar[Signature] = Signature(0.94, "least final sharpness over 2/η")

    def descend(self, fraction: ArrayLike, *, steps: int = 2000) -> tuple[Float[Array, ""], Trajectory]:
        """Descent with $2/\\eta$ a fraction of the flow's final sharpness: $\\eta$, and the run with its sharpness."""
        model, task = _start()
        solution = OpposingSignals.from_model(model, task)
        eta = 2 / (fraction * solution.final_sharpness())
        times = eta * jnp.arange(steps + 1, dtype=eta.dtype)
        rule = GradientDescent(eta)
        return eta, train(model, task, rule, times, observe=lambda model: solution.sharpness(solution.reduce(model)))

    def measure(self) -> Float[Array, ""]:
        """The sharpness that two learning rates end at, over their 2/η; NaN if it rises above."""
        ends = jnp.stack([eta * run.observed[-1] / 2 for eta, run in map(self.descend, (0.8, 0.5))])
        return jnp.where(jnp.all(ends <= 1), jnp.min(ends), jnp.nan)

    def draw(self, figure: Any) -> None:
        """Sharpness of gradient flow and of gradient descent at three learning rates, with their 2/η."""
        import matplotlib

        model, task = _start()
        solution = OpposingSignals.from_model(model, task)
        last = 12.0
        ts = jnp.linspace(0.0, last, 241)
        axes = figure.subplots()
        flow = jax.vmap(lambda t: solution.sharpness(solution.evaluate(t)))(ts)
        axes.plot(ts, flow, color="0.2", label="gradient flow (theory)")
        colours = matplotlib.colormaps["viridis"]([0.1, 0.5, 0.8])
        for colour, fraction in zip(colours, (1.1, 0.8, 0.5), strict=True):
            eta, run = self.descend(fraction, steps=300)
            shown = run.ts <= last
            label = f"descent, 2/η = {2 / float(eta):.1f}"
            axes.plot(
                run.ts[shown], run.observed[shown], "o-", color=colour, mfc="white", ms=2.5, mew=0.7, lw=0.7, label=label
            )
            axes.axhline(2 / float(eta), color=colour, ls=":", lw=1.2)
        axes.set(xlabel="time $t = \\eta k$", ylabel="sharpness", ylim=(0, 60))
        axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4)


def _start() -> tuple[OpposingNetwork, LinearTask]:
    beta = jnp.asarray([1.2, 1.6, 0.0])
    return OpposingNetwork(beta / 20, jnp.asarray([0.24, 0.32]), 0.6), opposing_signals_task(beta, 20.0, 2)


def _sharpness(model: OpposingNetwork, task: LinearTask) -> Float[Array, ""]:
    """The largest eigenvalue of the Hessian, by automatic differentiation of the whole network."""
    flat, unravel = ravel_pytree(model)
    return jnp.linalg.eigvalsh(jax.hessian(lambda weights: task.loss(unravel(weights)))(flat))[-1]
