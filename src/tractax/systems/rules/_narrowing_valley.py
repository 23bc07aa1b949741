"""A narrowing river valley, where noise holds descent back."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ...analysis import Scaling, scaling
from ...core import Kind
from ...rules import NarrowingValley, QuasiStaticRiver, RiverPoint, RiverState, ScheduledDescent
from ...training import ensemble, train
from .._system import AbstractSystem, Citation, Exponent

_RATES = (0.2, 0.1, 0.05)
# η²k, the time in which slope and noise, both proportional to η, move by order one.
_TIME = 1.8


class NarrowingValleySystem(AbstractSystem):
    """The mean position of many runs along a river of slope η/10 in a valley of curvature 1 + y², at a fixed η²k."""

    name: ClassVar[str] = "narrowing_valley"
    family: ClassVar[str] = "rules"
    kind: ClassVar[Kind] = "asymptotic"
    summary: ClassVar[str] = "noise pushes descent out of a narrowing valley, as far as the learning rate says"
    citation: ClassVar[Citation] = Citation("Wen, Li, Wang, Hall, Liang, Ma", 2024, "2410.05192")
    claim: ClassVar[Exponent] = Exponent(1.0, "exponent in the learning rate")

    def solve(self, rate: ArrayLike) -> QuasiStaticRiver:
        """The quasi-static river."""
        return QuasiStaticRiver.from_model(*_case(rate), steps=_steps(rate))

    def runs(self, rate: ArrayLike, ts: Float[Array, " times"], number: int) -> RiverState:
        """As many runs, at some numbers of steps."""
        model, task, rule = _case(rate)
        reduce = self.solve(rate).reduce
        keys = jax.random.split(jax.random.key(0), number)
        return ensemble(lambda key: train(model, task, rule, ts, observe=reduce, key=key).observed, keys)

    def errors(self, rate: float) -> Float[Array, " repeats"]:
        """How far the mean position of 8 times 4000 runs ends from the quasi-static one."""
        end = jnp.asarray([float(_steps(rate))])
        found = self.runs(rate, end, 32_000).river.reshape(8, 4000)
        return jnp.mean(found, axis=1) - self.solve(rate).evaluate(end[0]).river

    def measure(self) -> Scaling:
        """The rate at which the error falls with the learning rate."""
        return scaling(self.errors, _RATES)

    def draw(self, figure: Any) -> None:
        """The mean position for the largest and the smallest learning rate, and the errors at the end."""
        import matplotlib

        during, against = figure.subplots(1, 2)
        colours = matplotlib.colormaps["viridis"]([0.0, 0.6])
        for rate, colour in zip(_RATES[::2], colours, strict=True):
            steps = _steps(rate)
            ts = jnp.round(jnp.linspace(0.0, steps, 16))
            theory = jax.vmap(self.solve(rate).evaluate)(jnp.arange(steps + 1.0)).river
            found = jnp.mean(self.runs(rate, ts, 8000).river, axis=0)
            during.plot(rate**2 * jnp.arange(steps + 1), theory, color=colour, label=f"theory, $\\eta = {rate}$")
            during.plot(rate**2 * ts, found, "o", color=colour, mfc="white", ms=4, label=f"simulation, $\\eta = {rate}$")
        during.set(xlabel="$\\eta^2k$", ylabel="position $y$ along the river", title="Mean of 8000 runs")
        during.legend(fontsize=8)
        fit = self.measure()
        against.loglog(fit.sizes, fit.errors, "o", color="C0", mfc="white", label="simulation")
        against.loglog(fit.sizes, fit.errors[1] * fit.sizes / fit.sizes[1], color="0.6", ls="--", label="slope 1")
        against.set(xlabel="learning rate $\\eta$", ylabel="error of the mean position")
        against.legend(fontsize=8)


def _steps(rate: ArrayLike) -> int:
    return round(_TIME / float(rate) ** 2)


def _case(rate: ArrayLike) -> tuple[RiverPoint, NarrowingValley, ScheduledDescent]:
    eta = jnp.asarray(rate)
    return RiverPoint(0.0, 0.8), NarrowingValley(_curvature, eta / 10, 1.0), ScheduledDescent(eta[None], batch_size=1)


def _curvature(y: Array) -> Array:
    return 1 + y**2
