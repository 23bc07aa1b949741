"""Boursier et al.'s saddles: a rectifier network on orthogonal inputs fits one sign of the targets after the other."""

from typing import Any, ClassVar

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...analysis import crossing_times
from ...core import Kind
from ...deep_linear import RegressionTask
from ...plotting import overlay
from ...rules import GradientFlow
from ...training import train
from ...two_layer import Fields, OrthogonalReLUFlow, OrthogonalSaddles, balanced_units
from .._system import AbstractRunSystem, Citation, Run, Tolerance


class OrthogonalReLUSystem(AbstractRunSystem):
    """Four orthogonal examples, small random weights: units fall silent on some of them, and the loss is a staircase."""

    name: ClassVar[str] = "orthogonal_relu"
    family: ClassVar[str] = "two_layer"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "rectifier networks on orthogonal inputs fit one sign of the targets after the other"
    citation: ClassVar[Citation] = Citation("Boursier, Pillaud-Vivien, Flammarion", 2022, "2206.00939")
    claim: ClassVar[Tolerance] = Tolerance(1e-8)

    def run(self) -> Run:
        """Twelve units of scale 0.01."""
        task, rule = signed_task(), GradientFlow()
        model = balanced_units(6, 12, scale=1e-2, key=jax.random.key(1))
        solution = OrthogonalReLUFlow.from_model(model, task, rule, t1=30.0)
        return Run(model, task, rule, solution, jnp.linspace(0.0, 30.0, 61))

    def draw(self, figure: Any) -> None:
        """The loss from ever smaller weights, and when each sign is fitted."""
        left, right = figure.subplots(1, 2)
        task, rule = signed_task(), GradientFlow()
        saddles = OrthogonalSaddles.from_task(task)
        ts = jnp.linspace(0.0, 60.0, 601)
        exponents = (2, 4, 6, 8)
        draw = balanced_units(6, 40, scale=1.0, key=jax.random.key(0))
        losses, simulated, halves, predicted = [], [], [], []
        for exponent in exponents:
            model = jax.tree.map(lambda w, e=exponent: 10.0**-e * w, draw)
            solution = OrthogonalReLUFlow.from_model(model, task, rule, t1=60.0)
            tight = diffrax.PIDController(rtol=1e-9, atol=1e-11 * 10.0**-exponent)
            run = train(model, task, rule, ts, observe=solution.reduce, stepsize_controller=tight)
            losses.append(jax.vmap(solution.loss)(ts))
            signs = jax.vmap(lambda state: sign_losses(task, state))(run.observed)
            simulated.append(jnp.sum(signs, axis=1))
            # Where half of the target is learned, a quarter of its loss remains.
            halves.append(crossing_times(ts, signs, signs[0] / 4))
            predicted.append(saddles.times(model))
        labels = [f"$\\lambda = 10^{{-{e}}}$" for e in exponents]
        overlay(left, ts, jnp.stack(losses, 1), jnp.stack(simulated, 1), labels, markers=40)
        for level in saddles.plateau_losses[:2]:
            left.axhline(float(level), color="0.7", ls=":", lw=1, zorder=0)
        left.set(xlabel="time $t/\\tau$", ylabel="loss", title="One sign of the targets after the other")
        logs = np.log(10.0) * np.asarray(exponents, float)
        names = ["positive targets", "negative targets"]
        overlay(right, logs, jnp.stack(predicted), jnp.stack(halves), names, markers=4)
        right.set(xlabel="$\\ln(1/\\lambda)$", ylabel="time $t/\\tau$ of fitting", title="Slopes $1/D_\\pm$")


def signed_task() -> RegressionTask:
    """Two positive and two negative targets, on orthogonal inputs among six."""
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))
    return RegressionTask(jnp.asarray(2**0.5 * basis[:4]), jnp.array([1.5, 0.8, -1.2, -0.4]))


def sign_losses(task: RegressionTask, state: Fields) -> Float[Array, "2"]:
    """What the positive and the negative targets contribute to the loss."""
    squares = (task.targets - state.readout @ jax.nn.relu(state.fields)) ** 2 / (2 * task.targets.size)
    return jnp.stack([jnp.sum(jnp.where(chosen, squares, 0.0)) for chosen in (task.targets > 0, task.targets < 0)])
