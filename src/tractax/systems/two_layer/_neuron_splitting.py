"""Zhang, Saxe and Latham's invariant manifolds: wide networks train as narrow ones, and small weights come near to it."""

from typing import Any, ClassVar

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...analysis import compare
from ...core import Kind, Trajectory
from ...deep_linear import RegressionTask
from ...plotting import overlay
from ...rules import GradientFlow
from ...training import train
from ...two_layer import (
    LeakyReLU,
    OrthogonalReLUFlow,
    OrthogonalSaddles,
    TwoLayerNetwork,
    balanced_units,
    effective_width,
    split_unit,
)
from .._system import AbstractSystem, Citation, Tolerance

SHARES = np.sqrt([0.1, 0.3, 0.6])


class NeuronSplittingSystem(AbstractSystem):
    """A network of two units and one in which the second is split in three, trained on the same data."""

    name: ClassVar[str] = "neuron_splitting"
    family: ClassVar[str] = "two_layer"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "a network with split units trains exactly as the narrower one"
    citation: ClassVar[Citation] = Citation("Zhang, Saxe, Latham", 2025, "2512.20607")
    claim: ClassVar[Tolerance] = Tolerance(1e-8)

    def measure(self) -> Float[Array, ""]:
        """The largest relative difference of any weights at any time, the narrow network split after training."""
        narrow, wide = _runs(jnp.linspace(0.0, 6.0, 31))
        return compare(narrow, wide).worst

    def draw(self, figure: Any) -> None:
        """The readout of a split unit; and the loss and the effective width from small weights."""
        left, right = figure.subplots(1, 2)
        ts = jnp.linspace(0.0, 6.0, 121)
        narrow, wide = (run.observed.second[:, 0] for run in _runs(ts))
        labels = ["unit 1", *(f"part of unit 2, $\\gamma^2 = {s**2:.1f}$" for s in SHARES)]
        overlay(left, ts, narrow, wide, labels)
        handles, names = left.get_legend_handles_labels()
        renamed = {"theory": "narrow network, split", "simulation": "wide network"}
        left.legend(handles, [renamed.get(n, n) for n in names], fontsize=8, frameon=False)
        left.set(xlabel="time $t/\\tau$", ylabel="weights to the output", title="Split units keep their shares")
        task, rule = RegressionTask(2**0.5 * jnp.eye(4), jnp.array([1.5, 0.4, -0.9, -0.4])), GradientFlow()
        model = balanced_units(4, 24, scale=1e-6, key=jax.random.key(2))
        solution = OrthogonalReLUFlow.from_model(model, task, rule, t1=60.0)
        ts = jnp.linspace(0.0, 60.0, 241)
        tight = diffrax.PIDController(rtol=1e-9, atol=1e-17)
        simulated = train(model, task, rule, ts, stepsize_controller=tight).observed
        overlay(right, ts, jax.vmap(solution.loss)(ts)[:, None], simulated[:, None], ["loss"])
        for level in OrthogonalSaddles.from_task(task).plateau_losses:
            right.axhline(float(level), color="0.7", ls=":", lw=1, zorder=0)
        widths = jax.vmap(lambda t: effective_width(solution.network(t), angle=0.1, floor=0.2))(ts)
        steps = right.twinx()
        steps.plot(ts, widths, color="tab:red", lw=1.2, drawstyle="steps-mid")
        steps.set_ylabel("effective width", color="tab:red")
        steps.set(yticks=[0, 1, 2], ylim=(-0.1, 3.0))
        right.legend(fontsize=8, frameon=False, loc="center right")
        right.set(xlabel="time $t/\\tau$", ylabel="loss", title="From small weights: one direction more a plateau")


def _runs(ts: Float[Array, " times"]) -> tuple[Trajectory, Trajectory]:
    """The weights of the narrow network, split as they are recorded, and of the network that was split before."""
    rng = np.random.default_rng(3)
    task = RegressionTask(rng.normal(size=(7, 3)), rng.normal(size=(7, 2)))
    narrow = TwoLayerNetwork(rng.normal(size=(2, 3)), rng.normal(size=(2, 2)), LeakyReLU(0.1))
    tight = diffrax.PIDController(rtol=1e-11, atol=1e-14)

    def run(model: TwoLayerNetwork, observe: Any) -> Trajectory:
        return train(model, task, GradientFlow(), ts, observe=observe, solver=diffrax.Dopri8(), stepsize_controller=tight)

    return run(narrow, _split), run(_split(narrow), _whole)


def _split(model: TwoLayerNetwork) -> TwoLayerNetwork:
    return split_unit(model, 1, SHARES)


def _whole(model: TwoLayerNetwork) -> TwoLayerNetwork:
    return model
