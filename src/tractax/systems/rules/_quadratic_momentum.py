"""A quadratic loss: momentum methods and their flows, and how fast each of them converges."""

from typing import Any, ClassVar

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...analysis import compare
from ...core import AbstractRule, Kind
from ...deep_linear import DeepLinear, RegressionTask
from ...rules import (
    HeavyBall,
    Nesterov,
    NesterovFlow,
    QuadraticAcceleration,
    QuadraticMomentum,
    TripleMomentum,
    strongly_convex_momentum,
)
from ...training import train
from .._system import AbstractSystem, Citation, Tolerance
from ._small_cases import single_layer

_SMOOTHNESS, _CONVEXITY = 25.0, 1.0


class QuadraticMomentumSystem(AbstractSystem):
    """Linear regression by a single layer, from three examples of two inputs."""

    name: ClassVar[str] = "quadratic_momentum"
    family: ClassVar[str] = "rules"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "momentum methods and their flows on a quadratic loss, mode by mode"
    citation: ClassVar[Citation] = Citation("Lessard, Recht, Packard", 2016, "1408.3595")
    claim: ClassVar[Tolerance] = Tolerance(1e-8)

    def error(self, rule: AbstractRule) -> Float[Array, ""]:
        """The largest relative error of the modes and the loss."""
        model, task = single_layer()
        if isinstance(rule, HeavyBall | Nesterov | TripleMomentum):
            solution = QuadraticMomentum.from_model(model, task, rule)
            ts = rule.time_per_step * jnp.arange(0.0, 60.0, 3.0)
            return compare(solution, train(model, task, rule, ts, observe=solution.reduce)).worst
        solution = QuadraticAcceleration.from_model(model, task, rule)
        tight = diffrax.PIDController(rtol=1e-11, atol=1e-14)
        ts, options = jnp.linspace(0, 12, 31), {"solver": diffrax.Tsit5(), "stepsize_controller": tight}
        return compare(solution, train(model, task, rule, ts, observe=solution.reduce, **options)).worst

    def measure(self) -> Float[Array, ""]:
        """Steps of three sequences, and two flows: an oscillator and Bessel functions."""
        rules = (TripleMomentum(2.0, 0.3), NesterovFlow(0.05, 0.8), NesterovFlow(0.05, order=1))
        return jnp.max(jnp.stack([self.error(rule) for rule in rules]))

    def draw(self, figure: Any) -> None:
        """The rate of every curvature within a range, and the slowest mode along the way."""
        rates, mode = figure.subplots(1, 2)
        curvatures = jnp.linspace(_CONVEXITY, _SMOOTHNESS, 200)
        for (label, rule), colour in zip(_tuned().items(), ("tab:orange", "tab:blue", "tab:green"), strict=True):
            line = jax.vmap(lambda curvature, rule=rule: _solve(curvature, rule).rates[0])(curvatures)
            rates.plot(curvatures, line, color=colour, label=label)
            sampled = jnp.linspace(_CONVEXITY, _SMOOTHNESS, 9)
            found = jax.vmap(lambda curvature, rule=rule: _measured(curvature, rule))(sampled)
            rates.plot(sampled, found, "o", color=colour, mfc="white", ms=5)
            steps = jnp.arange(0.0, 41.0)
            solution = _solve(jnp.asarray(_CONVEXITY), rule)
            theory = jax.vmap(solution.evaluate)(steps * rule.time_per_step).gradient[:, 0]
            model, task = _single(jnp.asarray(_CONVEXITY))
            run = train(model, task, rule, steps[::2] * rule.time_per_step, observe=solution.reduce)
            mode.semilogy(steps, jnp.abs(theory), color=colour, lw=1.2)
            mode.semilogy(steps[::2], jnp.abs(run.observed.gradient[:, 0]), "o", color=colour, mfc="white", ms=4)
        rates.axhline(1 - (_CONVEXITY / _SMOOTHNESS) ** 0.5, color="0.6", lw=0.8, ls="--")
        rates.annotate(r"$1 - \sqrt{\mu/\ell}$", (13, 0.805), fontsize=8, color="0.4", ha="center", va="bottom")
        rates.set(xlabel=r"curvature $\lambda$", ylabel="factor per step", title=r"$\mu = 1$, $\ell = 25$", ylim=(0, 1))
        rates.plot([], [], "o", color="0.3", mfc="white", ms=5, label="measured")
        rates.legend(fontsize=8, loc="lower left")
        mode.set(xlabel="steps $k$", ylabel="gradient of the flattest mode", title=r"$\lambda = \mu$")


def _tuned() -> dict[str, HeavyBall | Nesterov | TripleMomentum]:
    """The methods at their best for curvatures of a range."""
    s = 1 / _SMOOTHNESS
    return {
        "heavy ball": HeavyBall.for_quadratics(_SMOOTHNESS, _CONVEXITY),
        "Nesterov": Nesterov(s, strongly_convex_momentum(s, _CONVEXITY)),
        "triple momentum": TripleMomentum(_SMOOTHNESS, _CONVEXITY),
    }


def _single(curvature: Float[Array, ""]) -> tuple[DeepLinear, RegressionTask]:
    """A loss of one number."""
    return DeepLinear((jnp.ones((1, 1)),)), RegressionTask(jnp.sqrt(curvature)[None, None], jnp.zeros((1, 1)))


def _solve(curvature: Float[Array, ""], rule: HeavyBall | Nesterov | TripleMomentum) -> QuadraticMomentum:
    return QuadraticMomentum.from_model(*_single(curvature), rule)


def _measured(curvature: Float[Array, ""], rule: HeavyBall | Nesterov | TripleMomentum) -> Float[Array, ""]:
    """The mean factor over a window of steps, late enough for a mode to shrink as it finally does."""
    model, task = _single(curvature)
    window = 60
    ts = rule.time_per_step * jnp.arange(1.0, 3 * window + 1)
    sizes = jnp.abs(train(model, task, rule, ts, observe=lambda m: m.weights[0][0, 0]).observed)
    peaks = jnp.max(sizes.reshape(3, window), axis=1)
    return (peaks[2] / peaks[1]) ** (1 / window)
