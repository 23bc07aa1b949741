"""Orthogonal gradients: weights that turn and keep their length."""

from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ...core import Kind
from ...deep_linear import DeepLinear, LinearTask
from ...plotting import overlay
from ...rules import GradientDescent, GradientFlow, OrthogonalFlow, array_norms, perp_grad
from ...training import train
from ...two_layer import CrossEntropyTask, TwoLayerNetwork, residue_sums
from .._system import AbstractSystem, Citation, Tolerance

_RATE = 0.1


class OrthogonalGradientSystem(AbstractSystem):
    """A linear map on white inputs, whose angle is known, and a network of three arrays that classifies residues."""

    name: ClassVar[str] = "orthogonal_gradient"
    family: ClassVar[str] = "rules"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "gradients without their component along the weights turn them and keep their length"
    citation: ClassVar[Citation] = Citation("Prieto, Barsbey, Mediano, Birdal", 2025, "2501.04697")
    claim: ClassVar[Tolerance] = Tolerance(1e-8, "error of norms and angles, relative")

    def measure(self) -> Float[Array, ""]:
        """Norms of all arrays along the flow and after a step, and the angle of a linear map over time."""
        model, task = self.network()
        ts = jnp.linspace(0.0, 5.0, 3)
        along = train(model, task, OrthogonalFlow(), ts, observe=array_norms, **_tight()).observed
        before, after = self.norms_of_steps(jnp.asarray([0.0, _RATE]), perp_grad())
        gradient = eqx.filter_jit(eqx.filter_grad(task.loss))(model)
        squares = _squares(model, gradient)
        drift = jnp.max(jnp.abs(along / along[:1] - 1))
        step = jnp.max(jnp.abs(jnp.sqrt(before**2 + _RATE**2 * squares) / after - 1))
        predicted, simulated = self.angles(jnp.linspace(0.0, 6.0, 7))
        return jnp.max(jnp.stack([drift, step, jnp.max(jnp.abs(predicted - simulated))]))

    def network(self) -> tuple[TwoLayerNetwork, CrossEntropyTask]:
        """Units with biases that add two residues modulo 5."""
        rng = np.random.default_rng(0)
        first, second = rng.normal(size=(12, 10)) / 2, rng.normal(size=(5, 12)) / 3
        model = TwoLayerNetwork(first, second, "tanh", bias=rng.normal(size=12) / 2)
        return model, residue_sums(5)

    def norms_of_steps(
        self, ts: Float[Array, " times"], before: optax.GradientTransformation
    ) -> Float[Array, "times arrays"]:
        """The norms of all arrays along descent, with a transformation of its gradients."""
        model, task = self.network()
        rule = GradientDescent(_RATE, optax.chain(before, optax.sgd(_RATE)))
        return train(model, task, rule, ts, observe=array_norms).observed

    def angles(self, ts: Float[Array, " times"]) -> tuple[Array, Array]:
        """The angle of a linear map to its target, predicted and simulated, from three starts of norm 1.5."""
        target = jnp.asarray([[2.0, 0.0, 0.0]])
        task, radius = LinearTask(target), 1.5
        starts = jnp.asarray([1.0, 2.0, 3.1])
        half = jnp.tan(starts / 2)[None, :] * jnp.exp(-2.0 / radius * ts)[:, None]

        def run(start: Array) -> Array:
            model = DeepLinear([radius * jnp.stack([jnp.cos(start), jnp.sin(start), 0 * start])[None, :]])
            return train(model, task, OrthogonalFlow(), ts, observe=_angle, **_tight()).observed

        return 2 * jnp.arctan(half), jnp.stack([run(start) for start in starts], axis=1)

    def draw(self, figure: Any) -> None:
        """The angle over time; and the norm of the first layer with and without orthogonal gradients."""
        left, right = figure.subplots(1, 2)
        ts = jnp.linspace(0.0, 6.0, 121)
        overlay(left, ts, *self.angles(ts), ["from 1", "from 2", "from 3.1"])
        left.set(xlabel="time $t/\\tau$", ylabel="angle to the target", title="White inputs: $\\tan(\\theta/2)$ decays")
        model, task = self.network()
        ts = jnp.linspace(0.0, 100.0, 101)
        for colour, label, rule in (
            ("0.5", "gradient flow", GradientFlow()),
            ("C0", "orthogonal flow", OrthogonalFlow()),
        ):
            norms = train(model, task, rule, ts, observe=array_norms).observed[:, 0]
            right.plot(ts, norms / norms[0], color=colour, label=label)
        steps = self.norms_of_steps(ts, perp_grad())[:, 0]
        every = slice(None, None, 5)
        right.plot(ts[every], (steps / steps[0])[every], "o", color="C0", mfc="white", ms=4, label="steps of 0.1")
        right.set(xlabel="time $t/\\tau$", ylabel="$\\Vert W_1\\Vert$ / its start", title="Sums modulo 5, cross-entropy")
        right.legend(fontsize=8)


def _angle(model: DeepLinear) -> Array:
    w = model.product[0]
    return jnp.arctan2(jnp.linalg.norm(w[1:]), w[0])


def _squares(model: TwoLayerNetwork, gradient: TwoLayerNetwork) -> Float[Array, " arrays"]:
    """What is left of every squared gradient, by Pythagoras: |g|² sin² of its angle to the weights."""
    params = eqx.filter(model, eqx.is_inexact_array)
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(gradient), strict=True)
    return jnp.stack([jnp.sum(g**2) - jnp.vdot(w, g) ** 2 / jnp.sum(w**2) for w, g in pairs])


def _tight() -> dict[str, Any]:
    return {"solver": diffrax.Tsit5(), "stepsize_controller": diffrax.PIDController(rtol=1e-10, atol=1e-12)}
