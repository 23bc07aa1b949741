"""The Jacobian in the loss: a linear map that shrinks as a whole, and units of fewer frequencies."""

from typing import Any, ClassVar

import diffrax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ...analysis import inverse_participation_ratio
from ...core import Kind
from ...deep_linear import DeepLinear, LinearTask
from ...plotting import overlay
from ...rules import GradientDescent, GradientFlow
from ...training import train
from ...two_layer import JacobianPenalty, TwoLayerNetwork, residue_sums, shrunk_map
from .._system import AbstractSystem, Citation, Tolerance

_P = 11
_TARGET = np.asarray([[1.2, -0.5, 0.3], [0.4, 0.8, -1.0]])


class JacobianPenaltySystem(AbstractSystem):
    """A linear map of three inputs and two outputs, along its target and from elsewhere."""

    name: ClassVar[str] = "jacobian_penalty"
    family: ClassVar[str] = "two_layer"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "the size of the Jacobian in the loss shrinks a linear map as a whole"
    citation: ClassVar[Citation] = Citation("Walker, Humayun, Balestriero, Baraniuk", 2025, "2506.12284")
    claim: ClassVar[Tolerance] = Tolerance(1e-8, "relative error of the map")

    def measure(self) -> Float[Array, ""]:
        """The norm along the target over time, and where a map from elsewhere ends."""
        ts = jnp.linspace(0.0, 6.0, 7)
        predicted, simulated = self.norms(jnp.asarray([0.5, 1.2]), ts)
        elsewhere = self.train(jnp.asarray([[-0.3, 0.2, 0.9], [0.1, -0.7, 0.4]]), 0.5, jnp.linspace(0.0, 60.0, 7))
        end = shrunk_map(_TARGET, 0.5)
        apart = jnp.linalg.norm(elsewhere[-1] - end) / jnp.linalg.norm(end)
        return jnp.maximum(jnp.max(jnp.abs(simulated / predicted - 1)), apart)

    def norms(self, strengths: Float[Array, " runs"], ts: Float[Array, " times"]) -> tuple[Array, Array]:
        """The norm of maps that start along the target, at a tenth of a norm, predicted and simulated."""
        size, start = float(np.linalg.norm(_TARGET)), 0.1
        ends = size - strengths
        predicted = ends[None, :] + (start - ends)[None, :] * jnp.exp(-ts)[:, None]
        runs = [self.train(jnp.asarray(start / size * _TARGET), s, ts) for s in strengths]
        return predicted, jnp.linalg.norm(jnp.stack(runs, axis=1), axis=(2, 3))

    def train(self, start: Float[Array, "2 3"], strength: Any, ts: Float[Array, " times"]) -> Float[Array, "times 2 3"]:
        """The map along gradient flow."""
        task = JacobianPenalty(LinearTask(_TARGET), np.zeros((1, 3)), strength)
        tight = {"solver": diffrax.Tsit5(), "stepsize_controller": diffrax.PIDController(rtol=1e-10, atol=1e-12)}
        return train(DeepLinear([start]), task, GradientFlow(), ts, observe=_product, **tight).observed

    def draw(self, figure: Any) -> None:
        """The norm of a linear map over time; how many frequencies the units of a network have."""
        import matplotlib

        left, right = figure.subplots(1, 2)
        ts, strengths = jnp.linspace(0.0, 6.0, 61), jnp.asarray([0.0, 0.5, 1.2])
        overlay(left, ts, *self.norms(strengths, ts), [f"$\\lambda = {float(s):g}$" for s in strengths])
        left.axhline(float(np.linalg.norm(_TARGET)), color="0.6", ls=":", lw=1, zorder=0)
        left.set(xlabel="time $t/\\tau$", ylabel="$\\Vert W\\Vert_F$", title="A linear map, white inputs")
        ts = jnp.arange(0.0, 3001.0, 100.0)
        colours = matplotlib.colormaps["viridis"]([0.1, 0.5, 0.8])
        for colour, strength in zip(colours, (0.0, 0.003, 0.02), strict=True):
            right.plot(ts, self.participation(strength, ts), color=colour, label=f"$\\lambda = {strength:g}$")
        right.set(xlabel="step of Adam", ylabel="inverse participation ratio", title=f"Sums modulo {_P}, rectifiers")
        right.axhline(2 / (_P - 1), color="0.6", ls=":", lw=1)
        right.text(50, 2 / (_P - 1) + 0.015, "flat spectrum", color="0.4", fontsize=8)
        right.set_ylim(0, 1)
        right.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 0.22))

    def participation(self, strength: float, ts: Float[Array, " times"]) -> Float[Array, " times"]:
        """The mean inverse participation ratio of the embeddings of rectifiers that add residues."""
        rng, whole = np.random.default_rng(0), residue_sums(_P)
        model = TwoLayerNetwork(0.3 * rng.normal(size=(48, 2 * _P)), 0.1 * rng.normal(size=(_P, 48)))
        task = JacobianPenalty(whole, whole.inputs, strength)
        return train(model, task, GradientDescent(0.01, optax.adam, time_per_step=1.0), ts, observe=_ratio).observed


def _product(model: DeepLinear) -> Float[Array, "out in"]:
    return model.product


def _ratio(model: TwoLayerNetwork) -> Float[Array, ""]:
    return jnp.mean(inverse_participation_ratio(jnp.reshape(model.first, (-1, 2, _P))))
