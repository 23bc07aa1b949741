"""Large learning rates make attention logits grow without bound, unless queries and keys are normalised."""

from typing import Any, ClassVar

import diffrax
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from ...core import Kind
from ...plotting import overlay
from ...rules import GradientDescent, GradientFlow
from ...training import train
from ...transformers import (
    FreeLogits,
    FreeLogitsSolution,
    InContextRegression,
    LabelTask,
    SoftmaxTransformer,
    learning_rate_sensitivity,
)
from .._system import AbstractSystem, Citation, Signature

_RATES = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1)


class TransformerStabilitySystem(AbstractSystem):
    """A transformer of one layer and width sixteen learns regression in context by Adam, 200 steps."""

    name: ClassVar[str] = "transformer_stability"
    family: ClassVar[str] = "transformers"
    kind: ClassVar[Kind] = "phenomenon"
    summary: ClassVar[str] = "attention logits and the sensitivity to the learning rate, with and without qk-norm"
    citation: ClassVar[Citation] = Citation("Wortsman et al.", 2023, "2309.14322")
    claim: ClassVar[Signature] = Signature(100.0, "growth of the largest attention logit, without qk-norm over with it")

    def measure(self) -> Float[Array, ""]:
        """From the smallest to the largest learning rate, a factor of 100; means over three draws."""
        plain, normed = (jnp.mean(_sweep(qk_norm, _RATES[::4])[2], axis=0) for qk_norm in (False, True))
        return (plain[1] / plain[0]) / (normed[1] / normed[0])

    def draw(self, figure: Any) -> None:
        """Loss and largest attention logit against the learning rate; free logits in closed form."""
        loss, logit, free = figure.subplots(1, 3)
        for qk_norm, colour, label in ((False, "C3", "without"), (True, "C0", "with qk-norm")):
            initial, final, largest = _sweep(qk_norm, _RATES)
            name = f"{label}, {_sensitivity((initial, final, largest)):.2f}"
            loss.semilogx(_RATES, jnp.mean(final, axis=0), "o-", color=colour, mfc="white", ms=4, label=name)
            logit.loglog(_RATES, jnp.mean(largest, axis=0), "o-", color=colour, mfc="white", ms=4, label=label)
        loss.axhline(float(jnp.mean(initial)), color="0.7", ls=":", lw=1)
        loss.set(xlabel="learning rate", ylabel="loss after training", title="Sensitivity", ylim=(0, None))
        loss.legend(fontsize=8, loc="lower right", title="sensitivity", title_fontsize=8)
        logit.axhline(8**0.5, color="0.7", ls=":", lw=1)
        logit.set(xlabel="learning rate", ylabel="largest attention logit", title="Attention logits")
        logit.legend(fontsize=8)
        model, task, ts = FreeLogits(jnp.asarray([1.0, -2.0, 0.5, -0.5])), LabelTask(1), jnp.logspace(-1.0, 3.0, 97)
        solution = FreeLogitsSolution.from_model(model, task)
        simulated = train(model, task, GradientFlow(), ts, observe=solution.reduce).observed
        names = ["wrong", "right", "wrong", "wrong"]
        overlay(free, ts, jax.vmap(solution.evaluate)(ts), simulated, names)
        free.set(xlabel="time $t/\\tau$", ylabel="logit", title="Free logits", xscale="log")


Sweep = tuple[Float[Array, " draws"], Float[Array, "draws rates"], Float[Array, "draws rates"]]


def _sweep(qk_norm: bool, rates: tuple[float, ...]) -> Sweep:
    """Initial losses, final losses and largest attention logits, for every draw and learning rate."""
    task = InContextRegression(jnp.eye(3), length=8)
    tested = task.sample(jax.random.key(99), 512)

    def largest(model: SoftmaxTransformer) -> Array:
        return jnp.max(jnp.abs(jax.vmap(model.attention_logits)(tested[0][:256])))

    def one(key: PRNGKeyArray, rate: Array) -> tuple[Array, Array, Array]:
        weights, batches = jax.random.split(key)
        model = SoftmaxTransformer(3, 16, 2, qk_norm=qk_norm, key=weights)
        rule = GradientDescent(rate, optax.adam, time_per_step=1.0, batch_size=16)
        options = {"observe": largest, "key": batches, "adjoint": diffrax.ForwardMode(), "throw": False}
        run = train(model, task, rule, jnp.asarray([200.0]), **options)
        return task.batch_loss(model, tested), task.batch_loss(run.model, tested), run.observed[0]

    keys = jax.random.split(jax.random.key(0), 3)
    over_rates = jax.vmap(one, in_axes=(None, 0))
    initial, final, logits = jax.jit(jax.vmap(over_rates, in_axes=(0, None)))(keys, jnp.asarray(rates))
    return initial[:, 0], final, logits


def _sensitivity(sweep: Sweep) -> Float[Array, ""]:
    initial, final, _ = sweep
    return jnp.mean(jax.vmap(learning_rate_sensitivity)(final, initial))
