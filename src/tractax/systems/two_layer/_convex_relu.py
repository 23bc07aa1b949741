"""Pilanci and Ergen's convex programme: the least loss of a rectifier network with weight decay, with a proof."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...core import Kind
from ...rules import GradientDescent
from ...training import train
from ...two_layer import ConvexReLU, WeightDecayTask, balanced_units, sampled_patterns
from .._system import AbstractSystem, Citation, Tolerance


class ConvexReLUSystem(AbstractSystem):
    """Six random examples in the plane, all twelve patterns of activity."""

    name: ClassVar[str] = "convex_relu"
    family: ClassVar[str] = "two_layer"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "the global optimum of a rectifier network with weight decay, by convex programming"
    citation: ClassVar[Citation] = Citation("Pilanci, Ergen", 2020, "2002.10553")
    claim: ClassVar[Tolerance] = Tolerance(1e-8, "loss of the network above what the dual proves, relative")

    def measure(self) -> Float[Array, ""]:
        """The loss of the actual network against the dual; either side of it is a failure."""
        task = random_task()
        optimum = ConvexReLU(task).solve(rtol=1e-9)
        return jnp.abs(task.loss(optimum.network) - optimum.dual) / optimum.dual

    def draw(self, figure: Any) -> None:
        """Training from fifteen seeds above the optimum, and the optimum of ever more sampled patterns."""
        left, right = figure.subplots(1, 2)
        task = random_task()
        optimum = float(ConvexReLU(task).solve().dual)
        ts = jnp.concatenate([jnp.zeros(1), jnp.geomspace(0.1, 100.0, 60)])
        for width, colour in ((4, "C1"), (30, "C0")):
            losses = np.stack([training_losses(task, width, seed, ts) for seed in range(15)])
            left.loglog(ts[1:], losses[:, 1:].T - optimum, color=colour, lw=0.8, alpha=0.7)
            left.plot([], [], color=colour, label=f"{width} units, 15 seeds")
        left.set(xlabel="time $t$", ylabel="loss above the convex optimum", title="Gradient descent never goes below")
        left.legend(fontsize=8)
        draws = np.asarray([1, 2, 4, 8, 16, 32, 64])
        found = np.asarray([[subset_optimum(task, int(count), seed) for count in draws] for seed in range(3)]).T
        right.axhline(optimum, color="0.3", label="all 12 patterns")
        for i in range(found.shape[1]):
            right.plot(draws, found[:, i], "o-", color=f"C{i}", mfc="white", ms=4, lw=0.8, label=f"key {i}")
        right.set(xlabel="sampled weights", ylabel="optimum over their patterns", xscale="log")
        right.set_title("Fewer patterns: an upper bound")
        right.legend(fontsize=8)


def random_task() -> WeightDecayTask:
    """Six normal examples in the plane, with normal targets."""
    rng = np.random.default_rng(0)
    return WeightDecayTask(jnp.asarray(rng.normal(size=(6, 2))), jnp.asarray(rng.normal(size=6)), 0.1)


def training_losses(task: WeightDecayTask, width: int, seed: int, ts: Float[Array, " times"]) -> Float[Array, " times"]:
    """The loss along gradient descent from random balanced units."""
    model = balanced_units(2, width, scale=1.0, key=jax.random.key(seed))
    return train(model, task, GradientDescent(0.02), ts, observe=task.loss).observed


def subset_optimum(task: WeightDecayTask, samples: int, seed: int) -> float:
    """The optimum over sampled patterns."""
    patterns = np.asarray(sampled_patterns(task.inputs, samples, key=jax.random.key(seed)))
    # Repeated up to one shape, which is compiled once; a pattern may as well be listed twice.
    return float(ConvexReLU(task, np.resize(patterns, (12, 6))).solve(rtol=1e-5, max_steps=20_000, throw=False).primal)
