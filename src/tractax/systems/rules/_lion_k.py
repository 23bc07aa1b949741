"""Lion-K: a Lyapunov function that never increases."""

from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...core import Kind, Objective
from ...rules import LionKFlow, LionState, SmoothAbsolute
from .._system import AbstractSystem, Citation, Tolerance
from ._small_cases import tanh_network


class LionKSystem(AbstractSystem):
    """A two-layer tanh network with a bias, fitted to four examples by a smooth version of Lion."""

    name: ClassVar[str] = "lion_k"
    family: ClassVar[str] = "rules"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "Lion-K descends a Lyapunov function, at a rate known in closed form"
    citation: ClassVar[Citation] = Citation("Chen, Liu, Liang, Liu", 2023, "2310.05898")
    claim: ClassVar[Tolerance] = Tolerance(1e-10, "relative error of dH/dt")

    def flow(self) -> LionKFlow:
        """Some flow with all its terms."""
        return LionKFlow(SmoothAbsolute(0.1), momentum_decay=0.5, lookahead=0.4, weight_decay=0.3)

    def path(self, ts: Float[Array, " times"]) -> dict[str, Float[Array, " times"]]:
        """The loss, $H$, its dissipation, and the derivative of $H$ along the flow, found automatically."""
        model, task = tanh_network()
        params, static = eqx.partition(model, eqx.is_inexact_array)
        flow = self.flow()

        def record(t: Any, state: LionState, objective: Objective) -> dict[str, Array]:
            velocity = flow.vector_field(t, state, objective)
            value, slope = jax.jvp(lambda state: flow.lyapunov(t, state, objective), (state,), (velocity,))
            dissipation = flow.dissipation(t, state, objective)
            return {"loss": objective.loss(state.params), "H": value, "dissipation": dissipation, "slope": slope}

        start = flow.init(params)
        solution = diffrax.diffeqsolve(
            flow.terms(start, ts[0], ts[-1], key=None),
            diffrax.Tsit5(),
            t0=0.0,
            t1=ts[-1],
            dt0=None,
            y0=start,
            args=Objective(task, static),
            saveat=diffrax.SaveAt(ts=ts, fn=record),
            stepsize_controller=diffrax.PIDController(rtol=1e-9, atol=1e-12),
            max_steps=2**16,
        )
        return solution.ys  # pyright: ignore

    def measure(self) -> Float[Array, ""]:
        """The closed form of dH/dt against automatic differentiation, along a run."""
        path = self.path(jnp.linspace(0.0, 20.0, 101))
        apart = jnp.max(jnp.abs(path["slope"] + path["dissipation"]))
        # A Lyapunov function that rises would be a failure too.
        rise = jnp.maximum(jnp.max(jnp.diff(path["H"])), 0.0)
        return jnp.maximum(apart / jnp.max(path["dissipation"]), rise)

    def draw(self, figure: Any) -> None:
        """Loss and Lyapunov function, and how fast the latter falls."""
        values, rates = figure.subplots(1, 2)
        ts = jnp.linspace(0.0, 20.0, 801)
        path = self.path(ts)
        values.plot(ts, path["loss"], color="tab:orange", label="loss")
        values.plot(ts, path["H"], color="tab:blue", label="$H$")
        values.set(xlabel="time", title="a network under smooth Lion")
        values.legend(fontsize=8)
        h = ts[1] - ts[0]
        difference = (path["H"][2:] - path["H"][:-2]) / (2 * h)
        some = slice(4, None, 24)
        rates.semilogy(ts, path["dissipation"], color="tab:blue", label="closed form")
        rates.semilogy(
            ts[1:-1][some], -difference[some], "o", color="tab:blue", mfc="white", ms=5, label="differences of $H$"
        )
        rates.set(xlabel="time", ylabel="$-dH/dt$")
        rates.legend(fontsize=8)
