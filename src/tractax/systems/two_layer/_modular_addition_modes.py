"""Modular addition: modes whose phases lock, from small outputs, and the frequencies that win their neurons."""

from typing import Any, ClassVar

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...analysis import Scaling, scaling
from ...core import Kind, Trajectory
from ...plotting import overlay
from ...rules import GradientFlow
from ...training import train
from ...two_layer import ModularAddition, ModularNetwork, PhaseLocking, gaussian_modular_network, modular_modes
from .._system import AbstractRunSystem, AbstractSystem, Citation, Exponent, Run, Signature, Tolerance

_CITATION = Citation("He, Wang, Chen, Yang", 2026, "2602.16849")


class ModularAdditionModesSystem(AbstractRunSystem):
    """Random weights of two neurons, modulo 11."""

    name: ClassVar[str] = "modular_addition_modes"
    family: ClassVar[str] = "two_layer"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "modular addition on the correlation loss: amplitudes and phases of every mode"
    citation: ClassVar[Citation] = _CITATION
    claim: ClassVar[Tolerance] = Tolerance(1e-8)

    def run(self) -> Run:
        """All weights, until shortly before the first mode diverges."""
        model = gaussian_modular_network(11, 2, scale=0.3, key=jax.random.key(0))
        task, rule = _correlation(11), GradientFlow()
        solution = PhaseLocking.from_model(model, task, rule)
        return Run(model, task, rule, solution, jnp.linspace(0.0, 0.85, 35) * solution.t1)

    def draw(self, figure: Any) -> None:
        """Amplitudes and misalignments of the modes of one neuron."""
        left, right = figure.subplots(1, 2)
        run = self.run()
        theory, simulated = jax.vmap(run.solution.evaluate)(run.ts), run.simulate().observed
        labels = [f"$k = {k}$" for k in range(1, 6)]
        overlay(left, run.ts, theory.embedding[:, 1], simulated.embedding[:, 1], labels)
        left.set(xlabel="time $t/\\tau$", ylabel="amplitude $\\alpha$", title="One neuron: one frequency wins")
        overlay(right, run.ts, theory.misalignment[:, 1], simulated.misalignment[:, 1], labels)
        right.set(xlabel="time $t/\\tau$", ylabel="misalignment $D = 2\\varphi - \\psi$", title="Phases lock")
        right.get_legend().remove()


class ModularAdditionScaleSystem(AbstractSystem):
    """The same weights on cross-entropy and on the squared error, at smaller and smaller scales."""

    name: ClassVar[str] = "modular_addition_scale"
    family: ClassVar[str] = "two_layer"
    kind: ClassVar[Kind] = "asymptotic"
    summary: ClassVar[str] = "modular addition on cross-entropy: how fast small weights approach the theory"
    citation: ClassVar[Citation] = _CITATION
    claim: ClassVar[Exponent] = Exponent(3.0, "exponent in the initial scale of the error of the modes")

    def measure(self) -> Scaling:
        """Cross-entropy modulo 7, half-way to the first divergence, which is at a time that goes as 1/scale."""
        return self.errors("cross_entropy")

    def errors(self, loss: str) -> Scaling:
        """The relative error of the embedding's amplitudes, the geometric mean over eight draws of four neurons."""
        keys = jax.random.split(jax.random.key(0), 8)
        draws = jax.vmap(lambda key: gaussian_modular_network(7, 4, scale=1.0, key=key))(keys)

        @jax.jit
        def error(scale: Float[Array, ""]) -> Float[Array, ""]:
            errors = jax.vmap(lambda draw: _error(jax.tree.map(lambda w: scale * w, draw), loss))(draws)
            return jnp.exp(jnp.mean(jnp.log(errors)))

        return scaling(lambda scale: error(jnp.asarray(scale)), (0.08, 0.04, 0.02, 0.01), correction=3.0)

    def draw(self, figure: Any) -> None:
        """The error against the scale, of both losses."""
        axes = figure.subplots()
        for loss, label in (("cross_entropy", "cross-entropy"), ("squared", "squared error")):
            found = self.errors(loss)
            axes.loglog(found.sizes, found.errors, "o", mfc="white", label=f"{label}: exponent {found.exponent:.3f}")
        sizes = np.asarray([0.01, 0.08])
        axes.loglog(sizes, 30 * sizes**3, color="0.3", label="$\\propto$ scale³")
        axes.set(xlabel="scale of the initial weights", ylabel="relative error of the amplitudes")
        axes.legend(fontsize=8)


