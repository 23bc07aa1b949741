"""Consensus-based optimisation: gradient descent without gradients."""

from typing import Any, ClassVar

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

from ...analysis import Scaling, scaling
from ...core import Kind
from ...rules import ConsensusFlow, ConsensusHopping
from ...teacher_student import ConsensusDescent, Point, QuadraticTask, consensus_rate
from ...training import Mean, ensemble, train
from .._system import AbstractSystem, Citation, Exponent


class ConsensusSystem(AbstractSystem):
    """Hopping to the consensus of samples, in a quadratic valley, against implicit Euler."""

    name: ClassVar[str] = "consensus"
    family: ClassVar[str] = "teacher_student"
    kind: ClassVar[Kind] = "asymptotic"
    summary: ClassVar[str] = "consensus-based optimisation: hopping is implicit gradient descent; when particles agree"
    citation: ClassVar[Citation] = Citation("Riedl, Klock, Geldhauser, Fornasier", 2023, "2306.09778")
    claim: ClassVar[Exponent] = Exponent(-0.5, "exponent in the number of samples of the distance from implicit Euler")

    def case(self, samples: int) -> tuple[Point, QuadraticTask, ConsensusHopping]:
        """A tilted valley, and steps of length 0.6."""
        task = QuadraticTask(jnp.asarray([[2.0, 0.5], [0.5, 1.0]]), jnp.asarray([1.0, -1.0]))
        return Point(jnp.asarray([-1.0, 1.0])), task, ConsensusHopping(1.0, 0.6, samples)

    def measure(self) -> Scaling:
        """Five hops of many runs, at numbers of samples from 200 to 1800."""

        def errors(samples: float):
            model, task, rule = self.case(int(samples))
            solution = ConsensusDescent.from_model(model, task, rule)
            last = 5 * rule.time_per_step
            expected = solution.evaluate(last).position

            def distance(key):
                run = train(model, task, rule, last[None], observe=solution.reduce, key=key)
                return jnp.linalg.norm(run.observed.position[0] - expected)

            return ensemble(distance, jax.random.split(jax.random.key(int(samples)), 200))

        return scaling(errors, (200.0, 600.0, 1800.0))

    def draw(self, figure: Any) -> None:
        """Paths of hopping in the valley, and the variance of particles below and above the threshold of noise."""
        left, right = figure.subplots(1, 2)
        model, task, rule = self.case(400)
        solution = ConsensusDescent.from_model(model, task, rule)
        x, y = np.meshgrid(np.linspace(-1.4, 1.8, 80), np.linspace(-1.5, 1.4, 80))
        offset = np.stack([x, y], axis=-1) - np.asarray(task.minimum)
        loss = np.einsum("...i,ij,...j", offset, task.hessian, offset) / 2
        left.contour(x, y, loss, levels=np.geomspace(0.02, 8, 9), colors="0.85", linewidths=0.8)
        ts = rule.time_per_step * jnp.arange(8.0)
        fine = jax.vmap(solution.evaluate)(jnp.linspace(0.0, ts[-1], 100)).position
        hops = jax.vmap(solution.evaluate)(ts).position
        left.plot(fine[:, 0], fine[:, 1], color="C0", lw=1)
        left.plot(hops[:, 0], hops[:, 1], "s", color="C0", ms=5, label="implicit Euler")
        for seed in range(6):
            path = train(model, task, rule, ts, observe=solution.reduce, key=jax.random.key(seed)).observed.position
            left.plot(path[:, 0], path[:, 1], "o", color="C1", mfc="none", ms=5, label=None if seed else "six runs")
        left.set(xlabel="$x_1$", ylabel="$x_2$", title="Consensus hopping, 400 samples a step")
        left.legend(fontsize=8)
        particles, dimension = 10, 20
        start = Point(jax.random.normal(jax.random.key(0), (particles, dimension)))
        wide = QuadraticTask(jnp.eye(dimension))
        times, seen = jnp.linspace(0.0, 3.0, 100), jnp.linspace(0.0, 3.0, 13)
        for colour, noise in (("C0", 0.1), ("C1", 0.25), ("C2", 0.36)):
            flow = ConsensusFlow(1.0, 0.0, noise)
            rate = float(consensus_rate(flow, particles=particles, dimension=dimension))
            first = float(_variance(start))
            right.semilogy(times, first * jnp.exp(-rate * times), color=colour, label=f"$\\sigma$ = {noise}")

            def run(key, flow=flow):
                return train(start, wide, flow, seen, observe=_variance, key=key, **_STEPS).observed

            found = ensemble(run, jax.random.split(jax.random.key(1), 100), reduce=Mean()).mean
            right.semilogy(seen, found, "o", color=colour, mfc="white", ms=4)
        right.plot([], [], "o", color="0.3", mfc="white", ms=4, label="mean of 100 runs")
        right.set(xlabel="time $\\lambda t$", ylabel="variance of 10 particles", title="Do they agree? ($d = 20$)")
        right.legend(fontsize=8)


# The noise depends on the state: Euler's method is the one for equations in the sense of Ito.
_STEPS = {"solver": diffrax.Euler(), "dt0": 0.02, "stepsize_controller": diffrax.ConstantStepSize()}


def _variance(model: Point) -> jax.Array:
    return jnp.mean(jnp.sum((model.position - jnp.mean(model.position, axis=0)[None, :]) ** 2, axis=1))
