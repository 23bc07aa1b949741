"""Saddle-to-saddle dynamics: from small random weights the modes are learned one after the other, at known times."""

from typing import Any, ClassVar

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...analysis import Scaling, crossing_times, scaling
from ...core import Kind
from ...deep_linear import DeepLinear, LinearTask, SaddleToSaddle, gaussian
from ...plotting import overlay
from ...rules import GradientFlow
from ...training import train
from .._system import AbstractSystem, Citation, Exponent, Run

_SINGULAR_VALUES = (4.0, 2.5, 1.4, 0.7)


class SaddleToSaddleSystem(AbstractSystem):
    """Four modes, six hidden units, Gaussian weights of standard deviation ε."""

    name: ClassVar[str] = "saddle_to_saddle"
    family: ClassVar[str] = "deep_linear"
    kind: ClassVar[Kind] = "asymptotic"
    summary: ClassVar[str] = "half-rise times and plateaus of a two-layer network started from small random weights"
    citation: ClassVar[Citation] = Citation("Zhang, Saxe, Latham", 2025, "2512.20607")
    # 2 (1 - s2/s1) for the first mode.
    claim: ClassVar[Exponent] = Exponent(0.75, "exponent of the first half-rise time's error in the initial scale")

    def run(self, scale: float = 1e-4, t1: float = 18.0) -> Run:
        """One draw of the weights at initial scale `scale`."""
        task = LinearTask(jnp.diag(jnp.asarray(_SINGULAR_VALUES)))
        model = gaussian((4, 6, 4), scale=scale, key=jax.random.key(0))
        rule = GradientFlow()
        return Run(model, task, rule, SaddleToSaddle.from_model(model, task, rule), jnp.linspace(0.0, t1, 361))

    def measure(self) -> Scaling:
        """How the error of the first half-rise time, root mean square over eight draws, falls with the scale.

        The third mode gives the next order, 2 (1 - s3/s1) - 0.75 = 0.55 powers smaller.
        """
        task = LinearTask(jnp.diag(jnp.asarray(_SINGULAR_VALUES)))
        draws = jax.vmap(lambda key: gaussian((4, 6, 4), scale=1.0, key=key))(jax.random.split(jax.random.key(0), 8))

        @jax.jit
        def error(scale):
            return jnp.sqrt(jnp.mean(jax.vmap(lambda draw: _first_error(draw, task, scale))(draws) ** 2))

        return scaling(lambda scale: error(jnp.asarray(scale)), np.logspace(-6, -3, 7).tolist(), correction=0.55)

    def draw(self, figure: Any) -> None:
        """Mode strengths and loss with predicted half-rise times and plateaus."""
        run = self.run()
        observed = run.simulate().observed
        theory = jax.vmap(run.solution.evaluate)(run.ts)
        loss = jax.vmap(run.solution.loss)(run.ts)
        simulated = jax.vmap(run.task.loss_of_map)(jax.vmap(run.solution.product_of)(observed))
        times, s = run.solution.half_rise_times, run.solution.singular_values
        left, right = figure.subplots(1, 2)
        overlay(left, run.ts, theory.strength, observed.strength, [f"s = {x:g}" for x in s], markers=72)
        left.legend(fontsize=8, ncols=3, loc="lower right", bbox_to_anchor=(1.0, 0.62), frameon=False)
        left.vlines(times, 0, s / 2, colors="0.6", linestyles=":")
        left.set(xlabel="time $t/\\tau$", ylabel="mode strength", title="One mode at a time")
        overlay(right, run.ts, loss[:, None], simulated[:, None], ["loss"], markers=72)
        right.hlines(run.solution.plateau_losses[:-1], 0, run.ts[-1], colors="0.6", linestyles=":", lw=1, zorder=0)
        right.vlines(times, 0, run.solution.plateau_losses[0], colors="0.85", linestyles=":", lw=1, zorder=0)
        right.legend(fontsize=8, loc="upper right", bbox_to_anchor=(1.0, 0.95), frameon=False)
        right.set(xlabel="time $t/\\tau$", ylabel="loss", title="Plateaus at saddles of rank 0 to 3")


def _first_error(draw: DeepLinear, task: LinearTask, scale: Float[Array, ""]) -> Float[Array, ""]:
    model = jax.tree.map(lambda w: scale * w, draw)
    solution = SaddleToSaddle.from_model(model, task, check=False)
    predicted, s = solution.half_rise_times[0], solution.singular_values[0]
    ts = predicted + jnp.linspace(-0.05, 0.05, 11) / s
    trajectory = train(
        model,
        task,
        GradientFlow(),
        ts,
        observe=solution.reduce,
        solver=diffrax.Dopri8(),
        stepsize_controller=diffrax.PIDController(rtol=1e-12, atol=1e-14 * scale),
    )
    return jnp.abs(crossing_times(ts, trajectory.observed.strength[:, :1], s / 2)[0] - predicted)
