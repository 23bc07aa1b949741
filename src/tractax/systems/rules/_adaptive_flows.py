"""The flows of momentum, of reshuffled mini-batches and of Adam."""

import functools
import itertools
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from ...analysis import Scaling, scaling
from ...core import AbstractRule, Kind
from ...deep_linear import RegressionTask
from ...rules import AdamFlow, GradientDescent, GradientFlow, ModifiedFlow, ReshuffledFlow, momentum_start
from ...training import train
from ...two_layer import TwoLayerNetwork
from .._system import AbstractSystem, Citation, Exponent
from ._small_cases import flat, tanh_network, tight

_TIME, _MOMENTUM = 1.0, 0.5
_RATES = (0.02, 0.01, 0.005, 0.0025, 0.00125)
_DECAYS = {"b1": 0.6, "b2": 0.8, "eps_root": 0.05}


class AdamFlowSystem(AbstractSystem):
    """A two-layer tanh network with a bias, fitted to four examples."""

    name: ClassVar[str] = "adam_flow"
    family: ClassVar[str] = "rules"
    kind: ClassVar[Kind] = "asymptotic"
    summary: ClassVar[str] = "the flow that Adam follows; beside it those of momentum and of reshuffled batches"
    citation: ClassVar[Citation] = Citation("Cattaneo, Klusowski, Shigida", 2023, "2309.00079")
    claim: ClassVar[Exponent] = Exponent(2.0, "exponent in the learning rate, flow of order 2")

    def end(self, rule: AbstractRule, time: Any, start: TwoLayerNetwork | None = None) -> Float[Array, " parameters"]:
        """The parameters at one time."""
        model, task = tanh_network()
        start = model if start is None else start
        return train(start, task, rule, jnp.asarray([time]), observe=flat, **tight(rule)).observed[0]

    def adam(self, rate: float, order: int) -> Float[Array, ""]:
        """The distance of Adam from its flow."""
        descent = GradientDescent(rate, _ADAM)
        flow = AdamFlow(rate, order=order, **_DECAYS)
        return jnp.linalg.norm(self.end(descent, _TIME) - self.end(flow, _TIME))

    def momentum(self, rate: float, order: int) -> Float[Array, ""]:
        """The distance of momentum from its flow, on the clock in which a step takes h/(1 - β)."""
        descent = GradientDescent(rate, _HEAVY_BALL, time_per_step=rate / (1 - _MOMENTUM))
        steps = self.end(descent, _TIME)
        if order == 1:
            return jnp.linalg.norm(steps - self.end(GradientFlow(), _TIME))
        start = momentum_start(*tanh_network(), rate, _MOMENTUM)
        return jnp.linalg.norm(steps - self.end(ModifiedFlow.from_momentum(rate, _MOMENTUM), _TIME, start))

    def epoch(self, rate: float, order: int) -> Float[Array, ""]:
        """The distance of the end of an epoch of four batches, averaged over all orders, from its flow."""
        model, task = tanh_network()
        batches = jnp.arange(4)[:, None]
        orders = jnp.asarray(list(itertools.permutations(range(4))))
        mean = jnp.mean(_epochs(model, task, batches, orders, jnp.asarray(rate)), axis=0)
        return jnp.linalg.norm(mean - self.end(ReshuffledFlow(rate, batches, order), 4 * rate))

    def measure(self) -> Scaling:
        """The rate at which the distance of Adam from its flow falls with the learning rate."""
        return scaling(lambda rate: self.adam(rate, 2), _RATES, correction=1.0)

    def draw(self, figure: Any) -> None:
        """The distances from the flows of first and second order, against the learning rate."""
        rates = jnp.asarray(_RATES)
        panels = [
            ("Adam, at $t = 1$", self.adam, 0),
            ("momentum from rest, at $t = 1$", self.momentum, 0),
            ("mean of all epochs, at the end", self.epoch, 1),
        ]
        for axes, (title, distance, more) in zip(figure.subplots(1, 3), panels, strict=True):
            for order, colour in ((1, "C0"), (2, "C3")):
                distances = jnp.stack([distance(rate, order) for rate in _RATES])
                line = distances[-1] * (rates / rates[-1]) ** (order + more)
                axes.loglog(rates, line, color=colour, lw=1.2)
                label = f"flow of order {order}, $h^{order + more}$"
                axes.loglog(rates, distances, "o", color=colour, mfc="white", label=label)
            axes.set(xlabel="learning rate $h$")
            axes.set_title(title, fontsize=10)
            axes.set_xticks(_RATES, [f"{rate:g}" for rate in _RATES], fontsize=8)
            axes.minorticks_off()
            axes.legend(fontsize=8)
        figure.axes[0].set_ylabel("distance from the flow")


_ADAM = functools.partial(optax.adam, eps=0.0, **_DECAYS)
_HEAVY_BALL = functools.partial(optax.sgd, momentum=_MOMENTUM)


@eqx.filter_jit
def _epochs(
    model: TwoLayerNetwork,
    task: RegressionTask,
    batches: Int[Array, "batches batch"],
    orders: Int[Array, "orders batches"],
    rate: Float[Array, ""],
) -> Float[Array, "orders parameters"]:
    """The parameters at the end of an epoch, for every order of the batches."""
    start, static = eqx.partition(model, eqx.is_inexact_array)

    def step(params: TwoLayerNetwork, batch: Array) -> tuple[TwoLayerNetwork, None]:
        gradient = jax.grad(lambda params: task.batch_loss(eqx.combine(params, static), batch))(params)
        return jax.tree.map(lambda w, g: w - rate * g, params, gradient), None

    return jax.vmap(lambda order: flat(jax.lax.scan(step, start, batches[order])[0]))(orders)
