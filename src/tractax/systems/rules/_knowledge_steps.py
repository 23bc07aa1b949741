"""Steps of structured knowledge: what the invariance under learning rate times steps amounts to."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ...analysis import Scaling, scaling
from ...core import Kind
from ...rules import EntropyTask, GradientDescent, KnowledgeFlow, KnowledgeLayer
from ...training import train
from .._system import AbstractSystem, Citation, Exponent

_TIME = 8.0
_RATES = (0.4, 0.2, 0.1, 0.05)


class KnowledgeStepsSystem(AbstractSystem):
    """Three units and one input, in steps of several learning rates up to the same time."""

    name: ClassVar[str] = "knowledge_steps"
    family: ClassVar[str] = "rules"
    kind: ClassVar[Kind] = "asymptotic"
    summary: ClassVar[str] = "runs with the same learning rate times steps differ by the learning rate"
    citation: ClassVar[Citation] = Citation("Mahi", 2025, "2504.03214")
    claim: ClassVar[Exponent] = Exponent(1.0, "exponent in the learning rate")

    def layer(self) -> tuple[KnowledgeLayer, EntropyTask]:
        """The layer and its input."""
        return KnowledgeLayer([[0.05, 0.1], [0.4, -0.1], [1.0, 0.5]]), EntropyTask([[1.0, 0.5]])

    def errors(self, rate: ArrayLike, ts: Float[Array, " times"]) -> Float[Array, " times"]:
        """The distance of the logits after steps from the flow at the same times."""
        model, task = self.layer()
        solution = KnowledgeFlow.from_model(model, task)
        run = train(model, task, GradientDescent(rate), ts, observe=lambda model: model(task.inputs[0]))
        return jnp.linalg.norm(run.observed - jax.vmap(solution.evaluate)(ts).logits[:, 0], axis=1)

    def measure(self) -> Scaling:
        """The rate at which the error at a fixed time falls with the learning rate."""
        found = jax.jit(jax.vmap(lambda rate: self.errors(rate, jnp.asarray([_TIME]))[0]))(jnp.asarray(_RATES))
        return scaling(dict(zip(_RATES, found.tolist(), strict=True)).__getitem__, _RATES, correction=1.0)

    def draw(self, figure: Any) -> None:
        """The error in the course of training, and at one time against the learning rate."""
        import matplotlib

        during, against = figure.subplots(1, 2)
        colours = matplotlib.colormaps["viridis"]([0.0, 0.28, 0.56, 0.84])
        rates, found = jnp.asarray(_RATES), []
        for rate, colour in zip(_RATES, colours, strict=True):
            ts = 0.4 * jnp.arange(1.0, 51.0)
            errors = self.errors(rate, ts)
            found.append(errors[19])
            during.semilogy(ts, errors, color=colour, label=f"$\\eta = {rate}$")
            against.loglog(rate, errors[19], "o", color=colour, mfc="white", ms=6)
        during.set(xlabel="time $t = \\eta k$", ylabel="distance of steps from the flow", ylim=(1e-4, 1))
        during.legend(fontsize=8, ncols=2)
        against.loglog(rates, found[-1] * rates / rates[-1], color="0.3", lw=1.2, label="$\\propto\\eta$", zorder=0)
        against.set(xlabel="learning rate $\\eta$", ylim=(0.01, 0.4), title=f"time $t = {_TIME:g}$")
        against.set_xticks(_RATES, [f"{rate:g}" for rate in _RATES])
        against.minorticks_off()
        against.legend(fontsize=8)
