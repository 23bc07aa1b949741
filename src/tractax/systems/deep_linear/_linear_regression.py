"""One training run of linear regression: the training error falls, the generalisation error turns up again."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ...core import Kind
from ...deep_linear import LinearRegressionFlow, TeacherRegression, gaussian
from ...plotting import overlay
from ...rules import GradientFlow
from .._system import AbstractRunSystem, Citation, Run, Tolerance


class LinearRegressionSystem(AbstractRunSystem):
    """A shallow network on a noisy data set with hardly more examples than inputs."""

    name: ClassVar[str] = "linear_regression"
    family: ClassVar[str] = "deep_linear"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "weights, training and generalisation error of linear regression on any data set"
    citation: ClassVar[Citation] = Citation("Advani, Saxe", 2017, "1710.03667")
    claim: ClassVar[Tolerance] = Tolerance(1e-8)

    def run(self) -> Run:
        """20 inputs, 24 examples, up to a time at which the noise has been fitted."""
        data, start = jax.random.split(jax.random.key(0))
        task = TeacherRegression.draw(20, 24, noise_scale=0.5, key=data)
        model = gaussian((20, 1), scale=0.3, key=start)
        rule = GradientFlow()
        solution = LinearRegressionFlow.from_model(model, task, rule)
        return Run(model, task, rule, solution, jnp.logspace(-2, 2.5, 72))

    def draw(self, figure: Any) -> None:
        """The first weights, and both errors."""
        run = self.run()
        observed = run.simulate().observed
        theory = jax.vmap(run.solution.evaluate)(run.ts)
        left, right = figure.subplots(1, 2)
        overlay(left, run.ts, theory.weights[:, :3], observed.weights[:, :3], [f"weight {i + 1}" for i in range(3)])
        left.set(xlabel="time $t/\\tau$", ylabel="weight", title="Three of twenty weights", ylim=(-1.7, 1.7))
        names = ("generalisation error", "training error")
        errors, simulated = (
            jnp.stack([run_errors.generalisation, run_errors.train], axis=1)
            for run_errors in (theory.errors, observed.errors)
        )
        overlay(right, run.ts, errors, simulated, names)
        right.axhline(float(run.task.noise_variance), color="0.7", ls=":", lw=1)
        right.set(xlabel="time $t/\\tau$", ylabel="error per example", title="Errors (dotted: the noise)")
        for axes in (left, right):
            axes.set_xscale("log")
