"""Bouvrie and Slotine's coupled learners: synchronised, they average out their noise."""

from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from ...core import Kind, Objective, integrate_flow
from ...plotting import overlay
from ...rules import CoupledFlow
from ...teacher_student import CoupledLearners, Point, PotentialTask, QuadraticTask, graph_laplacian, spread_bound
from ...training import Mean, ensemble, train
from .._system import AbstractSystem, Citation, Tolerance

# Stochastic differential equations want fixed steps.
_STEPS = {"solver": diffrax.Heun(), "dt0": 0.02, "stepsize_controller": diffrax.ConstantStepSize()}


class CoupledLearnersSystem(AbstractSystem):
    """Five learners on a ring, in a quadratic valley, with noise."""

    name: ClassVar[str] = "coupled_learners"
    family: ClassVar[str] = "teacher_student"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "noisy learners coupled by a graph: spread, error of their mean, and a bound for any loss"
    citation: ClassVar[Citation] = Citation("Bouvrie, Slotine", 2013, "1312.1632")
    claim: ClassVar[Tolerance] = Tolerance(1e-8, "relative error of second moments")

    def case(self, coupling: float) -> tuple[Point, QuadraticTask, CoupledFlow]:
        """A population, its loss and its rule."""
        ring = jnp.asarray(np.roll(np.eye(5), 1, axis=1) + np.roll(np.eye(5), -1, axis=1))
        task = QuadraticTask(jnp.asarray([[1.0, 0.3], [0.3, 0.4]]), jnp.asarray([1.0, -1.0]))
        model = Point(jax.random.normal(jax.random.key(0), (5, 2)))
        return model, task, CoupledFlow(graph_laplacian(ring), coupling, noise_scale=0.7)

    def measure(self) -> Float[Array, ""]:
        """Against Lyapunov's equation of all coordinates, with the drift of the rule by automatic differentiation."""
        model, task, rule = self.case(1.0)
        solution = CoupledLearners.from_model(model, task, rule)
        params, static = eqx.partition(model, eqx.is_inexact_array)
        flat, unravel = ravel_pytree(params)
        objective = Objective(task, static)

        def drift(x):
            return ravel_pytree(rule.vector_field(0.0, unravel(x), objective))[0]

        def modes(x):
            return jnp.ravel(solution.reduce(eqx.combine(unravel(x), static)).first)

        jacobian = jax.jacfwd(drift)(flat)

        def moments(t, state):
            mean, covariance = state
            identity = jnp.eye(flat.size, dtype=flat.dtype)
            return drift(mean), jacobian @ covariance + covariance @ jacobian.T + solution.noise_scale**2 * identity

        path = integrate_flow(moments, (flat, jnp.zeros((flat.size, flat.size), flat.dtype)), 4.0)
        errors = []
        for t in (0.3, 1.0, 4.0):
            mean, covariance = path.evaluate(t)
            projection = jax.jacfwd(modes)(mean)
            found = modes(mean) ** 2 + jnp.diagonal(projection @ covariance @ projection.T)
            expected = jnp.ravel(solution.evaluate(t).second)
            errors.append(jnp.max(jnp.abs(found - expected)) / jnp.max(expected))
        return jnp.max(jnp.stack(errors))

    def draw(self, figure: Any) -> None:
        """Spread in the valley at three couplings, and in a double well against the bound."""
        left, right = figure.subplots(1, 2)
        ts, fine = jnp.linspace(0.0, 6.0, 25), jnp.linspace(0.0, 6.0, 201)
        couplings = (0.0, 0.5, 4.0)
        theory, simulation = [], []
        for coupling in couplings:
            model, task, rule = self.case(coupling)
            solution = CoupledLearners.from_model(model, task, rule)
            theory.append(jax.vmap(solution.evaluate)(fine).spread)
            simulation.append(_mean_spread(model, task, rule, ts, solution, members=400))
        labels = [f"$\\kappa$ = {coupling:g}" for coupling in couplings]
        overlay(left, fine, jnp.stack(theory, axis=1), jnp.stack(simulation, axis=1), labels, simulated_ts=ts)
        left.set(xlabel="time", ylabel="$\\sum_i |x_i - \\bar x|^2$", title="Five learners on a ring, mean of 400 runs")
        left.set(ylim=(0, None))
        wells, weak = PotentialTask(double_well), jnp.linspace(0.9, 8.0, 60)
        model, task, _ = self.case(0.0)
        found = []
        seen = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
        for coupling in seen:
            _, _, rule = self.case(coupling)
            solution = CoupledLearners.from_model(model, task, rule)
            late = jnp.linspace(4.0, 12.0, 5)
            found.append(jnp.mean(_mean_spread(model, wells, rule, late, solution, members=200)))
        bounds = [spread_bound(self.case(coupling)[2], dimension=2, curvature=-1.0) for coupling in weak.tolist()]
        right.semilogy(weak, bounds, color="0.3", label="bound")
        right.semilogy(seen, found, "o", mfc="white", ms=4, label="simulation")
        right.set(xlabel="coupling $\\kappa$", ylabel="late $\\sum_i |x_i - \\bar x|^2$", title="In a double well")
        right.legend(fontsize=8)


def double_well(x: Float[Array, " dimension"]) -> Float[Array, ""]:
    """Two minima in each coordinate, and the curvature -1 between them."""
    return jnp.sum(x**4 / 4 - x**2 / 2)


def _mean_spread(model, task, rule, ts, solution: CoupledLearners, *, members: int) -> Float[Array, " times"]:
    def run(key):
        return train(model, task, rule, ts, observe=solution.reduce, key=key, **_STEPS).observed.spread

    return ensemble(run, jax.random.split(jax.random.key(1), members), reduce=Mean()).mean
