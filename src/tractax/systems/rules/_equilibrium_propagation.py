"""Equilibrium propagation in a linear network: the bias of finite nudges, the bias of asymmetry, and its cure."""

from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ...core import Kind
from ...rules import EquilibriumNetwork, EquilibriumPropagation, EquilibriumTask, LinearEquilibrium
from ...training import train
from .._system import AbstractSystem, Citation, Tolerance

_POINTS = (1, 2, 16)


class EquilibriumPropagationSystem(AbstractSystem):
    """Six linear units, of which two answer four inputs."""

    name: ClassVar[str] = "equilibrium_propagation"
    family: ClassVar[str] = "rules"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "gradients read off nudged equilibria: bias of finite nudges and of asymmetric weights"
    citation: ClassVar[Citation] = Citation("Laborieux, Zenke", 2023, "2309.02214")
    claim: ClassVar[Tolerance] = Tolerance(1e-8)

    def network(self, asymmetry: ArrayLike = 1.0) -> tuple[EquilibriumNetwork, EquilibriumTask]:
        """Weights whose antisymmetric part is scaled by `asymmetry`, and a data set."""
        keys = jax.random.split(jax.random.key(7), 4)
        random = 0.3 * jax.random.normal(keys[0], (6, 6))
        weights = (random + random.T) / 2 + asymmetry * (random - random.T) / 2
        task = EquilibriumTask(jax.random.normal(keys[1], (4, 6)), jax.random.normal(keys[2], (4, 2)), jnp.eye(2, 6))
        return EquilibriumNetwork(weights, 0.3 * jax.random.normal(keys[3], (6,))), task

    @eqx.filter_jit
    def measure(self) -> Float[Array, ""]:
        """The true gradient, and the rule's for several circles, against what theory says of both."""
        model, task = self.network()
        theory = LinearEquilibrium.from_model(model, task)
        errors = [_apart(jax.grad(task.loss)(model), _gradient(theory, theory.adjoints))]
        nudge = 0.5 * theory.radius
        for points in (1, 8):
            found = EquilibriumPropagation(nudge, points).gradient(model, task)
            errors.append(_apart(found, _gradient(theory, theory.estimate(nudge, points))))
        return jnp.max(jnp.stack(errors))

    def draw(self, figure: Any) -> None:
        """The alignment of the rule with the gradient: against asymmetry, and in training with homeostasis."""
        import matplotlib

        colours = matplotlib.colormaps["viridis"]([0.0, 0.45, 0.8])
        against, during = figure.subplots(1, 2)
        fine, coarse = jnp.linspace(0, 3, 61), jnp.linspace(0, 3, 13)
        for points, colour in zip(_POINTS, colours, strict=True):
            theory = jax.jit(jax.vmap(lambda a, n=points: self._predicted_alignment(a, n)))(fine)
            found = jax.jit(jax.vmap(lambda a, n=points: self._measured_alignment(a, n)))(coarse)
            against.plot(fine, theory, color=colour, label=f"$N = {points}$")
            against.plot(coarse, found, "o", color=colour, mfc="white", ms=5)
        against.plot([], [], color="0.3", label="theory")
        against.plot([], [], "o", color="0.3", mfc="white", ms=5, label="simulation")
        against.set(xlabel="asymmetry of the weights", ylabel="cosine with the true gradient", ylim=(None, 1.02))
        against.set_title("nudge $r = 0.7\\,\\beta_*$")
        against.legend(fontsize=8)

        (model, task), ts = self.network(2.0), jnp.linspace(0, 4, 81)
        for strength, colour in zip((0.0, 0.02, 0.2), colours, strict=True):
            rule = EquilibriumPropagation(0.05, 4, homeostasis=strength)
            run = train(model, task, rule, ts, observe=lambda m, r=rule: r.alignment(m, task), solver=diffrax.Tsit5())
            during.plot(ts, run.observed, color=colour, label=f"$k = {strength:g}$")
        during.set(xlabel="time $t$", ylabel="cosine with the true gradient", title="homeostasis of strength $k$")
        during.legend(fontsize=8)

    def _predicted_alignment(self, asymmetry: Array, points: int) -> Array:
        theory = LinearEquilibrium.from_model(*self.network(asymmetry))
        true = _gradient(theory, theory.adjoints)
        found = _gradient(theory, theory.estimate(0.7 * theory.radius, points))
        dot = jnp.sum(true.weights * found.weights) + jnp.sum(true.bias * found.bias)
        return dot / jnp.sqrt(_square(true) * _square(found))

    def _measured_alignment(self, asymmetry: Array, points: int) -> Array:
        model, task = self.network(asymmetry)
        nudge = 0.7 * LinearEquilibrium.from_model(model, task).radius
        return EquilibriumPropagation(nudge, points).alignment(model, task)


def _gradient(theory: LinearEquilibrium, signals: Array) -> EquilibriumNetwork:
    """The gradient that these signals make of the units' states."""
    examples = signals.shape[0]
    return EquilibriumNetwork(-signals.T @ theory.states / examples, -jnp.mean(signals, axis=0))


def _square(gradient: EquilibriumNetwork) -> Array:
    return jnp.sum(gradient.weights**2) + jnp.sum(gradient.bias**2)


def _apart(a: EquilibriumNetwork, b: EquilibriumNetwork) -> Array:
    difference = _square(jax.tree.map(jnp.subtract, a, b))
    return jnp.sqrt(difference / _square(b))
