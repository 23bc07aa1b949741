"""Depth-independent learning: from good initial weights, gradient descent needs as many steps at any depth."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...analysis import compare
from ...core import Kind
from ...deep_linear import DeepModes, LinearTask, aligned, infinite_depth_time, learning_time
from ...plotting import overlay
from ...rules import GradientDescent, GradientFlow
from ...training import train
from .._system import AbstractSystem, Citation, Run, Tolerance


class Chain(eqx.Module):
    """A network with one unit in every layer, $f(x) = a_L \\cdots a_1\\,x$."""

    factors: Float[Array, " depth"]

    def __call__(self, x: Float[Array, "1"]) -> Float[Array, "1"]:
        """The output for one input."""
        return jnp.prod(self.factors) * x


def _strength(chain: Chain) -> Float[Array, ""]:
    return jnp.prod(chain.factors)


class DeepModesSystem(AbstractSystem):
    """Three modes, learned at several depths from small aligned weights; and the steps needed, up to depth 512."""

    name: ClassVar[str] = "deep_modes"
    family: ClassVar[str] = "deep_linear"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "learning curves of aligned linear networks at every depth, with depth-independent steps"
    citation: ClassVar[Citation] = Citation("Saxe, McClelland, Ganguli", 2013, "1312.6120")
    claim: ClassVar[Tolerance] = Tolerance(1e-8)

    def run(self, depth: int) -> Run:
        """Modes of strengths 3, 2, 1 from initial strength 0.05, until all are learned."""
        task = LinearTask(jnp.diag(jnp.array([3.0, 2.0, 1.0])))
        model = aligned(task, (4,) * (depth - 1), strength=0.05, key=jax.random.key(0))
        rule = GradientFlow()
        return Run(model, task, rule, DeepModes.from_model(model, task, rule), jnp.linspace(0.0, 5.0, 51))

    def measure(self) -> Float[Array, ""]:
        """The largest relative error of any mode at any time and any depth."""
        runs = [self.run(depth) for depth in (1, 3, 6)]
        return jnp.max(jnp.stack([compare(run.solution, run.simulate()).worst for run in runs]))

    def steps(self, depth: int, *, start: float = 0.3, stop: float = 0.95, fraction: float = 0.02) -> int:
        """Steps of gradient descent, at a fixed fraction of 1/(L s²), until a chain has learned most of s = 1."""
        rule = GradientDescent(fraction / depth)
        ts = rule.time_per_step * jnp.arange(400.0)
        chain = Chain(jnp.full(depth, start ** (1 / depth)))
        run = train(chain, LinearTask(jnp.eye(1)), rule, ts, observe=_strength)
        return int(jnp.argmax(run.observed >= stop))

    def draw(self, figure: Any) -> None:
        """Learning curves of one mode at several depths, and steps against depth with the limit of infinite depth."""
        left, right = figure.subplots(1, 2)
        runs = {depth: self.run(depth) for depth in (1, 2, 3, 5, 8)}
        ts = runs[1].ts
        dense = jnp.linspace(0.0, ts[-1], 401)
        theory = [jax.vmap(run.solution.evaluate)(dense).strength[:, 0] for run in runs.values()]
        simulation = [run.simulate().observed.strength[:, 0] for run in runs.values()]
        labels = [f"L = {depth}" for depth in runs]
        overlay(left, dense, jnp.stack(theory, 1), jnp.stack(simulation, 1), labels, simulated_ts=ts)
        left.set(xlabel="time $t/\\tau$", ylabel="mode strength $u$", title="Depth sharpens the transition")
        fraction, start, stop = 0.02, 0.3, 0.95
        depths = (2, 3, 4, 6, 8, 16, 32, 64, 128, 256, 512)
        limit = infinite_depth_time(start, stop, 1.0) / fraction
        flow = [depth * learning_time(start, stop, 1.0, depth) / fraction for depth in depths]
        descent = [self.steps(depth, start=start, stop=stop, fraction=fraction) for depth in depths]
        right.semilogx(depths, flow, color="C0", label="gradient flow, closed form")
        right.axhline(limit, color="0.5", linestyle=":", label=f"infinite depth: {limit:.1f}")
        right.semilogx(depths, descent, "o", color="C0", mfc="white", label="gradient descent")
        right.set(xlabel="depth $L$", ylabel="steps", ylim=(150, 330), title="Rate 0.02/L: depth is free")
        right.legend(fontsize=8, loc="lower right")
