"""Chaos in curl descent: with several outputs and a readout that climbs the loss, training need not settle."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ...analysis import lyapunov_exponent
from ...core import Kind
from ...deep_linear import DeepLinear, LinearTask
from ...rules import CurlDescent
from ...training import train
from .._system import AbstractSystem, Citation, Signature

_SIZE, _OUTPUTS, _CHAOTIC = 4, 3, 1


class CurlChaosSystem(AbstractSystem):
    """A linear network of four inputs, four units and three outputs: the hidden layer descends, the readout climbs."""

    name: ClassVar[str] = "curl_chaos"
    family: ClassVar[str] = "teacher_student"
    kind: ClassVar[Kind] = "phenomenon"
    summary: ClassVar[str] = "a readout that climbs the loss makes some networks with several outputs chaotic"
    citation: ClassVar[Citation] = Citation("Ninou, Kadmon, Cayco-Gajic", 2025, "2510.02765")
    claim: ClassVar[Signature] = Signature(0.02, "rate at which small differences grow late, at a loss that stays")

    def case(self, seed: ArrayLike = _CHAOTIC, outputs: int = _OUTPUTS) -> tuple[DeepLinear, LinearTask]:
        """A random start with entries of variance 1/4, and a random target map with entries half as large again."""
        first, second, target = jax.random.split(jax.random.key(seed), 3)
        shapes = ((_SIZE, _SIZE), (outputs, _SIZE), (outputs, _SIZE))
        drawn = zip((first, second, target), shapes, strict=True)
        hidden, readout, optimum = (jax.random.normal(key, shape) / _SIZE**0.5 for key, shape in drawn)
        return DeepLinear((hidden, readout)), LinearTask(1.5 * optimum)

    def growth(
        self, t1: ArrayLike, readout: float = -1.0, seed: ArrayLike = _CHAOTIC, outputs: int = _OUTPUTS
    ) -> Float[Array, ""]:
        """The logarithm of the growth of a small difference until `t1`; the readout climbs (−1) or descends (1)."""
        rule = CurlDescent((1.0, readout))
        return t1 * lyapunov_exponent(*self.case(seed, outputs), rule, t1, key=jax.random.key(1))

    def losses(self, ts: Float[ArrayLike, " times"], nudge: float = 0.0, readout: float = -1.0) -> Float[Array, " times"]:
        """The loss while training, relative to that at the start, whose first weight is moved by `nudge`."""
        model, task = self.case()
        first, second = model.weights
        moved = DeepLinear((first.at[0, 0].add(nudge), second))
        return train(moved, task, CurlDescent((1.0, readout)), ts).observed / task.loss(model)

    def measure(self) -> Float[Array, ""]:
        """The rate of growth from t = 250 to 1000, without what is transient; nothing if the loss then falls to 10 %."""
        lowest = jnp.min(self.losses(jnp.linspace(250.0, 1000.0, 751)))
        early, late = jax.jit(jax.vmap(self.growth))(jnp.asarray([250.0, 1000.0]))
        return jnp.where(lowest > 0.1, (late - early) / 750, jnp.nan)

    def draw(self, figure: Any) -> None:
        """Two runs from nearly the same start, and how small differences grow."""
        left, right = figure.subplots(1, 2)
        ts = jnp.linspace(150.0, 300.0, 1201)
        for nudge, style, colour, label in ((0.0, "-", "C3", "readout climbs"), (1e-6, "--", "k", "moved by $10^{-6}$")):
            left.plot(ts, self.losses(ts, nudge), style, color=colour, lw=1, label=label)
        left.plot(ts, self.losses(ts, readout=1.0), color="C0", label="gradient flow")
        left.set(xlabel="time $t/\\tau$", ylabel="loss / loss at the start", title="Three outputs")
        left.margins(y=0.25)
        left.legend(fontsize=8, frameon=False, ncols=3, loc="upper center")
        times = jnp.linspace(50.0, 1000.0, 20)
        for colour, outputs, readout, label in (
            ("C3", _OUTPUTS, -1.0, "three outputs, readout climbs"),
            ("0.4", 1, -1.0, "one output, readout climbs"),
            ("C0", _OUTPUTS, 1.0, "gradient flow"),
        ):
            grown = jax.jit(jax.vmap(lambda t, r=readout, n=outputs: self.growth(t, r, outputs=n)))(times)
            right.plot(times, grown, "o-", color=colour, mfc="white", ms=4, lw=0.8, label=label)
        right.set(xlabel="time $t/\\tau$", ylabel="log of the growth of differences")
        right.legend(fontsize=8)
