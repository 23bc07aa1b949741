"""Heads that share several tasks: twice as many heads as tasks form opposite pairs, fewer are superposed."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from ...core import AbstractStepRule, Kind, Trajectory
from ...rules import GradientDescent
from ...training import train
from ...transformers import MultiTaskHeads, MultiTaskHeadsTask, MultiTaskRegression
from .._system import AbstractSystem, Citation, Signature


class MultiTaskHeadsSystem(AbstractSystem):
    """Two tasks with three inputs each, eight examples for each input, a tenth of the labels' power in noise."""

    name: ClassVar[str] = "multi_task_heads"
    family: ClassVar[str] = "transformers"
    kind: ClassVar[Kind] = "phenomenon"
    summary: ClassVar[str] = "heads for T tasks: opposite pairs from 2T heads on, superposition below"
    citation: ClassVar[Citation] = Citation("He, Pan, Chen, Yang", 2025, "2503.12734")
    claim: ClassVar[Signature] = Signature(0.3, "pairing of 2T heads, less that of one head fewer")

    def measure(self) -> Float[Array, ""]:
        """The least over four random starts with 2T heads, less the largest with one head fewer; 1000 steps of Adam."""
        task, rule = two_tasks(), GradientDescent(0.02, optax.adam, time_per_step=1.0)
        keys = jax.random.split(jax.random.key(0), 4)

        def pairings(heads: int) -> Float[Array, " draws"]:
            def pairing(key: PRNGKeyArray) -> Array:
                return trained(task, heads, rule, jnp.asarray([1000.0]), key).model.pairing

            return jax.jit(jax.vmap(pairing))(keys)

        return jnp.min(pairings(4)) - jnp.max(pairings(3))

    def draw(self, figure: Any) -> None:
        """The directions that three and four heads end with, and by how much two to four are worse than the best."""
        task, rule, ts = two_tasks(), GradientDescent(0.05), jnp.geomspace(1.0, 2000.0, 60)
        three, four, late = figure.subplots(1, 3)
        for heads, colour in ((2, "0.5"), (3, "C1"), (4, "C0")):
            run = trained(task, heads, rule, ts, jax.random.key(2))
            late.loglog(ts, run.observed, color=colour, label=f"{heads} heads")
            if heads > 2:
                axes = three if heads == 3 else four
                _arrows(axes, run.model, task, colour)
                axes.set(title=f"{heads} heads, {'a simplex' if heads == 3 else 'opposite pairs'}")
        for exponent, start, style, label in ((-1 / 2, 2.0, ":", "$t^{-1/2}$"), (-2 / 3, 1.6, "--", "$t^{-2/3}$")):
            late.loglog(ts[30:], start * ts[30:] ** exponent, style, color="0.2", label=label)
        late.set(xlabel="time $t/\\tau$", ylabel="excess of the risk, relative", title="Two tasks")
        late.legend(fontsize=8, loc="lower left")


def two_tasks() -> MultiTaskHeadsTask:
    """Two tasks that share no inputs."""
    supports = jnp.repeat(jnp.eye(2), 3, axis=1)
    return MultiTaskHeadsTask(MultiTaskRegression(supports, 48, noise_variance=0.1))


def trained(
    task: MultiTaskHeadsTask, heads: int, rule: AbstractStepRule, ts: Float[Array, " times"], key: PRNGKeyArray
) -> Trajectory:
    """A run from small random numbers; observed is the excess of the summed risk, relative to the infimum."""
    first, second = jax.random.split(key)
    omega = 0.1 * jax.random.normal(first, (heads, task.data.inputs))
    model = MultiTaskHeads(omega, 0.1 * jax.random.normal(second, (task.data.tasks, heads)))
    infimum = jnp.sum(task.infima)
    return train(model, task, rule, ts, observe=lambda m: jnp.sum(task.risks(m)) / infimum - 1)


def _arrows(axes: Any, model: MultiTaskHeads, task: MultiTaskHeadsTask, colour: str) -> None:
    """ω of each head, averaged over the inputs of either task."""
    supports = task.data.supports / task.data.sizes[:, None]
    points = model.omega @ supports.T
    for x, y in points:
        axes.annotate("", (float(x), float(y)), (0, 0), arrowprops={"arrowstyle": "->", "color": colour, "lw": 1.8})
    span = 1.3 * float(jnp.max(jnp.abs(points)))
    axes.axhline(0, color="0.85", lw=0.8, zorder=0)
    axes.axvline(0, color="0.85", lw=0.8, zorder=0)
    axes.set(xlim=(-span, span), ylim=(-span, span), aspect="equal")
    axes.set(xlabel="$\\omega_h$ on the inputs of task 1", ylabel="$\\omega_h$ on those of task 2")
