"""Saad and Solla's soft committee machine: a plateau, then specialisation."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ...analysis import Scaling, scaling
from ...core import Kind
from ...plotting import overlay
from ...teacher_student import (
    CommitteeTask,
    OnlineSGD,
    SoftCommittee,
    SoftCommitteeFlow,
    committees,
    noise_floor,
    symmetric_plateau,
)
from ...training import ensemble, train
from .._system import AbstractSystem, Citation, Exponent


class SoftCommitteeSystem(AbstractSystem):
    """Overlaps of a two-layer student learning online, against simulations of growing size."""

    name: ClassVar[str] = "soft_committee"
    family: ClassVar[str] = "teacher_student"
    kind: ClassVar[Kind] = "asymptotic"
    summary: ClassVar[str] = "online learning of two-layer networks: plateau, specialisation, noise floor"
    citation: ClassVar[Citation] = Citation("Saad, Solla", 1995)
    claim: ClassVar[Exponent] = Exponent(-0.5, "exponent in N of the scatter of the overlaps")

    def measure(self) -> Scaling:
        """At $t = 3$, with both layers trained on noisy answers: how far single runs are from the limit."""

        def errors(size: float):
            model, task, rule = noisy_case(int(size))
            solution = SoftCommitteeFlow.from_model(model, task, rule, t1=3.0)
            limit = solution.evaluate(3.0)

            def deviation(key):
                run = train(model, task, rule, jnp.asarray([3.0]), observe=solution.reduce, key=key)
                squares = jax.tree.map(lambda x, y: jnp.mean((x[0] - y) ** 2), run.observed, limit)
                return jnp.sqrt(sum(jax.tree.leaves(squares)))

            return ensemble(deviation, jax.random.split(jax.random.key(int(size)), 400))

        return scaling(errors, (40.0, 80.0, 160.0, 320.0))

    def draw(self, figure: Any) -> None:
        """Overlaps with the teacher at a symmetric start, and the error of students with too many units."""
        left, right = figure.subplots(1, 2)
        ts = jnp.linspace(0.0, 800.0, 41)
        model, task, rule = plateau_case(size=250)
        solution = SoftCommitteeFlow.from_model(model, task, rule, t1=800.0)
        predicted = jax.vmap(solution.evaluate)(ts).cross
        simulated = train(model, task, rule, ts, observe=solution.reduce, key=jax.random.key(1)).observed.cross
        labels = [f"$R_{{{i}{n}}}$" for i in (1, 2) for n in (1, 2)]
        overlay(left, ts, predicted.reshape(-1, 4), simulated.reshape(-1, 4), labels)
        level = float(symmetric_plateau(2)[0].cross[0, 0])
        left.axhline(level, color="0.7", lw=1, zorder=0)
        left.set(xlabel="steps / $N$", ylabel="overlap with the teacher", title="Plateau and specialisation")
        late = jnp.logspace(-1, 3.5, 60)
        for surplus in range(3):
            model, task, rule = surplus_case(surplus)
            solution = SoftCommitteeFlow.from_model(model, task, rule, t1=late[-1])
            right.plot(late, jax.vmap(solution.generalisation_error)(late), color=f"C{surplus}", label=f"{2 + surplus}")
            floor = noise_floor(rule.learning_rate, task.noise_scale, student=2 + surplus, teacher=2)
            right.axhline(float(floor), color=f"C{surplus}", ls=":", lw=1)
        right.set(xlabel="steps / $N$", ylabel="generalisation error", title="Noise floor", xscale="log", yscale="log")
        right.legend(fontsize=8, title="units of the student")


def noisy_case(size: int) -> tuple[SoftCommittee, CommitteeTask, OnlineSGD]:
    """Two units learn two units from noisy answers, in both layers."""
    student, cross = jnp.asarray([[0.2, 0.05], [0.05, 0.3]]), jnp.asarray([[0.1, 0.02], [-0.03, 0.15]])
    model, teacher = committees(student, cross, jnp.eye(2), size=size, key=jax.random.key(0))
    return model, CommitteeTask(teacher, noise_scale=0.1), OnlineSGD(0.5, size, readout_rate=0.5)


def plateau_case(size: int) -> tuple[SoftCommittee, CommitteeTask, OnlineSGD]:
    """Two units that start almost alike."""
    tilt = 0.005 * jnp.asarray([[1.0, -1.0], [-1.0, 1.0]])
    model, teacher = committees(0.35 + 0.01 * jnp.eye(2), 0.4 + tilt, jnp.eye(2), size=size, key=jax.random.key(0))
    return model, CommitteeTask(teacher), OnlineSGD(0.1, size)


def surplus_case(surplus: int) -> tuple[SoftCommittee, CommitteeTask, OnlineSGD]:
    """Two units of the teacher, and a student with small surplus units; the size has no effect on theory."""
    units = 2 + surplus
    student = jnp.diag(jnp.asarray([0.5, 0.5] + [0.01] * surplus))
    cross = jnp.asarray(np.eye(units, 2) * 0.3)
    model, teacher = committees(student, cross, jnp.eye(2), size=units + 2, key=jax.random.key(0))
    return model, CommitteeTask(teacher, noise_scale=0.1), OnlineSGD(0.1, units + 2)
