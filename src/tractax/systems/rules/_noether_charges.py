"""Kunin et al.'s charges: what symmetries conserve under flows, and exactly how steps of descent break it."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ...core import AbstractFlowRule, Kind
from ...deep_linear import RegressionTask
from ...plotting import overlay
from ...rules import (
    AbstractSymmetry,
    GradientDescent,
    GradientFlow,
    InertialFlow,
    NoetherCharges,
    NormalisedNetwork,
    translation_charge_after_steps,
)
from ...training import train
from .._system import AbstractSystem, Citation, Tolerance

_CITATION = Citation("Kunin, Sagastuy-Brena, Ganguli, Yamins, Tanaka", 2021, "2012.04728")
_RATE, _DECAY, _MOMENTUM = 0.5, 0.01, 0.9


def noisy_classes(examples: int, scale: float = 0.2) -> tuple[NormalisedNetwork, RegressionTask]:
    """A normalised network, and normal inputs of three classes: which coordinate is largest, but for noise.

    The filters are of this scale; the shorter they are, the faster they turn, and the more steps add to their length.
    """
    keys = jax.random.split(jax.random.key(0), 5)
    first = scale * jax.random.normal(keys[0], (3, 4))
    second, third = 0.7 * jax.random.normal(keys[1], (4, 3)), jax.random.normal(keys[2], (3, 4))
    model = NormalisedNetwork(first, second, third, power=2)
    inputs = jax.random.normal(keys[3], (examples, 4))
    classes = jnp.argmax(inputs[:, :3] + jax.random.normal(keys[4], (examples, 3)), axis=1)
    return model, RegressionTask(inputs, jax.nn.one_hot(classes, 3))


def descent(rate: Any, decay: float, momentum: float = 0.0, batch_size: int | None = None) -> GradientDescent:
    """Gradient descent with decay, and with momentum on both."""
    return GradientDescent(rate, _with_decay(decay, momentum), batch_size=batch_size)


@functools.cache
def _with_decay(decay: float, momentum: float) -> Callable[[Any], optax.GradientTransformation]:
    """The same function for the same numbers, so that compiled programs are found again."""
    return lambda rate: optax.chain(optax.add_decayed_weights(decay), optax.sgd(rate, momentum=momentum or None))


class NoetherChargesSystem(AbstractSystem):
    """A layer that is normalised, rectifiers, and a softmax, with weight decay."""

    name: ClassVar[str] = "noether_charges"
    family: ClassVar[str] = "rules"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "charges of the symmetries of a network, under flows and under steps"
    citation: ClassVar[Citation] = _CITATION
    claim: ClassVar[Tolerance] = Tolerance(1e-8)

    def steps(self, count: int) -> dict[str, tuple[Array, Array]]:
        """The charges before every step of descent, measured and by the exact recursion; shape `(count, units)` each."""
        model, task = noisy_classes(8)
        symmetries = model.symmetries()
        observe = eqx.Partial(_charges, symmetries, task)
        observed = train(model, task, descent(_RATE, _DECAY), _RATE * jnp.arange(0.0, count), observe=observe).observed
        pairs = {}
        for name, (charges, of_gradients) in observed.items():
            degree = symmetries[name].degree
            kept = (1 - _RATE * _DECAY) ** degree
            added = _RATE**2 * of_gradients if degree == 2 else jnp.zeros_like(of_gradients)

            def step(charge: Array, added: Array, kept: float = kept) -> tuple[Array, Array]:
                return kept * charge + added, charge

            pairs[name] = charges, jax.lax.scan(step, charges[0], added)[1]
        return pairs

    def momentum(self, count: int) -> tuple[Array, Array]:
        """The charges of translations under momentum, measured and by the power of a matrix."""
        model, task = noisy_classes(8)
        charge = model.symmetries()["translation"].charge
        rule = descent(_RATE, _DECAY, _MOMENTUM)
        measured = train(model, task, rule, _RATE * jnp.arange(0.0, count), observe=charge).observed
        exact = jax.vmap(translation_charge_after_steps, (None, 0, None, None, None))
        return measured, exact(measured[0], jnp.arange(count), _RATE, _MOMENTUM, _DECAY)

    def flow(self, rule: AbstractFlowRule, names: Sequence[str]) -> list[tuple[Array, Array]]:
        """The charges under a flow, simulated and predicted."""
        model, task = noisy_classes(8)
        solutions = [NoetherCharges.from_model(model, task, rule, symmetry=model.symmetries()[name]) for name in names]
        ts = jnp.linspace(0.0, 5.0, 6)
        run = train(
            model,
            task,
            rule,
            ts,
            observe=[solution.reduce for solution in solutions],
            solver=diffrax.Tsit5(),
            stepsize_controller=diffrax.PIDController(rtol=1e-10, atol=1e-13),
        )
        pairs = zip(run.observed, solutions, strict=True)
        return [(observed.charge, jax.vmap(solution.evaluate)(ts).charge) for observed, solution in pairs]

    def measure(self) -> Float[Array, ""]:
        """All three symmetries under gradient flow and steps; translations under inertia and momentum."""
        pairs = self.flow(GradientFlow(weight_decay=_DECAY), ("translation", "scale", "rescale"))
        pairs += self.flow(InertialFlow.from_momentum(_RATE, _MOMENTUM, _DECAY), ("translation",))
        pairs += [*self.steps(200).values(), self.momentum(200)]
        return jnp.max(jnp.stack([jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(a)) for a, b in pairs]))

    def draw(self, figure: Any) -> None:
        """The charges of every unit under steps; grey, what gradient flow would do; and translations under momentum."""
        model, task = noisy_classes(8)
        panels = figure.subplots(1, 4)
        titles = {
            "translation": "translation, $1^\\top w$",
            "scale": "scale, $\\Vert w\\Vert^2$",
            "rescale": "rescaling, $\\Vert w_1\\Vert^2 - 2\\Vert w_2\\Vert^2$",
        }
        count = 201
        ts = _RATE * jnp.arange(0.0, count)
        cases = [(name, *pair) for name, pair in self.steps(count).items()]
        for axes, (name, measured, exact) in zip(panels, [*cases, ("translation", *self.momentum(count))], strict=True):
            last = axes is panels[-1]
            rule = InertialFlow.from_momentum(_RATE, _MOMENTUM, _DECAY) if last else GradientFlow(weight_decay=_DECAY)
            solution = NoetherCharges.from_model(model, task, rule, symmetry=model.symmetries()[name])
            overlay(axes, ts, exact, measured, [""] * measured.shape[1], markers=14)
            axes.plot(ts, jax.vmap(solution.evaluate)(ts).charge, color="0.6", lw=1, ls="--", zorder=0)
            axes.get_legend().remove()
            axes.set(xlabel="time $\\eta k$", title="translation, momentum" if last else titles[name])
            axes.title.set_fontsize(10)
        panels[0].set_ylabel("charge of each unit")
        lines = [panels[0].plot([], [], color="0.3")[0], panels[0].plot([], [], color="0.6", lw=1, ls="--")[0]]
        lines += panels[0].plot([], [], "o", color="0.3", mfc="white", ms=4)
        panels[0].legend(lines, ["exact recursion", "the flow", "network"], fontsize=8, loc="lower right")


def _charges(
    symmetries: dict[str, AbstractSymmetry], task: RegressionTask, model: NormalisedNetwork
) -> dict[str, tuple[Array, Array]]:
    """The charges of a network, and those of its gradient."""
    gradient = jax.grad(task.loss)(model)
    return {name: (symmetry.charge(model), symmetry.charge(gradient)) for name, symmetry in symmetries.items()}
