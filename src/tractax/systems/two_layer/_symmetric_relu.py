"""Zhang, Saxe and Latham's equivalence: on mirrored data a rectifier network learns as a linear one, in slower time."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ...core import Kind
from ...deep_linear import RegressionTask, balanced
from ...plotting import overlay
from ...rules import GradientDescent, GradientFlow
from ...training import train
from ...two_layer import SymmetricReLU, antipodal_network, mirrored_task
from .._system import AbstractRunSystem, Citation, Run, Tolerance


class SymmetricReLUSystem(AbstractRunSystem):
    """Opposite pairs of leaky rectifiers, two outputs, mirrored data."""

    name: ClassVar[str] = "symmetric_relu"
    family: ClassVar[str] = "two_layer"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "rectifier networks on mirrored data learn as linear networks do, in rescaled time"
    citation: ClassVar[Citation] = Citation("Zhang, Saxe, Latham", 2024, "2406.12615")
    claim: ClassVar[Tolerance] = Tolerance(1e-8)

    def run(self) -> Run:
        """Slope 0.2."""
        task, rule = mirrored_task(*_half()), GradientFlow()
        model = paired_network(0.2)
        return Run(model, task, rule, SymmetricReLU.from_model(model, task, rule), jnp.linspace(0.0, 20.0, 61))

    def draw(self, figure: Any) -> None:
        """Losses for several slopes over time and over rescaled time, and without the mirrored half."""
        left, right = figure.subplots(1, 2, sharey=True)
        task, rule = mirrored_task(*_half()), GradientFlow()
        broken = RegressionTask(*_half())
        slopes = (0.0, 0.2, 0.5, 1.0)
        ts = jnp.linspace(0.0, 12.0, 201)
        theory, simulated = [], []
        for slope in slopes:
            model = paired_network(slope)
            # In time that is slower by κ; the rectifiers start from weights larger by κ^(-1/2).
            solution = SymmetricReLU.from_model(model, task, rule)
            times = ts / solution.gain
            theory.append(jax.vmap(solution.loss)(ts))
            simulated.append((train(model, task, rule, ts).observed, train(model, task, rule, times).observed))
        labels = [f"slope {slope:g}" for slope in slopes]
        overlay(left, ts, jnp.stack(theory, 1), jnp.stack([s for s, _ in simulated], 1), labels)
        left.set(xlabel="time $t/\\tau$", ylabel="loss", title="Mirrored data", ylim=(0, None))
        rescaled = jnp.stack([s for _, s in simulated], 1)
        overlay(right, ts, jnp.broadcast_to(theory[-1][:, None], rescaled.shape), rescaled, labels)
        # In steps, since without symmetry units come to slide along kinks, where a flow has no end of rejected steps.
        without = train(paired_network(0.0), broken, GradientDescent(1e-2), 2 * ts).observed
        right.plot(ts, without, color="tab:red", ls="--", label="slope 0, half of the data")
        right.legend(fontsize=8, frameon=False)
        right.set(xlabel="rescaled time $\\kappa t/\\tau$", title="$\\kappa = (1 + \\alpha)/2$ makes them one")


def paired_network(slope: float) -> Any:
    """Four balanced pairs, from which every slope gives the same linear network."""
    first, second = balanced((3, 4, 2), scale=0.1, key=jax.random.key(0)).weights
    grown = (2 / (1 + slope)) ** 0.5
    return antipodal_network(grown * first, grown * second, slope=slope)


def _half() -> tuple[Any, Any]:
    """Five white inputs in three dimensions, with two outputs."""
    rng = np.random.default_rng(0)
    u, _, v = np.linalg.svd(rng.normal(size=(5, 3)), full_matrices=False)
    return 5**0.5 * u @ v, rng.normal(size=(5, 2))
