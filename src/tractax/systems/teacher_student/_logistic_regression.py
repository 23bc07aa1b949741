"""Logistic regression: gradient flow on orthogonal examples, and steps so large that it is the perceptron algorithm."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ...core import Kind
from ...plotting import overlay
from ...rules import GradientDescent, GradientFlow
from ...teacher_student import (
    ClassificationTask,
    Hinge,
    LinearClassifier,
    LogisticRegressionFlow,
    large_step_bound,
    max_margin,
    perceptron_bound,
)
from ...training import train
from .._system import AbstractRunSystem, AbstractSystem, Citation, Run, Tolerance


class LogisticRegressionSystem(AbstractRunSystem):
    """Four orthogonal examples of different lengths, some of them wrong at first."""

    name: ClassVar[str] = "logistic_regression"
    family: ClassVar[str] = "teacher_student"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "margins of a linear classifier under gradient flow, and the slow turn to the largest margin"
    citation: ClassVar[Citation] = Citation("Soudry, Hoffer, Shpigel Nacson, Gunasekar, Srebro", 2018, "1710.10345")
    claim: ClassVar[Tolerance] = Tolerance(1e-8)

    def run(self) -> Run:
        """The logistic loss, over five decades of time."""
        rotation = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (6, 6)))[0]
        inputs = jnp.asarray([0.6, 1.0, 1.8, 3.0])[:, None] * rotation[:4]
        task = ClassificationTask(inputs, jnp.asarray([1.0, -1.0, 1.0, -1.0]))
        model = LinearClassifier(jax.random.normal(jax.random.key(1), (6,)))
        rule = GradientFlow()
        solution = LogisticRegressionFlow.from_model(model, task, rule)
        return Run(model, task, rule, solution, jnp.logspace(-1, 4, 41))

    def draw(self, figure: Any) -> None:
        """Margins, and the angle to the direction of largest margin until times that no simulation reaches."""
        left, right = figure.subplots(1, 2)
        run = self.run()
        simulated = run.simulate()
        predicted = jax.vmap(run.solution.evaluate)(run.ts)
        lengths = jnp.linalg.norm(run.task.inputs, axis=1)
        labels = [f"$|x_{i}|$ = {length:.1f}" for i, length in enumerate(lengths, 1)]
        overlay(left, run.ts, predicted.margins, simulated.observed.margins, labels)
        left.set(xscale="log", xlabel="time $t/\\tau$", ylabel="margin $y_i\\, w\\cdot x_i$", title="Margins")
        late = jnp.logspace(0, 60, 121)
        goal = max_margin(run.task).direction

        def angle(weights: Array) -> Array:
            unit = weights / jnp.linalg.norm(weights, axis=1)[:, None]
            return 2 * jnp.arcsin(jnp.linalg.norm(unit - goal[None, :], axis=1) / 2)

        right.loglog(jnp.log(late[1:]), angle(jax.vmap(run.solution.evaluate)(late[1:]).weights), label="theory")
        seen = np.asarray(run.ts) > 3
        right.loglog(
            jnp.log(run.ts[seen]), angle(simulated.observed.weights[seen]), "o", mfc="white", ms=4, label="simulation"
        )
        right.loglog(jnp.log(late[20:]), 3 / jnp.log(late[20:]), ls=":", color="0.4", label="$\\propto 1/\\ln t$")
        right.set(xlabel="$\\ln t$", ylabel="angle to the largest margin", title="Direction, until $t = 10^{60}$")
        right.legend(fontsize=8)


class LargeStepLogisticSystem(AbstractSystem):
    """Gradient descent with learning rates from 1 to 1000, beside the batch perceptron."""

    name: ClassVar[str] = "large_step_logistic"
    family: ClassVar[str] = "teacher_student"
    kind: ClassVar[Kind] = "bound"
    summary: ClassVar[str] = "logistic regression with huge steps is the perceptron algorithm, which stops in time"
    citation: ClassVar[Citation] = Citation("Tyurin", 2024, "2412.08424")
    claim: ClassVar[Tolerance] = Tolerance(1.0, "largest ratio to a bound: distance per step, number of steps")

    def measure(self) -> Float[Array, ""]:
        """Distances of single steps at four learning rates, and the mistakes of the perceptron, over their bounds."""
        task = separable(0)
        ratios = []
        for rate in (1.0, 10.0, 100.0, 1000.0):
            weights = self.descend(task, rate, steps=30)
            distances, bounds = jax.vmap(lambda u, rate=rate: _one_step(task, u, rate))(weights)
            rounding = jnp.finfo(bounds.dtype).eps * jnp.max(jnp.abs(task.inputs))
            ratios.append(jnp.max(distances / (bounds + rounding)))
        tasks = [separable(seed, gap) for seed in range(4) for gap in (0.5, 0.1)]
        ratios += [self.mistaken_steps(task) / perceptron_bound(task) for task in tasks]
        return jnp.max(jnp.stack(ratios))

    def descend(self, task: ClassificationTask, rate: ArrayLike, *, steps: int) -> Float[Array, "steps in"]:
        """Gradient descent from zero: the weights after every step, in units of the learning rate."""
        model = LinearClassifier(jnp.zeros(task.inputs.shape[1]))
        rule = GradientDescent(rate, time_per_step=1.0)
        return train(model, task, rule, jnp.arange(1.0, steps + 1), observe=_weights).observed / rate

    def mistaken_steps(self, task: ClassificationTask, *, longest: int = 2000) -> Float[Array, ""]:
        """The number of steps of the batch perceptron until every example is right."""
        perceptron = ClassificationTask(task.inputs, task.labels, Hinge())
        margins = self.descend(perceptron, 1.0, steps=longest) @ task.signed_inputs.T
        wrong = jnp.any(margins <= 0, axis=1)
        # The first step starts from zero, where every margin is zero.
        return jnp.where(wrong[-1], jnp.inf, 1 + jnp.sum(wrong, dtype=margins.dtype))

    def draw(self, figure: Any) -> None:
        """Single steps against their bound, and numbers of steps until all is right against theirs."""
        import matplotlib

        left, right = figure.subplots(1, 2)
        task = separable(0)
        perceptron = ClassificationTask(task.inputs, task.labels, Hinge())
        path = self.descend(perceptron, 1.0, steps=60)
        fine, coarse = jnp.logspace(0, 3, 61), jnp.logspace(0, 3, 16)
        for colour, step in zip(matplotlib.colormaps["viridis"]([0.0, 0.4, 0.8]), (1, 2, 50), strict=True):
            bounds = jax.vmap(lambda rate, u=path[step - 1]: large_step_bound(task, u, rate))(fine)
            distances, _ = jax.vmap(lambda rate, u=path[step - 1]: _one_step(task, u, rate))(coarse)
            left.loglog(fine, bounds, color=colour, label=f"bound, after step {step}")
            left.loglog(coarse, distances, "o", color=colour, mfc="white", ms=4)
        left.plot([], [], "o", color="0.3", mfc="white", ms=4, label="measured")
        left.set(xlabel="learning rate $\\gamma$", ylabel="distance", title="One step, logistic against perceptron")
        left.set(ylim=(1e-12, 3))
        left.legend(fontsize=8, loc="lower left")
        tasks = [separable(seed, gap) for seed in range(10) for gap in (0.5, 0.3, 0.2, 0.1, 0.05)]
        bounds = [float(perceptron_bound(task)) for task in tasks]
        right.loglog(bounds, [float(self.mistaken_steps(task)) for task in tasks], "o", mfc="white", ms=4, label="runs")
        ends = np.asarray([min(bounds), max(bounds)])
        right.loglog(ends, ends, color="0.3", label="bound")
        right.set(xlabel="$n\\,(R/\\gamma_*)^2$", ylabel="steps until all is right", title="Batch perceptron")
        right.legend(fontsize=8)


def separable(seed: int, gap: float = 0.1) -> ClassificationTask:
    """Four examples in a plane: apart by a narrow gap in one direction, and at odds about the other."""
    labels = jnp.asarray([1.0, -1.0, 1.0, -1.0])
    height = jnp.asarray([1.0, 1.0, -1.0, 1.0]) * jax.random.uniform(jax.random.key(seed), (4,), minval=0.5)
    return ClassificationTask(jnp.column_stack([gap * labels, height]), labels)


def _weights(model: LinearClassifier) -> Float[Array, " in"]:
    return model.weights


def _one_step(
    task: ClassificationTask, u: Float[Array, " in"], rate: ArrayLike
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The distance of one logistic step from one of the perceptron, from the same weights, and its bound."""
    perceptron = ClassificationTask(task.inputs, task.labels, Hinge())
    logistic = jax.grad(task.loss)(LinearClassifier(rate * u)).weights
    difference = logistic - jax.grad(perceptron.loss)(LinearClassifier(u)).weights
    return jnp.linalg.norm(difference), large_step_bound(task, u, rate)
