"""Grokking from lazy to rich: the test error of a network of quadratic units falls after its training error."""

from typing import Any, ClassVar

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...analysis import crossing_times
from ...core import Kind
from ...plotting import overlay
from ...rules import GradientFlow
from ...training import train
from ...two_layer import PolynomialGrokking, PolynomialTask, gaussian_polynomial_network, squared_projection
from .._system import AbstractRunSystem, AbstractSystem, Citation, Run, Signature, Tolerance

_CITATION = Citation("Kumar, Bordelon, Gershman, Pehlevan", 2023, "2310.06110")


class PolynomialGrokkingSystem(AbstractRunSystem):
    """Eight units, four inputs, nine examples: the moments of the weights against the weights."""

    name: ClassVar[str] = "polynomial_grokking"
    family: ClassVar[str] = "two_layer"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "networks of quadratic units, in two moments of their weights: training and test error"
    citation: ClassVar[Citation] = _CITATION
    claim: ClassVar[Tolerance] = Tolerance(1e-8)

    def run(self) -> Run:
        """From lazy to rich, on the square of a projection."""
        model, task, rule = grokking_case(jax.random.key(0), jnp.asarray(2.0), inputs=4, hidden=8, examples=9)
        solution = PolynomialGrokking.from_model(model, task, rule, t1=60.0)
        return Run(model, task, rule, solution, jnp.linspace(0.0, 60.0, 31))

    def draw(self, figure: Any) -> None:
        """Training and test error over time, of a network that is rich and of one that is lazy."""
        panels = figure.subplots(1, 2, sharey=True)
        ts = jnp.append(jnp.zeros(1), jnp.geomspace(1.0, 3000.0, 120))
        for axes, scale in zip(panels, (0.5, 4.0), strict=True):
            model, task, rule = grokking_case(jax.random.key(3), jnp.asarray(scale))
            theory = grokking_errors(jax.random.key(3), jnp.asarray(scale), ts)
            observe = (lambda model, task=task: 2 * task.loss(model), task.test_error)
            simulated = jnp.stack(train(model, task, rule, ts, observe=observe).observed, axis=1)
            start = theory[0]
            labels = ["training error", "test error"]
            overlay(axes, ts[1:], (theory / start[None])[1:], (simulated / start[None])[1:], labels, markers=20)
            for (name, level), at in zip((("1 %", 0.01), ("5 %", 0.05)), _levels(ts, theory), strict=True):
                axes.plot([at], [level], "s", color="C3", ms=6, zorder=5)
                axes.annotate(name, (float(at), level), (6, 4), textcoords="offset points", color="C3", fontsize=8)
            axes.set(xscale="log", yscale="log", ylim=(1e-4, 3), xlabel="time $t$, at $\\tau = \\alpha^2/N$")
            learned, generalised = _levels(ts, theory)
            gap = float(generalised / learned)
            axes.set_title(f"$\\alpha = {scale:g}$: the test error is {gap:.1f} times later")
        panels[0].set_ylabel("mean squared error, relative to the start")
        panels[1].get_legend().remove()
        panels[0].legend(fontsize=8, frameon=False, loc="lower left")


class GrokkingGapSystem(AbstractSystem):
    """Thirty units, eight inputs, forty examples, from the moments: when training and test errors are small."""

    name: ClassVar[str] = "grokking_gap"
    family: ClassVar[str] = "two_layer"
    kind: ClassVar[Kind] = "phenomenon"
    summary: ClassVar[str] = "the lazier a network, the longer after its training error the test error falls"
    citation: ClassVar[Citation] = _CITATION
    claim: ClassVar[Signature] = Signature(2.0, "mean growth of t(test < 5 %)/t(train < 1 %) from α = 0.5 to 8")

    def measure(self) -> float:
        """The geometric mean over six draws, a lower bound: a test error that is not below 5 % at the end counts as if.

        NaN if the gap of any draw shrinks.
        """
        first, last = grokking_gaps(np.asarray([0.5, 8.0]), draws=6, censored=True)
        return float(np.exp(np.mean(np.log(last / first)))) if np.all(last > first) else float("nan")

    def draw(self, figure: Any) -> None:
        """The gap against the scale of the outputs, each draw a line."""
        axes = figure.subplots()
        scales = np.geomspace(0.5, 8.0, 9)
        gaps = grokking_gaps(scales, draws=6)
        for i, line in enumerate(gaps.T):
            axes.loglog(scales, line, "o-", color=f"C{i}", mfc="white", ms=4, lw=1.2)
        axes.set(xlabel="scale $\\alpha$ of the outputs", ylabel="$t$(test < 5 %) / $t$(train < 1 %)")
        axes.set_title("Lazier networks grok later: six draws")
        axes.set_xticks([0.5, 1, 2, 4, 8], ["0.5", "1", "2", "4", "8"])
        axes.minorticks_off()
        axes.set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])


def grokking_case(key: Array, scale: Array, *, inputs: int = 8, hidden: int = 30, examples: int = 40) -> Any:
    """A network, its centred task and the flow in whose time its outputs move at a speed of order one."""
    directions, examples_key, weights = jax.random.split(key, 3)
    beta = jax.random.normal(directions, (inputs,))
    beta = beta * inputs**0.5 / jnp.linalg.norm(beta)
    model = gaussian_polynomial_network(inputs, hidden, scale, 0.25, key=weights)
    task = PolynomialTask.draw(squared_projection(beta), examples, key=examples_key).centred(model)
    return model, task, GradientFlow(model.time_constant)


def grokking_errors(key: Array, scale: Array, ts: Float[Array, " times"]) -> Float[Array, "times 2"]:
    """The training and the test error over time, from the moments."""
    model, task, rule = grokking_case(key, scale)
    solution = PolynomialGrokking.from_model(
        model,
        task,
        rule,
        t1=ts[-1],
        solver=diffrax.Tsit5(),
        stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-9),
        max_steps=8192,
    )
    return _errors(solution, ts)


def grokking_gaps(scales: np.ndarray, *, draws: int, last: float = 20000.0, censored: bool = False) -> np.ndarray:
    """How many times later the test error is below 5 % than the training error below 1 %, by scale and draw.

    Where the test error is not below 5 % by the time `last`: NaN, or `censored`, as if it were then.
    """
    ts = jnp.append(jnp.zeros(1), jnp.geomspace(1.0, last, 400))
    keys = jax.random.split(jax.random.key(0), draws)
    times = np.asarray([[_levels(ts, grokking_errors(key, jnp.asarray(scale), ts)) for key in keys] for scale in scales])
    learned, generalised = times[..., 0], times[..., 1]
    return np.where(np.isnan(generalised) & censored, last, generalised) / learned


@jax.jit
def _errors(solution: PolynomialGrokking, ts: Float[Array, " times"]) -> Float[Array, "times 2"]:
    return jax.vmap(lambda t: jnp.stack([solution.train_error(t), solution.test_error(t)]))(ts)


def _levels(ts: Array, errors: Float[Array, "times 2"]) -> Float[Array, "2"]:
    return crossing_times(ts, errors / errors[0][None], jnp.asarray([0.01, 0.05]))
