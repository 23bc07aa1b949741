"""Ben Arous, Gheissari and Jagannath's single-index models: how long learning searches for a direction."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ...analysis import Scaling, compare, crossing_times, scaling
from ...core import Kind
from ...teacher_student import (
    HermiteLink,
    MixedSingleIndexFlow,
    OnlineSingleIndex,
    SingleIndex,
    SingleIndexFlow,
    SingleIndexTask,
    SphericalFlow,
    SphericalSGD,
    passage_time,
    single_indices,
)
from ...training import ensemble, train
from .._system import AbstractRunSystem, AbstractSystem, Citation, Exponent, Run, Tolerance

_CITATION = Citation("Ben Arous, Gheissari, Jagannath", 2021, "2003.10409")


class SingleIndexSystem(AbstractRunSystem):
    """Spherical gradient flow from small overlaps, for links of every kind."""

    name: ClassVar[str] = "single_index"
    family: ClassVar[str] = "teacher_student"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "a direction is found late if the first common Hermite order of two links is high"
    citation: ClassVar[Citation] = _CITATION
    claim: ClassVar[Tolerance] = Tolerance(1e-8)

    def run(self, order: int = 3, start: ArrayLike = 0.2, signal: float = 1.0) -> Run:
        """One Hermite order, five inputs."""
        link, last = HermiteLink([1.0], (order,)), 1.2 * float(passage_time(abs(float(start)), 0.99, 1.0, order=order))
        student, teacher = single_indices(
            start, size=5, student=HermiteLink([signal], (order,)), teacher=link, key=jax.random.key(order)
        )
        task, rule = SingleIndexTask(teacher), SphericalFlow()
        return Run(student, task, rule, SingleIndexFlow.from_model(student, task, rule), jnp.linspace(0.0, last, 81))

    def measure(self) -> Float[Array, ""]:
        """The worst error of any overlap: two orders, from either side of zero, and links with several orders."""
        runs = [self.run(order, start) for order in (2, 3) for start in (0.2, -0.3)]
        return jnp.max(jnp.stack([compare(run.solution, run.simulate()).worst for run in [*runs, mixed_run()]]))

    def draw(self, figure: Any) -> None:
        """Overlaps over time, and the time to find half of the direction against the dimension."""
        left, right = figure.subplots(1, 2)
        runs = [self.run(order) for order in (1, 2, 3, 4)]
        for i, run in enumerate(runs):
            left.plot(run.ts, jax.vmap(run.solution.evaluate)(run.ts).overlap, color=f"C{i}", label=f"$k = {i + 1}$")
            left.plot(run.ts[::5], run.simulate().observed.overlap[::5], "o", color=f"C{i}", mfc="white", ms=4)
        left.plot([], [], "o", color="0.3", mfc="white", ms=4, label="simulation")
        left.set(xlabel="time $t/\\tau$", ylabel="overlap $m$", title="Links with one Hermite order", xlim=(0, 4))
        left.legend(fontsize=8, loc="lower right")
        sizes = jnp.logspace(1, 4, 31)
        for i, law in enumerate(("constant", "$\\ln d$", "$d^{1/2}$", "$d$")):
            times = passage_time(sizes**-0.5, 0.5, 1.0, order=i + 1)
            right.loglog(sizes, times, color=f"C{i}", label=f"$k = {i + 1}$: {law}")
            for size in (10.0, 100.0, 1000.0, 10000.0):
                right.plot(size, self._found(i + 1, size), "o", color=f"C{i}", mfc="white", ms=4)
        right.set(
            xlabel="dimension $d$, with $m_0 = d^{-1/2}$", ylabel="time to overlap 1/2", title="Length of the search"
        )
        right.legend(fontsize=8)

    def _found(self, order: int, size: float) -> float:
        """When the simulated overlap passes one half."""
        run = self.run(order, size**-0.5)
        return float(crossing_times(run.ts, run.simulate().observed.overlap[:, None], 0.5)[0])


class OnlineSingleIndexSystem(AbstractSystem):
    """Online SGD on the sphere, one fresh example a step."""

    name: ClassVar[str] = "online_single_index"
    family: ClassVar[str] = "teacher_student"
    kind: ClassVar[Kind] = "asymptotic"
    summary: ClassVar[str] = "online SGD of single-index models follows a polynomial differential equation"
    citation: ClassVar[Citation] = _CITATION
    claim: ClassVar[Exponent] = Exponent(-0.5, "exponent in d of the scatter of the overlap")

    def measure(self) -> Scaling:
        """At two steps for each input, how far the overlaps of single runs are from the limit."""

        def errors(size: float):
            student, task, rule = online_case(int(size))
            solution = OnlineSingleIndex.from_model(student, task, rule, t1=2.0)
            limit = solution.evaluate(2.0).overlap

            def deviation(key):
                return train(student, task, rule, [2.0], observe=task.overlap, key=key).observed[0] - limit

            return ensemble(deviation, jax.random.split(jax.random.key(int(size)), 600))

        return scaling(errors, (25.0, 50.0, 100.0, 200.0))

    def draw(self, figure: Any) -> None:
        """Runs of two sizes about their limit, and the end of learning with noisy answers at several rates."""
        left, right = figure.subplots(1, 2)
        ts = jnp.linspace(0.0, 20.0, 101)
        for colour, size, runs in (("C1", 50, 3), ("C0", 1000, 3)):
            student, task, rule = online_case(size)
            for i in range(runs):
                run = train(student, task, rule, ts, observe=task.overlap, key=jax.random.key(i))
                left.plot(run.ts, run.observed, color=colour, lw=0.8, label=f"$d = {size}$" if i == 0 else None)
        solution = OnlineSingleIndex.from_model(student, task, rule, t1=ts[-1])
        left.plot(ts, jax.vmap(solution.evaluate)(ts).overlap, color="k", ls="--", label="$d\\to\\infty$")
        left.set(xlabel="steps / $d$", ylabel="overlap $m$", title="Online SGD")
        left.legend(fontsize=8, loc="lower right")
        rates = jnp.linspace(0.02, 0.33, 311)
        for i, noise in enumerate((0.5, 1.0, 1.5)):
            ends = jax.vmap(lambda rate, noise=noise: _square_case(rate, noise, 2)[0].limit().overlap)(rates)
            right.plot(rates, ends, color=f"C{i}", label=f"$\\sigma = {noise:g}$")
            for rate in (0.05, 0.1, 0.15, 0.2, 0.25):
                right.plot(rate, _late_overlap(rate, noise), "o", color=f"C{i}", mfc="white", ms=4)
        right.plot([], [], "o", color="0.3", mfc="white", ms=4, label="SGD, $d = 200$")
        right.set(xlabel="learning rate $\\eta$", ylabel="final overlap", title="Where noisy answers leave it ($k = 2$)")
        right.legend(fontsize=8, loc="lower left")


def mixed_run() -> Run:
    """Links with four Hermite orders each."""
    student, teacher = single_indices(
        -0.6,
        size=6,
        student=HermiteLink([0.3, 0.5, -0.4, 0.2]),
        teacher=HermiteLink([0.1, 0.6, 0.7, 0.5]),
        key=jax.random.key(0),
    )
    task, rule = SingleIndexTask(teacher), SphericalFlow()
    solution = MixedSingleIndexFlow.from_model(student, task, rule, t1=20.0)
    return Run(student, task, rule, solution, jnp.linspace(0.0, 20.0, 81))


def online_case(size: int) -> tuple[SingleIndex, SingleIndexTask, SphericalSGD]:
    """Two links with two Hermite orders in common, noisy answers."""
    student, teacher = single_indices(
        0.3, size=size, student=HermiteLink([0.0, 0.5, 0.5]), teacher=HermiteLink([0.0, 0.5, 0.5]), key=jax.random.key(0)
    )
    return student, SingleIndexTask(teacher, 0.2), SphericalSGD(0.2, size)


def _square_case(rate: ArrayLike, noise: float, size: int) -> tuple[OnlineSingleIndex, Run]:
    """The square as link, started close to the teacher."""
    square = HermiteLink([1.0], (2,))
    student, teacher = single_indices(0.95, size=size, student=square, teacher=square, key=jax.random.key(0))
    task, rule = SingleIndexTask(teacher, noise), SphericalSGD(rate, size)
    solution = OnlineSingleIndex.from_model(student, task, rule, t1=1.0)
    return solution, Run(student, task, rule, solution, jnp.linspace(30.0, 130.0, 401))


def _late_overlap(rate: float, noise: float) -> float:
    """The overlap at which online SGD hovers: its root mean square, since it may change sign."""
    _, run = _square_case(rate, noise, 200)
    found = train(run.model, run.task, run.rule, run.ts, observe=run.task.overlap, key=jax.random.key(1)).observed
    return float(jnp.sqrt(jnp.mean(found**2)))