class ModularAdditionLotterySystem(AbstractSystem):
    """Cross-entropy modulo 23, from small random weights until every pair is right."""

    name: ClassVar[str] = "modular_addition_lottery"
    family: ClassVar[str] = "two_layer"
    kind: ClassVar[Kind] = "phenomenon"
    summary: ClassVar[str] = "every neuron ends with one frequency, which its initial weights already tell"
    citation: ClassVar[Citation] = _CITATION
    claim: ClassVar[Signature] = Signature(0.9, "fraction of neurons that end with the predicted frequency")

    def measure(self) -> float:
        """Over two draws of 48 neurons; NaN if a network does not end with accuracy 1. Chance is 1/11."""
        hits = []
        for seed in range(2):
            solution, run = self.compete(seed, jnp.ones(1))
            accuracy, amplitudes = run.observed
            hits.append(np.where(accuracy[-1] == 1, dominant(amplitudes[-1]) == solution.winners, np.nan))
        return float(np.mean(hits))

    def compete(self, seed: int, fractions: Float[Array, " times"]) -> tuple[PhaseLocking, Trajectory]:
        """The theory of a random network, and its training: accuracy and amplitudes.

        Times are fractions of the time at which the last neuron's winner would diverge.
        """
        model = gaussian_modular_network(23, 48, scale=0.02, key=jax.random.key(seed))
        solution = PhaseLocking.from_model(model, _correlation(23))
        task = ModularAddition(23)
        last = jnp.max(jnp.min(solution.blow_up_times, axis=1))
        controller = diffrax.PIDController(rtol=1e-5, atol=1e-8)
        observe = (task.accuracy, amplitudes)
        ts = fractions * last
        return solution, train(
            model, task, GradientFlow(), ts, observe=observe, solver=diffrax.Tsit5(), stepsize_controller=controller
        )

    def draw(self, figure: Any) -> None:
        """The amplitudes of one neuron, and the frequency of every neuron, predicted and final."""
        left, right = figure.subplots(1, 2)
        solution, run = self.compete(1, jnp.linspace(0.0, 1.5, 151))
        accuracy, found = run.observed
        times = np.asarray(solution.blow_up_times)
        neuron = int(np.argmin(times.min(axis=1)))
        order = np.argsort(times[neuron])
        for k in order[::-1]:
            first = k == order[0]
            left.plot(run.ts, found[:, neuron, k], color="C3" if first else "0.75", lw=2 if first else 1)
        left.plot([], [], color="C3", label=f"$k = {order[0] + 1}$, the predicted winner")
        left.plot([], [], color="0.75", label="the other frequencies")
        left.plot(run.ts, accuracy, color="C0", ls="--", label="accuracy of the network")
        left.axvline(times[neuron, order[0]], color="0.4", ls=":", lw=1, label="predicted $T_k$")
        left.set(xlabel="time $t/\\tau$", ylabel="amplitude $\\sqrt{\\alpha\\beta}$", title="The neuron that is first")
        left.legend(fontsize=8)
        ends = dominant(found[-1])
        hit = ends == np.asarray(solution.winners)
        first = times.min(axis=1)
        right.plot(ends[hit], first[hit], "o", color="C0", mfc="white", label=f"as predicted ({hit.sum()})")
        right.plot(ends[~hit], first[~hit], "x", color="C3", label=f"another one ({(~hit).sum()})")
        right.set(xlabel="final frequency", ylabel="predicted $\\min_k T_k$", title="All neurons")
        right.set_xticks(range(1, 12))
        right.legend(fontsize=8)


def amplitudes(model: ModularNetwork) -> Float[Array, "neurons frequencies"]:
    """The geometric mean of a mode's amplitudes in both layers."""
    modes = modular_modes(model)
    return jnp.sqrt(modes.embedding_amplitude * modes.readout_amplitude)


def dominant(amplitudes: Float[Array, "neurons frequencies"]) -> np.ndarray:
    """The frequency of the largest mode of each neuron."""
    return 1 + np.argmax(np.asarray(amplitudes), axis=1)


def _correlation(p: int) -> ModularAddition:
    return ModularAddition(p, "correlation")


def _error(model: ModularNetwork, loss: str) -> Float[Array, ""]:
    solution = PhaseLocking.from_model(model, _correlation(7))
    t = solution.t1 / 2
    controller = diffrax.PIDController(rtol=1e-10, atol=1e-13)
    run = train(
        model, ModularAddition(7, loss), GradientFlow(), t[None], observe=modular_modes, stepsize_controller=controller
    )
    predicted = solution.evaluate(t).embedding
    return jnp.linalg.norm(run.observed.embedding_amplitude[0] - predicted) / jnp.linalg.norm(predicted)
