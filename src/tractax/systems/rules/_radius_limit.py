"""Descent with huge learning rates, and the same steps shortened to the radius of convergence."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ...core import AbstractStepRule, Kind
from ...rules import CrossEntropyTask, GradientDescent, RadiusLimit
from ...training import train
from ...two_layer import TwoLayerNetwork
from .._system import AbstractSystem, Citation, Signature

_STEPS = 200.0


class RadiusLimitSystem(AbstractSystem):
    """A tanh network of sixteen units and thirty examples of three classes that overlap."""

    name: ClassVar[str] = "radius_limit"
    family: ClassVar[str] = "rules"
    kind: ClassVar[Kind] = "phenomenon"
    summary: ClassVar[str] = "steps beyond the radius of convergence of cross-entropy throw training back"
    citation: ClassVar[Citation] = Citation("Sao", 2026, "2603.13552")
    claim: ClassVar[Signature] = Signature(3.0, "ratio of the losses after free and limited steps")

    def network(self) -> tuple[TwoLayerNetwork, CrossEntropyTask]:
        """The network and its data."""
        keys = jax.random.split(jax.random.key(0), 3)
        labels = jnp.arange(30) % 3
        angle = 2 * jnp.pi * labels.astype(float) / 3
        inputs = jax.random.normal(keys[0], (30, 2)) + jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
        second = 0.3 * jax.random.normal(keys[2], (3, 16))
        model = TwoLayerNetwork(jax.random.normal(keys[1], (16, 2)), second, "tanh", bias=jnp.zeros(16))
        return model, CrossEntropyTask(inputs, labels)

    def losses(self, rate: ArrayLike, ts: Float[Array, " times"], *, limited: bool) -> Float[Array, " times"]:
        """The loss in the course of training; time counts steps."""
        model, task = self.network()
        rule: AbstractStepRule = GradientDescent(rate, time_per_step=1.0)
        return train(model, task, RadiusLimit(rule, task.logits) if limited else rule, ts).observed

    def measure(self) -> Float[Array, ""]:
        """The ratio of the losses, averaged over the second half of training, at learning rate 30."""
        ts = jnp.arange(_STEPS / 2, _STEPS + 1)
        free, limited = (jnp.mean(self.losses(30.0, ts, limited=limited)) for limited in (False, True))
        return free / limited

    def draw(self, figure: Any) -> None:
        """Loss curves at two learning rates, and the loss in the end against the learning rate."""
        during, against = figure.subplots(1, 2)
        ts = jnp.arange(0.0, _STEPS + 1)
        for rate, colour in ((3.0, "tab:blue"), (30.0, "tab:red")):
            during.semilogy(ts, self.losses(rate, ts, limited=False), color=colour, lw=0.8, label=f"$\\eta = {rate:g}$")
            limited = self.losses(rate, ts, limited=True)
            during.semilogy(ts, limited, color=colour, ls="--", label=f"$\\eta = {rate:g}$, limited")
        during.set(xlabel="steps", ylabel="loss", ylim=(0.05, 100))
        during.legend(fontsize=8, ncols=2, loc="upper right")
        rates, late = jnp.geomspace(0.1, 100.0, 13), ts[100:]
        for limited, marker, label in ((False, "o-", "free"), (True, "s-", "limited to $\\rho_a$")):
            means = jax.jit(jax.vmap(lambda r, lim=limited: jnp.mean(self.losses(r, late, limited=lim))))(rates)
            against.loglog(rates, means, marker, mfc="white", ms=5, lw=0.8, label=label)
        against.set(xlabel="learning rate $\\eta$", ylabel="mean loss, steps 100 to 200")
        against.legend(fontsize=8)
