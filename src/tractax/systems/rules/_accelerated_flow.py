"""Momentum methods and the differential equations that they follow."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...analysis import Scaling, scaling
from ...core import AbstractFlowRule, AbstractRule, Kind
from ...deep_linear import DeepLinear, RegressionTask
from ...rules import (
    HeavyBall,
    HeavyBallFlow,
    Nesterov,
    NesterovFlow,
    QuadraticAcceleration,
    nesterov_bound,
    strongly_convex_momentum,
)
from ...training import train
from .._system import AbstractSystem, Citation, Exponent
from ._small_cases import flat, tanh_network, tight

_TIME = 2.0
_ROOTS = (0.2, 0.1, 0.05, 0.025)
_CONVEXITY = 0.25


class AcceleratedFlowSystem(AbstractSystem):
    """A two-layer tanh network with a bias, fitted to four examples."""

    name: ClassVar[str] = "accelerated_flow"
    family: ClassVar[str] = "rules"
    kind: ClassVar[Kind] = "asymptotic"
    summary: ClassVar[str] = "heavy ball and Nesterov's method follow flows of second order in time"
    citation: ClassVar[Citation] = Citation("Shi, Du, Jordan, Su", 2018, "1810.08907")
    claim: ClassVar[Exponent] = Exponent(2.0, "exponent in √s, Nesterov's flow of high resolution")

    def drift(self, steps: AbstractRule, flow: AbstractFlowRule) -> Float[Array, ""]:
        """The distance between the parameters of steps and of a flow at a fixed time."""
        model, task = tanh_network()
        stepped = train(model, task, steps, [_TIME], observe=flat).observed[0]
        flowed = train(model, task, flow, [_TIME], observe=flat, **tight(flow)).observed[0]
        return jnp.linalg.norm(stepped - flowed)

    def measure(self) -> Scaling:
        """The rate at which the drift at a fixed time falls with the root of the learning rate."""
        return scaling(lambda h: self.drift(Nesterov(h**2), NesterovFlow(h**2)), _ROOTS, correction=1.0)

    def draw(self, figure: Any) -> None:
        """The loss of Nesterov's method on a quadratic, its bound, and the drifts of three methods from their flows."""
        loss, drift = figure.subplots(1, 2)
        self._draw_quadratic(loss)
        roots = jnp.asarray(_ROOTS)
        for colour, (label, pair) in zip(("tab:blue", "tab:red", "tab:green"), _methods().items(), strict=True):
            for order, marker in ((1, "o"), (2, "s")):
                drifts = jnp.stack([self.drift(*pair(h, order)) for h in _ROOTS])
                drift.loglog(roots, drifts, marker, color=colour, mfc="white", ms=6)
                drift.loglog(roots, drifts[-1] * (roots / roots[-1]) ** order, color=colour, lw=1.2)
            drift.plot([], [], color=colour, label=label)
        drift.plot([], [], "o", color="0.3", mfc="white", label="low resolution, slope 1")
        drift.plot([], [], "s", color="0.3", mfc="white", label="high resolution, slope 2")
        drift.set(xlabel=r"$\sqrt{s}$", ylabel="distance from the steps", title=f"tanh network at $t = {_TIME:g}$")
        drift.set_xticks(_ROOTS, [f"{h:g}" for h in _ROOTS])
        drift.minorticks_off()
        drift.set_ylim(top=3.0)
        drift.legend(fontsize=8, loc="upper left", ncols=2, columnspacing=1.0)

    def _draw_quadratic(self, axes: Any) -> None:
        curvatures = jnp.asarray([1.0, 0.1, 0.01])
        task = RegressionTask(jnp.diag(jnp.sqrt(3 * curvatures)), jnp.zeros((3, 1)))
        model = DeepLinear((jnp.asarray([[1.0, -0.6, 0.5]]),))
        s = 0.01
        ts = jnp.linspace(0.01, 60, 1500)
        solution = QuadraticAcceleration.from_model(model, task, NesterovFlow(s, order=1))
        theory = jax.vmap(solution.evaluate)(ts).loss
        axes.semilogy(ts, theory, color="tab:blue", lw=1.2, label="flow: Bessel functions")
        run = train(model, task, Nesterov(s), jnp.sqrt(s) * jnp.arange(0.0, 600.0, 12.0), observe=task.loss)
        axes.semilogy(run.ts, run.observed, "o", color="tab:blue", mfc="white", ms=3.5, label="Nesterov's steps")
        distance = jnp.linalg.norm(model.weights[0])
        axes.semilogy(ts, nesterov_bound(ts, distance), "--", color="0.3", label=r"bound $2d^2/t^2$")
        axes.set(xlabel=r"time $t = k\sqrt{s}$", ylabel="loss", title="quadratic loss", ylim=(1e-6, 30.0))
        axes.legend(fontsize=8, loc="upper right")


def _methods() -> dict[str, Any]:
    """Steps and flow, as functions of the root of the learning rate and the order."""

    def growing(h: float, order: int) -> tuple[AbstractRule, AbstractFlowRule]:
        return Nesterov(h**2), NesterovFlow(h**2, order=order)

    def constant(h: float, order: int) -> tuple[AbstractRule, AbstractFlowRule]:
        beta = strongly_convex_momentum(h**2, _CONVEXITY)
        return Nesterov(h**2, beta), NesterovFlow(h**2, beta, order)

    def heavy(h: float, order: int) -> tuple[AbstractRule, AbstractFlowRule]:
        beta = strongly_convex_momentum(h**2, _CONVEXITY)
        return HeavyBall(h**2, beta), HeavyBallFlow(h**2, beta, order)

    return {"Nesterov, growing momentum": growing, "Nesterov, constant momentum": constant, "heavy ball": heavy}
