"""Ninou, Kadmon and Cayco-Gajic's curl descent: some units climb the loss, and learning may still succeed."""

from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ...analysis import Scaling, compare, scaling
from ...core import Kind, Objective
from ...plotting import overlay
from ...rules import CurlDescent
from ...teacher_student import (
    CurlDescentScalar,
    TwoLayerLinear,
    VectorTask,
    curl_invariants,
    curl_stability_matrix,
    flipped_edge,
    hidden_flip_threshold,
    readout_flip_threshold,
)
from ...training import train
from .._system import AbstractRunSystem, AbstractSystem, Citation, Exponent, Run, Tolerance

_CITATION = Citation("Ninou, Kadmon, Cayco-Gajic", 2025, "2510.02765")


class CurlDescentSystem(AbstractRunSystem):
    """Two weights, one of which climbs the loss; and the linear stability of a larger network."""

    name: ClassVar[str] = "curl_descent"
    family: ClassVar[str] = "teacher_student"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "a flipped layer turns learning into rotation: locked, or for ever"
    citation: ClassVar[Citation] = _CITATION
    claim: ClassVar[Tolerance] = Tolerance(1e-8)

    def run(self, target: ArrayLike = 0.8) -> Run:
        """Weights on the unit circle, flipped in the hidden layer; from a target of 1/2 on they rotate."""
        model, task, rule = TwoLayerLinear([[0.8]], [-0.6]), VectorTask(jnp.asarray([target])), CurlDescent((-1.0, 1.0))
        return Run(model, task, rule, CurlDescentScalar.from_model(model, task, rule), jnp.linspace(0.0, 20.0, 161))

    def measure(self) -> Float[Array, ""]:
        """The worst error of the weights in three regimes, of the invariants, and of the eigenvalues at a solution."""
        runs = [self.run(target) for target in (0.3, 0.5, 0.8)]
        scalar = [compare(run.solution, run.simulate()).worst for run in runs]
        return jnp.max(jnp.stack([*scalar, invariant_drift(), eigenvalue_error()]))

    def draw(self, figure: Any) -> None:
        """What the network computes in three regimes, and how fast weights lock or rotate."""
        left, right = figure.subplots(1, 2)
        runs = [self.run(target) for target in (0.3, 0.5, 0.8)]
        theory = jnp.stack([jax.vmap(run.solution.evaluate)(run.ts).product for run in runs], axis=1)
        simulated = jnp.stack([run.simulate().observed.product for run in runs], axis=1)
        labels = ["$a = 0.3$, locks", "$a = 0.5$, critical", "$a = 0.8$, rotates"]
        overlay(left, runs[0].ts, theory, simulated, labels, markers=40)
        left.legend(fontsize=7, frameon=False, loc="lower center", ncols=2)
        left.set(xlabel="time $t/\\tau$", ylabel="$w_1w_2$", title="One flipped layer, $r = 1$", ylim=(-1.15, 0.62))
        targets = np.linspace(0.02, 1.2, 200)
        solutions = [self.run(a).solution for a in targets]
        right.plot(targets, [float(solution.rate) for solution in solutions], color="C1", label="rate of locking")
        turning = [4 * np.pi / float(solution.period) for solution in solutions]
        right.plot(targets[targets > 0.5], np.array(turning)[targets > 0.5], color="C0", label="frequency of the phase")
        for a in (0.1, 0.2, 0.3, 0.4):
            right.plot(a, _rate(self.run(a)), "o", color="C1", mfc="white", ms=5)
        for a in (0.55, 0.7, 0.9, 1.1):
            right.plot(a, _frequency(self.run(a)), "o", color="C0", mfc="white", ms=5)
        right.plot([], [], "o", color="0.3", mfc="white", ms=5, label="simulation")
        right.axvline(0.5, color="0.7", lw=1, zorder=0)
        right.set(xlabel="target $a$", ylabel="$\\tau\\times$ rate", title="Locking ends at $2|a| = r^2$")
        right.legend(fontsize=8)


