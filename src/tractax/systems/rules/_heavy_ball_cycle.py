"""Heavy ball need not converge on a strongly convex loss."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...core import AbstractStepRule, Kind
from ...deep_linear import DeepLinear
from ...rules import HeavyBall, SlopeChange, TripleMomentum
from ...training import train
from .._system import AbstractSystem, Citation, Tolerance

_SMOOTHNESS, _CONVEXITY = 25.0, 1.0


class HeavyBallCycleSystem(AbstractSystem):
    """A loss of one number whose curvature is 25, then 1, then 25 again."""

    name: ClassVar[str] = "heavy_ball_cycle"
    family: ClassVar[str] = "rules"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "a strongly convex loss on which heavy ball cycles for ever"
    citation: ClassVar[Citation] = Citation("Lessard, Recht, Packard", 2016, "1408.3595")
    claim: ClassVar[Tolerance] = Tolerance(1e-12, "distance from the cycle")

    def path(
        self, rule: AbstractStepRule, start: Float[Array, ""], steps: Float[Array, " steps"]
    ) -> Float[Array, " steps"]:
        """The number after so many steps."""
        model = DeepLinear((jnp.reshape(start, (1, 1)),))
        return train(model, SlopeChange(), rule, steps * rule.time_per_step, observe=_number).observed

    def measure(self) -> Float[Array, ""]:
        """The largest distance of three late iterates from the cycle, over many starts."""
        rule = HeavyBall.for_quadratics(_SMOOTHNESS, _CONVEXITY)
        late = 300 + jnp.arange(3.0)
        ends = jax.vmap(lambda start: self.path(rule, start, late))(jnp.linspace(3.07, 3.46, 9))
        return jnp.max(jnp.abs(ends - SlopeChange.cycle()[None, :]))

    def draw(self, figure: Any) -> None:
        """The cycle on the derivative of the loss, and two methods from the same start."""
        slope, along = figure.subplots(1, 2)
        xs = jnp.linspace(-2.5, 3.5, 601)
        derivative = jax.vmap(jax.grad(lambda x: SlopeChange().loss(x)))
        slope.plot(xs, derivative(xs), color="0.3")
        cycle = SlopeChange.cycle()
        heavy = HeavyBall.for_quadratics(_SMOOTHNESS, _CONVEXITY)
        ends = self.path(heavy, jnp.asarray(3.3), 300 + jnp.arange(3.0))
        slope.axhline(0.0, color="0.8", lw=0.8, zorder=0)
        slope.vlines(cycle, 0, derivative(cycle), color="tab:orange", lw=1.2)
        slope.plot(ends, derivative(ends), "o", color="tab:orange", mfc="white", ms=7)
        slope.plot([], [], color="0.3", label="$L'(x)$")
        slope.plot([], [], color="tab:orange", label="cycle, predicted")
        slope.plot([], [], "o", color="tab:orange", mfc="white", ms=7, label="heavy ball after 300 steps")
        slope.set(xlabel="$x$", ylabel="derivative of the loss")
        slope.legend(fontsize=8, loc="upper left")

        steps = jnp.arange(0.0, 101.0)
        triple = TripleMomentum(_SMOOTHNESS, _CONVEXITY)
        for label, rule, colour in (("heavy ball", heavy, "tab:orange"), ("triple momentum", triple, "tab:green")):
            sizes = jnp.abs(self.path(rule, jnp.asarray(3.3), steps))
            along.semilogy(steps, sizes, "o", color=colour, mfc="white", ms=3.5, label=label)
        along.semilogy(steps, 3.3 * triple.rate**steps, color="tab:green", lw=1.2, label=r"$\rho^k$, predicted")
        along.set(xlabel="steps $k$", ylabel="distance from the minimum", ylim=(1e-11, 1e3))
        along.legend(fontsize=8, loc="lower left")


def _number(model: DeepLinear) -> Array:
    return model.weights[0][0, 0]
