"""Implicit bias of diagonal linear networks: from ridge-like to sparse interpolation as initial weights shrink."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...analysis import compare
from ...core import Kind, relative_norm
from ...deep_linear import DiagonalLinear, DiagonalNetwork, RegressionTask
from ...plotting import overlay
from ...rules import GradientFlow
from ...training import train
from .._system import AbstractRunSystem, Citation, Run, Tolerance


class DiagonalNetworkSystem(AbstractRunSystem):
    """Three inputs, two examples, equal initial weights."""

    name: ClassVar[str] = "diagonal_network"
    family: ClassVar[str] = "deep_linear"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "mirror flow of a diagonal linear network, and the interpolator at which it ends"
    citation: ClassVar[Citation] = Citation("Woodworth et al.", 2020, "2002.09277")
    claim: ClassVar[Tolerance] = Tolerance(1e-8)

    def run(self, scale: float = 0.1, depth: int = 2, t1: float = 40.0) -> Run:
        """Initial weights `scale`."""
        task = RegressionTask(jnp.asarray([[1.0, 0.5, -0.3], [0.2, -1.0, 0.8]]), jnp.asarray([1.0, 0.4]))
        model = DiagonalLinear.uniform(3, scale=scale, depth=depth)
        rule = GradientFlow()
        return Run(model, task, rule, DiagonalNetwork.from_model(model, task, rule), jnp.linspace(0.0, t1, 161))

    def measure(self) -> Float[Array, ""]:
        """The largest relative error of any weight at any time, and of the predictor in the end."""
        run = self.run()
        along = compare(run.solution, run.simulate()).worst
        end = self.run(t1=400.0).simulate().model.predictor
        limit = run.solution.limit().predictor
        return jnp.maximum(along, relative_norm(end - limit, limit))

    def draw(self, figure: Any) -> None:
        """The predictor in time, and the norm at which it ends against the initial weights."""
        run = self.run()
        observed = run.simulate().observed
        theory = jax.vmap(run.solution.evaluate)(run.ts)
        left, right = figure.subplots(1, 2)
        overlay(left, run.ts, theory.predictor, observed.predictor, [f"$\\beta_{j + 1}$" for j in range(3)], markers=40)
        left.set(xlabel="time $t/\\tau$", ylabel="predictor", title="Mirror flow, initial weights 0.1")
        scales = jnp.logspace(-4, 0.5, 46)
        trained = scales[18::3]
        curves = jnp.stack([_norms(run.task, scales, depth) for depth in (2, 3)], axis=1)
        points = jnp.stack([_simulated_norms(run.task, trained, depth) for depth in (2, 3)], axis=1)
        overlay(right, scales, curves, points, ["depth 2", "depth 3"], simulated_ts=trained)
        flattest = jnp.linalg.pinv(run.task.inputs) @ run.task.targets
        widest = jnp.sum(jnp.abs(flattest))
        for norm, label, offset in ((14 / 11, "least $\\ell_1$ norm", -10), (widest, "least $\\ell_2$ norm", 3)):
            right.axhline(norm, color="0.6", ls=":", lw=1, zorder=0)
            right.annotate(label, (1e-4, norm), xytext=(0, offset), textcoords="offset points", fontsize=8, color="0.4")
        right.legend(fontsize=8, loc="center left", bbox_to_anchor=(0.0, 0.66), frameon=False)
        right.margins(y=0.12)
        right.set(
            xscale="log", xlabel="initial weights $\\alpha$", ylabel="$\\|\\beta_\\infty\\|_1$", title="Implicit bias"
        )


def _norms(task: RegressionTask, scales: Float[Array, " scales"], depth: int) -> Float[Array, " scales"]:
    def norm(scale):
        model = DiagonalLinear.uniform(task.inputs.shape[1], scale=scale, depth=depth)
        limit = DiagonalNetwork.from_model(model, task, check=False).limit()
        return jnp.sum(jnp.abs(limit.predictor))

    return jax.jit(jax.vmap(norm))(scales)


def _simulated_norms(task: RegressionTask, scales: Float[Array, " scales"], depth: int) -> Float[Array, " scales"]:
    def norm(scale):
        model = DiagonalLinear.uniform(task.inputs.shape[1], scale=scale, depth=depth)
        # Large weights learn faster, and small ones of deep networks wait longer.
        end = 300.0 * jnp.maximum(0.05 / scale, 1.0) ** (depth - 2) / jnp.maximum(scale, 1.0) ** (2 * depth - 2)
        return jnp.sum(jnp.abs(train(model, task, GradientFlow(), end[None]).model.predictor))

    return jax.jit(jax.vmap(norm))(scales)
