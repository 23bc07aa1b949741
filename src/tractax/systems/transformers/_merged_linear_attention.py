"""Many heads with merged keys and queries: one plateau, one drop, at a known time."""

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
from ...transformers import InContextRegression, LinearAttention, LinearAttentionFlow, drop_time, gaussian_attention
from .._system import AbstractSystem, Citation, Exponent


class MergedLinearAttentionSystem(AbstractSystem):
    """Random weights of all heads; four inputs, 31 examples in a prompt."""

    name: ClassVar[str] = "merged_linear_attention"
    family: ClassVar[str] = "transformers"
    kind: ClassVar[Kind] = "asymptotic"
    summary: ClassVar[str] = "any number of merged linear attention heads: one drop of the loss, at a known time"
    citation: ClassVar[Citation] = Citation("Zhang, Singh, Latham, Saxe", 2025, "2501.16265")
    claim: ClassVar[Exponent] = Exponent(1.0, "exponent in the initial scale of the error of the drop time")

    def measure(self) -> Scaling:
        """Over eight draws of the weights of four heads, all weights of the layer trained."""
        task = graded_task()
        draws = jax.vmap(lambda key: gaussian_attention(4, 4, scale=1.0, key=key))(jax.random.split(jax.random.key(0), 8))

        @jax.jit
        def errors(scale: Float[Array, ""]) -> Float[Array, " draws"]:
            return jax.vmap(lambda draw: _error(draw, task, scale))(draws)

        return scaling(lambda scale: errors(jnp.asarray(scale)), (1e-2, 1e-3, 1e-4))

    def draw(self, figure: Any) -> None:
        """The loss of eight heads, on inputs of two covariances; the drop time against the initial scale."""
        left, right = figure.subplots(1, 2)
        tasks = {"white": InContextRegression(jnp.eye(4) / 4, length=31), "graded": graded_task()}
        model = gaussian_attention(4, 8, scale=1e-3, key=jax.random.key(0))
        ts = jnp.linspace(0.0, 120.0, 121)
        theory, simulated = [], []
        for task in tasks.values():
            solution = LinearAttentionFlow.from_model(model, task, t1=ts[-1])
            theory.append(jax.vmap(solution.loss)(ts))
            simulated.append(train(model, task, GradientFlow(), ts).observed)
        overlay(left, ts, jnp.stack(theory, axis=1), jnp.stack(simulated, axis=1), list(tasks))
        left.set(xlabel="time $t/\\tau$", ylabel="loss", title="One plateau, one drop", ylim=(0, None))
        scales, unit = jnp.logspace(-6.0, -1.0, 11), _scaled(model, 1e3)
        times = [_times(unit, task, scales) for task in tasks.values()]
        predicted, found = (jnp.stack(columns, axis=1) for columns in zip(*times, strict=True))
        overlay(right, scales, predicted, found, list(tasks), simulated_ts=scales[::2])
        right.set(xlabel="initial scale", ylabel="time of half the drop", title="The smaller, the later", xscale="log")


def graded_task() -> InContextRegression:
    """Inputs with variances in the ratio 4 : 3 : 2 : 1."""
    return InContextRegression(jnp.diag(jnp.asarray([0.4, 0.3, 0.2, 0.1])), length=31)


def _scaled(model: LinearAttention, scale: Any) -> LinearAttention:
    return jax.tree.map(lambda w: scale * w, model)


def _times(
    unit: LinearAttention, task: InContextRegression, scales: Float[Array, " scales"]
) -> tuple[Float[Array, " scales"], Float[Array, " some"]]:
    """The drop time at each scale, predicted and, at every other one, simulated."""
    predicted = [drop_time(_scaled(unit, scale), task) for scale in scales]
    found = [_measured(_scaled(unit, scales[i]), task, predicted[i]) for i in range(0, len(predicted), 2)]
    return jnp.stack(predicted), jnp.stack(found)


def _error(draw: LinearAttention, task: InContextRegression, scale: Float[Array, ""]) -> Float[Array, ""]:
    model = _scaled(draw, scale)
    predicted = drop_time(model, task)
    return jnp.abs(_measured(model, task, predicted) - predicted)


def _measured(model: LinearAttention, task: InContextRegression, near: Float[Array, ""]) -> Float[Array, ""]:
    """When the simulated loss falls through the middle, looked for around `near`."""
    ts = near * (1 + 0.1 * jnp.linspace(-1.0, 1.0, 41))
    controller = diffrax.PIDController(rtol=1e-11, atol=1e-19)
    losses = train(model, task, GradientFlow(), ts, solver=diffrax.Dopri8(), stepsize_controller=controller).observed
    best = task.loss_of_map(task.optimum)
    middle = (jnp.trace(task.covariance) / 2 + best) / 2
    return crossing_times(ts, losses[:, None], middle)[0]
