"""Heads with separate keys and queries learn one principal component of the inputs after the other."""

from typing import Any, ClassVar

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...analysis import Scaling, crossing_times, scaling
from ...core import Kind
from ...plotting import overlay
from ...rules import GradientFlow
from ...training import train
from ...transformers import (
    AlignedAttention,
    InContextRegression,
    SeparateAttention,
    SeparateAttentionFlow,
    aligned_attention,
    gaussian_separate_attention,
    plateau_losses,
)
from .._system import AbstractSystem, Citation, Exponent
from ._merged_linear_attention import graded_task


class SeparateKQAttentionSystem(AbstractSystem):
    """Heads of rank one from small random weights; four inputs of graded variance, 31 examples in a prompt."""

    name: ClassVar[str] = "separate_kq_attention"
    family: ClassVar[str] = "transformers"
    kind: ClassVar[Kind] = "asymptotic"
    summary: ClassVar[str] = "separate keys and queries: the loss falls in steps, one principal component at a time"
    citation: ClassVar[Citation] = Citation("Zhang, Singh, Latham, Saxe", 2025, "2501.16265")
    claim: ClassVar[Exponent] = Exponent(-1.0, "exponent in the initial scale of the length of the first plateau")

    def measure(self) -> Scaling:
        """Five heads, all weights of the layer trained; the geometric mean over four draws."""
        task = graded_task()
        keys = jax.random.split(jax.random.key(0), 4)
        draws = jax.vmap(lambda key: gaussian_separate_attention(4, 5, scale=1.0, key=key))(keys)

        @jax.jit
        def length(scale: Float[Array, ""]) -> Float[Array, ""]:
            times = jax.vmap(lambda draw: _first_drop(jax.tree.map(lambda w: scale * w, draw), task, scale))(draws)
            return jnp.exp(jnp.mean(jnp.log(times)))

        return scaling(lambda scale: length(jnp.asarray(scale)), (0.08, 0.04, 0.02, 0.01), correction=1.0)

    def draw(self, figure: Any) -> None:
        """The loss of random heads between its plateaus; aligned heads, each on a component of its own."""
        left, right = figure.subplots(1, 2)
        task, rule = graded_task(), GradientFlow()
        ts = jnp.logspace(2.0, 4.2, 1201)
        model = gaussian_separate_attention(4, 5, scale=1e-2, key=jax.random.key(0))
        flow = SeparateAttentionFlow.from_model(model, task, rule, t1=1.001 * ts[-1])
        simulated = train(model, task, rule, ts).observed
        overlay(left, ts, jax.vmap(flow.loss)(ts)[:, None], simulated[:, None], ["five heads"], markers=48)
        for level in plateau_losses(task):
            left.axhline(float(level), color="0.7", ls=":", lw=1)
        left.set(xlabel="time $t/\\tau$", ylabel="loss", title="Random heads", xscale="log", ylim=(0, None))
        aligned = aligned_attention(task, jnp.full(4, 0.1))
        solution = AlignedAttention.from_model(aligned, task, rule)
        ts = jnp.logspace(1.0, 3.4, 1201)
        run = train(aligned, task, rule, ts, observe=solution.reduce)
        values = jax.vmap(solution.evaluate)(ts).value, run.observed.value
        predicted, found = (v**3 * solution.costs[None, :] for v in values)
        overlay(right, ts, predicted, found, [f"$e_{i + 1}$" for i in range(4)], markers=48)
        right.set(xlabel="time $t/\\tau$", ylabel="$v_i^3\\gamma_i$, learned of the component", title="Aligned heads")
        right.set_xscale("log")


def _first_drop(model: SeparateAttention, task: InContextRegression, scale: Float[Array, ""]) -> Float[Array, ""]:
    """When the simulated loss falls through the middle between the first two plateaus."""
    ts = jnp.geomspace(0.5, 50.0, 1500) / scale
    controller = diffrax.PIDController(rtol=1e-9, atol=1e-13)
    losses = train(model, task, GradientFlow(), ts, stepsize_controller=controller).observed
    levels = plateau_losses(task)
    return crossing_times(ts, losses[:, None], (levels[0] + levels[1]) / 2)[0]
