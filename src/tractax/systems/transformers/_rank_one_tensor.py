"""Three subcircuits that need each other: a plateau, shorter for every one that is clamped to what it should be."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...analysis import compare, crossing_times
from ...core import Kind
from ...plotting import overlay
from ...rules import GradientFlow
from ...training import train
from ...transformers import (
    ClampedTensor,
    RankOneTensor,
    RankOneTensorFlow,
    RankOneTensorTask,
    clamp_factors,
    gaussian_tensor,
    tensor_escape_time,
)
from .._system import AbstractRunSystem, Citation, Run, Tolerance


class RankOneTensorSystem(AbstractRunSystem):
    """Factors of six, five and four entries, from small random weights."""

    name: ClassVar[str] = "rank_one_tensor"
    family: ClassVar[str] = "transformers"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "interacting subcircuits: plateaus of a product of three factors, and clamping them"
    citation: ClassVar[Citation] = Citation("Singh, Moskovitz, Hill, Chan, Saxe", 2024, "2404.07129")
    claim: ClassVar[Tolerance] = Tolerance(1e-8)

    def run(self, clamped: str = "") -> Run:
        """With some of the factors `"abc"` clamped to the truth."""
        task = _task()
        model, rule = clamp_factors(_draw(0), task, clamped)
        ts = jnp.linspace(0.0, 700.0, 141)
        if clamped:
            return Run(model, task, rule, ClampedTensor.from_model(model, task, rule), ts)
        return Run(model, task, rule, RankOneTensorFlow.from_model(model, task, rule, t1=ts[-1]), ts)

    def measure(self) -> Float[Array, ""]:
        """The largest relative error of the overlaps at any time, with no factor clamped, one, and two."""
        runs = [self.run(clamped) for clamped in ("", "c", "bc")]
        return jnp.max(jnp.stack([compare(run.solution, run.simulate()).worst for run in runs]))

    def draw(self, figure: Any) -> None:
        """The loss with none, one and two factors clamped; a sign flip; escape times of random starts."""
        losses, signs, times = figure.subplots(1, 3)
        runs = {name: self.run(clamped) for name, clamped in (("none", ""), ("c", "c"), ("b and c", "bc"))}
        ts = next(iter(runs.values())).ts
        theory = jnp.stack([jax.vmap(run.solution.loss)(ts) for run in runs.values()], axis=1)
        found = jnp.stack([train(r.model, r.task, r.rule, ts).observed for r in runs.values()], axis=1)
        overlay(losses, ts, theory, found, [f"clamped: {name}" for name in runs])
        losses.set(xlabel="time $t/\\tau$", ylabel="loss", title="Clamped subcircuits", ylim=(0, None))

        task, model = _task(), _flip(_draw(0), _task())
        flow = RankOneTensorFlow.from_model(model, task, t1=1400.0)
        ts = jnp.linspace(0.0, 1400.0, 141)
        predicted = jax.vmap(flow.evaluate)(ts).along
        simulated = train(model, task, GradientFlow(), ts, observe=flow.reduce).observed.along
        overlay(signs, ts, predicted, simulated, ["$m_a$", "$m_b$", "$m_c$"])
        signs.axhline(0.0, color="0.7", ls=":", lw=1)
        signs.set(xlabel="time $t/\\tau$", ylabel="overlap with the truth", title="A sign has to flip first")

        names = {1: ("C0", "$m_am_bm_c > 0$"), -1: ("C3", "$m_am_bm_c < 0$")}
        line = jnp.asarray([8e2, 2e4])
        times.plot(line, line, color="0.3", lw=1)
        for sign, (colour, label) in names.items():
            pairs = [_times(sign, seed) for seed in range(12)]
            times.plot(*zip(*pairs, strict=True), "o", color=colour, mfc="white", ms=4, label=label)
        times.set(xscale="log", yscale="log", xlabel="predicted", ylabel="simulated", title="Time of half the loss")
        times.legend(fontsize=8)


def _task() -> RankOneTensorTask:
    return RankOneTensorTask(gaussian_tensor((6, 5, 4), scale=1.0, key=jax.random.key(7)))


def _draw(seed: int, scale: float = 0.1) -> RankOneTensor:
    """A small start, such that the product of the overlaps is positive."""
    model, truth = gaussian_tensor((6, 5, 4), scale=scale, key=jax.random.key(seed)), _task().truth
    product = jnp.prod(jnp.stack([x @ y for x, y in zip(model.factors, truth.factors, strict=True)]))
    return RankOneTensor(jnp.sign(product) * model.a, model.b, model.c)


def _flip(model: RankOneTensor, task: RankOneTensorTask) -> RankOneTensor:
    """The same with `a` mirrored in the plane across its true value."""
    unit = task.truth.a / jnp.linalg.norm(task.truth.a)
    return RankOneTensor(model.a - 2 * (unit @ model.a) * unit, model.b, model.c)


def _times(sign: int, seed: int) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Predicted and simulated."""
    task, model = _task(), _draw(seed, 0.02)
    model = model if sign > 0 else _flip(model, task)
    predicted = tensor_escape_time(model, task)
    ts = predicted * jnp.linspace(0.5, 1.5, 101)
    found = train(model, task, GradientFlow(), ts).observed
    return predicted, crossing_times(ts, found[:, None], task.strength**2 / (4 * task.entries))[0]
