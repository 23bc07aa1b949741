"""Tian's population gradient: a rectifier unit finds its teacher, by length and angle."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ...core import Kind
from ...plotting import overlay
from ...rules import GradientFlow
from ...training import train
from ...two_layer import GaussianReLUTask, PolarUnit, ReLUUnitFlow, TwoLayerNetwork
from .._system import AbstractRunSystem, Citation, Run, Tolerance


class GaussianReLUTeacherSystem(AbstractRunSystem):
    """A unit in five dimensions, readout trained, that starts almost opposite to its teacher."""

    name: ClassVar[str] = "gaussian_relu_teacher"
    family: ClassVar[str] = "two_layer"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "a rectifier unit learns another one on Gaussian inputs, by length and angle"
    citation: ClassVar[Citation] = Citation("Tian", 2017, "1703.00560")
    claim: ClassVar[Tolerance] = Tolerance(1e-8)

    def run(self) -> Run:
        """An angle of 3, half the length."""
        model, task, rule = unit_at(0.5, 3.0), GaussianReLUTask(unit_at(1.0, 0.0)), GradientFlow()
        solution = ReLUUnitFlow.from_model(model, task, rule, t1=30.0)
        return Run(model, task, rule, solution, jnp.linspace(0.0, 30.0, 61))

    def draw(self, figure: Any) -> None:
        """The paths of units in the plane of the teacher, and their losses."""
        import matplotlib

        left, right = figure.subplots(1, 2)
        # The readout is kept, as in the paper.
        task, rule = GaussianReLUTask(unit_at(1.0, 0.0)), GradientFlow(rates=jnp.asarray([1.0, 0.0]))
        angles, ts = (0.5, 1.2, 2.0, 2.7, 3.05), jnp.linspace(0.0, 16.0, 161)
        colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(angles)))
        losses, simulated = [], []
        for angle, colour in zip(angles, colours, strict=True):
            model = unit_at(0.8, angle)
            solution = ReLUUnitFlow.from_model(model, task, rule, t1=16.0)
            run = train(model, task, rule, ts, observe={"state": solution.reduce, "loss": task.loss}).observed
            left.plot(*_plane(jax.vmap(solution.evaluate)(ts)), color=colour)
            left.plot(*_plane(run["state"])[:, ::8], "o", color=colour, mfc="white", ms=4)
            losses.append(jax.vmap(solution.loss)(ts))
            simulated.append(run["loss"])
        left.plot([1.0], [0.0], "k*", ms=12, zorder=5, label="teacher")
        left.plot([0.0], [0.0], "k+", ms=8, label="zero")
        left.legend(fontsize=8, frameon=False, loc="upper left")
        left.set(xlabel="$w$ along the teacher", ylabel="$w$ across", title="Paths")
        overlay(right, ts, jnp.stack(losses, 1), jnp.stack(simulated, 1), [f"$\\theta_0 = {a}$" for a in angles])
        right.set(xlabel="time $t/\\tau$", ylabel="loss", yscale="log", title="Late rate: one, whatever the start")


def unit_at(length: float, angle: float) -> TwoLayerNetwork:
    """A unit of five inputs at an angle to the first axis."""
    direction = jnp.asarray([np.cos(angle), 0.6 * np.sin(angle), 0.0, 0.8 * np.sin(angle), 0.0])
    return TwoLayerNetwork(length * direction[None, :], jnp.ones(1))


def _plane(state: PolarUnit) -> np.ndarray:
    """Along the teacher, and across."""
    return np.asarray(state.length) * np.stack([np.cos(state.angle), np.sin(state.angle)])