class CurlThresholdSystem(AbstractSystem):
    """How many hidden units may be flipped until solutions are unstable."""

    name: ClassVar[str] = "curl_threshold"
    family: ClassVar[str] = "teacher_student"
    kind: ClassVar[Kind] = "asymptotic"
    summary: ClassVar[str] = "how many flipped units a two-layer linear network bears, in either layer"
    citation: ClassVar[Citation] = _CITATION
    claim: ClassVar[Exponent] = Exponent(-2 / 3, "exponent in N of the error of the lowest eigenvalue")

    def measure(self) -> Scaling:
        """How far the lowest eigenvalue of single samples is from its limit, with a fifth of the readout flipped."""
        ratio, fraction = 0.5, 0.2
        limit = 1 + flipped_edge(ratio, fraction)

        def errors(size: float):
            def deviation(key):
                model = _network(int(size), int(ratio * size), key)
                return _lowest(model, fraction, hidden=False) - limit

            return jax.lax.map(deviation, jax.random.split(jax.random.key(int(size)), 300))

        return scaling(errors, (20.0, 40.0, 80.0, 160.0))

    def draw(self, figure: Any) -> None:
        """Thresholds against the ratio of units to inputs, and the lowest eigenvalue against the flipped fraction."""
        left, right = figure.subplots(1, 2)
        ratios, size = np.geomspace(0.25, 4, 120), 150
        for colour, threshold, label in (
            ("C0", hidden_flip_threshold, "hidden layer"),
            ("C1", readout_flip_threshold, "readout"),
        ):
            left.plot(ratios, jax.vmap(threshold)(jnp.asarray(ratios)), color=colour, label=label)
        for c in (0.5, 1.0, 2.0, 3.0):
            for colour, hidden in (("C0", True), ("C1", False)):
                found = [_threshold(_network(size, int(c * size), jax.random.key(i)), hidden=hidden) for i in range(5)]
                left.errorbar(c, np.mean(found), np.std(found), fmt="o", color=colour, mfc="white", ms=5, capsize=2)
        left.errorbar([], [], [], fmt="o", color="0.3", mfc="white", ms=5, capsize=2, label=f"samples, N = {size}")
        left.set(xlabel="hidden units / inputs $c$", ylabel="fraction of units", title="Flips that solutions bear")
        left.legend(fontsize=8)
        fractions, size = np.linspace(0.002, 1.0, 100), 500
        for i, c in enumerate((0.5, 1.0, 2.0)):
            edges = jax.vmap(flipped_edge, in_axes=(None, 0))(c, jnp.asarray(fractions))
            right.plot(fractions, 1 + edges, color=f"C{i}", label=f"$c = {c:g}$")
            for x in (0.02, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0):
                lowest = _lowest(_network(size, int(c * size), jax.random.key(0)), x, hidden=False)
                right.plot(x, lowest, "o", color=f"C{i}", mfc="white", ms=4)
        right.plot([], [], "o", color="0.3", mfc="white", ms=4, label=f"one sample, N = {size}")
        right.axhline(0.0, color="0.7", lw=1, zorder=0)
        right.set(xlabel="flipped fraction of the readout", title="Lowest eigenvalue of $S$")
        right.legend(fontsize=8)


def invariant_drift() -> Float[Array, ""]:
    """By how much training five units, of which some are flipped, moves what they should conserve."""
    model, task = _network(4, 5, jax.random.key(0)), VectorTask(jnp.asarray([0.5, -1.0, 0.3, 0.8]))
    rule = CurlDescent((jnp.asarray([1.0, -1.0, 1.0, 1.0, 1.0]), jnp.asarray([1.0, 1.0, -1.0, 1.0, 1.0])))
    tight = diffrax.PIDController(rtol=1e-10, atol=1e-14)
    end = train(model, task, rule, [5.0], solver=diffrax.Dopri8(), stepsize_controller=tight).model
    start, end = curl_invariants(model, rule), curl_invariants(end, rule)
    return jnp.max(jnp.abs(end - start)) / jnp.max(jnp.abs(start))


def eigenvalue_error() -> Float[Array, ""]:
    """How far the Jacobian of the whole network's flow, at a solution, is from having the eigenvalues of −S and zeros."""
    model = _network(3, 4, jax.random.key(2))
    rule = CurlDescent((jnp.asarray([1.0, -1.0, 1.0, 1.0]), jnp.asarray([-1.0, 1.0, 1.0, -1.0])))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(params)

    def velocity(weights):
        objective = Objective(VectorTask(model.vector), static)
        return ravel_pytree(rule.vector_field(0.0, unravel(weights), objective))[0]

    found = np.sort(np.linalg.eigvals(np.asarray(jax.jacobian(velocity)(flat))).real)
    zeros = np.zeros(flat.size - model.vector.size)
    expected = np.sort(np.concatenate([-np.linalg.eigvalsh(curl_stability_matrix(model, rule)), zeros]))
    return jnp.max(jnp.abs(jnp.asarray(found - expected)))


def _network(inputs: int, units: int, key: PRNGKeyArray) -> TwoLayerLinear:
    """Hidden weights of variance 1/N, and readouts of norm one."""
    hidden_key, readout_key = jax.random.split(key)
    readout = jax.random.normal(readout_key, (units,))
    hidden = jax.random.normal(hidden_key, (units, inputs)) / inputs**0.5
    return TwoLayerLinear(hidden, readout / jnp.linalg.norm(readout))


def _lowest(model: TwoLayerLinear, fraction: float, *, hidden: bool) -> Float[Array, ""]:
    """The lowest eigenvalue of S with a fraction of the units flipped, in the hidden layer or the readout."""
    units = model.readout.size
    flipped = jnp.where(jnp.arange(units) < round(fraction * units), -1.0, 1.0)
    rule = CurlDescent((flipped, 1.0) if hidden else (1.0, flipped))
    return jnp.linalg.eigvalsh(curl_stability_matrix(model, rule))[0]


def _threshold(model: TwoLayerLinear, *, hidden: bool) -> float:
    """The fraction of units of one network that may be flipped, one after another, by bisection of their number."""
    units = model.readout.size
    low, high = 0, units + 1
    while high - low > 1:
        middle = (low + high) // 2
        stable = float(_lowest(model, middle / units, hidden=hidden)) > 0
        low, high = (middle, high) if stable else (low, middle)
    return low / units


def _frequency(run: Run) -> float:
    """Of the phase, in simulation: the weights turn by half a circle in one period of it."""
    observed = run.simulate().observed
    angle = np.unwrap(np.arctan2(observed.readout, observed.hidden))
    return 2 * np.pi / float(np.interp(np.pi, angle - angle[0], run.ts))


def _rate(run: Run) -> float:
    """At which the error of the map decays, late in the simulation."""
    errors = np.abs(np.asarray(run.simulate().observed.product - run.task.target[0]))
    return -float(np.polyfit(run.ts[96:128], np.log(errors[96:128]), 1)[0])
