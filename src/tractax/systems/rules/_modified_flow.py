"""Drift of gradient descent from gradient flow, and the modified flows that follow it."""

from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from ...analysis import Scaling, scaling
from ...core import AbstractFlowRule, AbstractRule, Kind
from ...rules import GradientDescent, ModifiedFlow, PrincipalFlow
from ...training import train
from .._system import AbstractSystem, Citation, Exponent
from ._small_cases import flat, tanh_network, tight

_TIME = 2.0
_RATES = (0.2, 0.1, 0.05, 0.025)


class ModifiedFlowSystem(AbstractSystem):
    """A two-layer tanh network with a bias, fitted to four examples."""

    name: ClassVar[str] = "modified_flow"
    family: ClassVar[str] = "rules"
    kind: ClassVar[Kind] = "asymptotic"
    summary: ClassVar[str] = "gradient descent drifts from gradient flow, less and less from its modified flows"
    citation: ClassVar[Citation] = Citation("Barrett, Dherin", 2021, "2009.11162")
    claim: ClassVar[Exponent] = Exponent(3.0, "exponent in the learning rate, flow of order 3")

    def parameters(self, rule: AbstractRule, ts: Float[Array, " times"]) -> Float[Array, "times parameters"]:
        """The parameters along the way; flows integrated far more tightly than they differ from descent."""
        model, task = tanh_network()
        return train(model, task, rule, ts, observe=flat, **tight(rule)).observed

    def drift(self, flow: AbstractFlowRule, rate: Any, ts: Float[Array, " times"]) -> Float[Array, " times"]:
        """The distance of the parameters from those of descent."""
        apart = self.parameters(GradientDescent(rate), ts) - self.parameters(flow, ts)
        return jnp.linalg.norm(apart, axis=1)

    def measure(self) -> Scaling:
        """The rate at which the drift at a fixed time falls with the learning rate."""
        ts = jnp.asarray([_TIME])
        return scaling(lambda rate: self.drift(ModifiedFlow(rate, 3), rate, ts), _RATES, correction=1.0)

    def draw(self, figure: Any) -> None:
        """The drift in the course of training, and at a fixed time against the learning rate."""
        import matplotlib

        colours = matplotlib.colormaps["viridis"]([0.0, 0.28, 0.56, 0.84])
        along, against = figure.subplots(1, 2)
        rate, fixed = 0.1, jnp.asarray([_TIME])
        ts = rate * jnp.arange(1.0, 81.0)
        curves = [(f"order {p}", ModifiedFlow, (p,), colours[p - 1]) for p in range(1, 5)]
        curves[0] = ("order 1, gradient flow", *curves[0][1:])
        for label, flow, order, colour in [*curves, ("principal flow", PrincipalFlow, (), "tab:red")]:
            along.semilogy(ts, self.drift(flow(rate, *order), rate, ts), color=colour, label=label)
            drifts = jnp.concatenate([self.drift(flow(h, *order), h, fixed) for h in _RATES])
            exponent = order[0] if order else 2
            rates = jnp.asarray(_RATES)
            against.loglog(rates, drifts, "o" if order else "s", color=colour, mfc="white", ms=6, ls="none")
            against.loglog(rates, drifts[-1] * (rates / rates[-1]) ** exponent, color=colour, lw=1.2)
            above = (rates[-1] * 0.93, drifts[-1])
            against.annotate(f"$h^{exponent}$", above, ha="right", va="center", color=colour)
        along.set(xlabel="time $t = hk$", ylabel="distance from gradient descent", title=f"learning rate $h = {rate}$")
        against.set(xlabel="learning rate $h$", title=f"time $t = {_TIME:g}$", xlim=(0.018, 0.25))
        against.set_xticks(_RATES, [f"{rate:g}" for rate in _RATES])
        against.minorticks_off()
        against.plot([], [], "o", color="0.3", mfc="white", label="measured")
        against.plot([], [], color="0.3", label="predicted power")
        along.set_ylim(top=0.5)
        along.legend(fontsize=8, ncols=2, loc="upper right")
        against.legend(fontsize=8, loc="lower right")
