"""A quadratic loss: steps of descent and the flows that stand for them, below and above the learning rate 1/λ."""

from typing import Any, ClassVar

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...analysis import compare
from ...core import AbstractFlowRule, AbstractRule, Kind
from ...rules import GradientDescent, ModifiedFlow, PrincipalFlow, QuadraticDescent
from ...training import train
from .._system import AbstractSystem, Citation, Tolerance
from ._small_cases import single_layer


class QuadraticDescentSystem(AbstractSystem):
    """Linear regression by a single layer, from three examples of two inputs."""

    name: ClassVar[str] = "quadratic_descent"
    family: ClassVar[str] = "rules"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "descent, its modified flows and its principal flow on a quadratic loss"
    citation: ClassVar[Citation] = Citation("Rosca, Wu, Qin, Dherin", 2023, "2302.01952")
    claim: ClassVar[Tolerance] = Tolerance(1e-8)

    def error(self, rule: AbstractRule, ts: Float[Array, " times"]) -> Float[Array, ""]:
        """The largest relative error of the modes and the loss."""
        model, task = single_layer()
        solution = QuadraticDescent.from_model(model, task, rule)
        options = {}
        if isinstance(rule, AbstractFlowRule):
            controller = diffrax.PIDController(rtol=1e-10, atol=1e-14)
            options = {"solver": diffrax.Dopri8(), "stepsize_controller": controller}
        return compare(solution, train(model, task, rule, ts, observe=solution.reduce, **options)).worst

    def measure(self) -> Float[Array, ""]:
        """Steps below, between and above 1/λ and 2/λ; a modified flow and the principal flow."""
        slow, steps = 0.5, jnp.arange(1.0, 21.0)
        errors = [self.error(rule, slow * steps) for rule in (ModifiedFlow(slow, 4), PrincipalFlow(slow))]
        errors += [self.error(GradientDescent(rate), rate * steps) for rate in (slow, 1.6, 2.2)]
        return jnp.max(jnp.stack(errors))

    def draw(self, figure: Any) -> None:
        """The stiffest mode at three learning rates: steps, modified flows and the real part of the principal flow."""
        import matplotlib

        model, task = single_layer()
        curvature = QuadraticDescent.from_model(model, task, GradientDescent(1.0)).curvatures[-1]
        colours = matplotlib.colormaps["viridis"]([0.0, 0.35, 0.7])
        panels = figure.subplots(1, 3)
        for axes, sharpness, last in zip(panels, (0.6, 1.5, 2.1), (6, 8, 8), strict=True):
            rate = sharpness / curvature
            descent = GradientDescent(rate)
            solution = QuadraticDescent.from_model(model, task, descent)
            scale = solution.initial.gradient[-1]
            fine, steps = jnp.linspace(0, last, 241), jnp.arange(last + 1.0)
            for order, colour in zip((1, 2, 3), colours, strict=True):
                flow = QuadraticDescent.from_model(model, task, ModifiedFlow(rate, order))
                axes.plot(fine, _mode(flow, fine * rate) / scale, color=colour, label=f"order {order}")
            axes.plot(fine, _mode(solution, fine * rate) / scale, color="tab:red", lw=1.2, label="principal flow")
            run = train(model, task, descent, steps * rate, observe=solution.reduce)
            axes.plot(steps, run.observed.gradient[:, -1] / scale, "o", color="k", mfc="white", ms=5, label="descent")
            axes.axhline(0.0, color="0.8", lw=0.8, zorder=0)
            axes.set(xlabel="steps $k = t/h$", title=f"$h\\lambda = {sharpness}$")
        panels[0].set(ylabel="gradient along the stiffest mode")
        panels[0].legend(fontsize=8)


def _mode(solution: QuadraticDescent, ts: Float[Array, " times"]) -> Array:
    return jax.vmap(solution.evaluate)(ts).gradient[:, -1]
