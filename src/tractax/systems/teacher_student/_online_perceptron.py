"""One linear unit learns from another: the mean over all examples, at every size."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ...analysis import Linear
from ...core import AbstractSampledTask, Kind, Objective
from ...teacher_student import (
    CommitteeTask,
    OnlinePerceptron,
    OnlinePerceptronLimit,
    OnlinePerceptronState,
    OnlineSGD,
    SoftCommittee,
    committees,
)
from ...training import ensemble, train
from .._system import AbstractSystem, Citation, Tolerance


class OnlinePerceptronSystem(AbstractSystem):
    """Overlap and error of a linear unit, averaged over all examples that it may see."""

    name: ClassVar[str] = "online_perceptron"
    family: ClassVar[str] = "teacher_student"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "a linear unit learns online from another: mean error at every size, stability"
    citation: ClassVar[Citation] = Citation("Saad, Solla", 1995)
    claim: ClassVar[Tolerance] = Tolerance(1e-12)

    def measure(self) -> Float[Array, ""]:
        """Three steps of training on every sequence of examples that quadrature asks for, against the exact mean."""
        model, task, rule = perceptron_case(2, 0.9)
        solution = OnlinePerceptron.from_model(model, task, rule)
        errors = []
        for steps, mean in enumerate(means_by_quadrature(solution, model, steps=3), 1):
            exact = solution.evaluate(steps / 2)
            errors += jax.tree.leaves(jax.tree.map(lambda x, y: jnp.abs(x / y - 1), mean, exact))
        return jnp.max(jnp.stack(errors))

    def draw(self, figure: Any) -> None:
        """The mean error over time at three sizes, and where it ends."""
        import matplotlib

        left, right = figure.subplots(1, 2)
        sizes = (3, 10, 40)
        ts, few = jnp.append(jnp.arange(0.0, 9.0, 1.0), 30.0), jnp.asarray([0.8, 0.2, 0.4, 0.6])
        fine, etas = jnp.linspace(0.0, 8.0, 81), jnp.linspace(0.02, 1.97, 118)
        colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(sizes)))
        for size, colour in zip(sizes, colours, strict=True):
            simulated = mean_errors(size, few, ts, runs=2000)
            solution, steps = OnlinePerceptron.from_model(*perceptron_case(size, few[0])), np.arange(8 * size + 1) / size
            left.plot(steps, jax.vmap(solution.evaluate)(jnp.asarray(steps)).error, color=colour, label=f"$N = {size}$")
            left.plot(ts[:-1], simulated[0, :-1], "o", color=colour, mfc="white", ms=4)
            theory = jax.vmap(lambda eta, size=size: final_error(OnlinePerceptron, size, eta))(etas)
            right.plot(etas, theory, color=colour, label=f"$N = {size}$")
            right.plot(few, simulated[:, -1], "o", color=colour, mfc="white", ms=4)
        limit = OnlinePerceptronLimit.from_model(*perceptron_case(3, few[0]))
        left.plot(fine, jax.vmap(limit.evaluate)(fine).error, color="0.2", ls="--", label="$N \\to \\infty$")
        theory = jax.vmap(lambda eta: final_error(OnlinePerceptronLimit, 3, eta))(etas)
        right.plot(etas, theory, color="0.2", ls="--", label="$N \\to \\infty$")
        for axes in (left, right):
            axes.plot([], [], "o", color="0.3", mfc="white", ms=4, label="simulation")
            axes.legend(fontsize=8)
        left.set(xlabel="steps / $N$", ylabel="mean generalisation error", yscale="log", title="Learning, $\\eta = 0.8$")
        right.set(xlabel="learning rate $\\eta$", ylabel="final mean error", yscale="log", ylim=(1e-3, 1.0))
        right.set(title="Where it ends")


def perceptron_case(size: int, eta: ArrayLike) -> tuple[SoftCommittee, CommitteeTask, OnlineSGD]:
    """Student and teacher that are almost orthogonal, noisy answers."""
    student, cross = jnp.full((1, 1), 0.4), jnp.full((1, 1), 0.1)
    options = {"size": size, "key": jax.random.key(0), "activation": Linear()}
    model, teacher = committees(student, cross, jnp.ones((1, 1)), **options)
    return model, CommitteeTask(teacher, noise_scale=0.2), OnlineSGD(eta, size)


def final_error(theory: Any, size: int, eta: ArrayLike) -> Any:
    """Where theory says that the error ends."""
    return theory.from_model(*perceptron_case(size, eta)).limit().error


def mean_errors(size: int, etas: Any, ts: Any, *, runs: int) -> Any:
    """The error of trained students, averaged over runs, shape `(rates, times)`."""
    model, task, _ = perceptron_case(size, 1.0)

    def one(member):
        eta, key = member
        return train(model, task, OnlineSGD(eta, size), ts, observe=task.generalisation_error, key=key).observed

    keys = jax.random.split(jax.random.key(1), etas.size * runs)
    return ensemble(one, (jnp.repeat(etas, runs), keys)).reshape(etas.size, runs, -1).mean(axis=1)


class _OneExample(AbstractSampledTask):
    """A task whose samples are always the same, so that a rule can be given its example."""

    task: CommitteeTask
    batch: tuple[Array, Array]

    def loss(self, model: Any) -> Array:
        return self.task.loss(model)

    def sample(self, key: Any, batch: int) -> tuple[Array, Array]:
        return self.batch

    def batch_loss(self, model: Any, batch: tuple[Array, Array]) -> Array:
        return self.task.batch_loss(model, batch)


def means_by_quadrature(solution: OnlinePerceptron, model: SoftCommittee, *, steps: int) -> list[OnlinePerceptronState]:
    """The exact mean state after each of a few steps: every step is a polynomial in its example."""
    task, rule = solution.task, solution.rule
    nodes, chances = np.polynomial.hermite_e.hermegauss(3)
    dimension = model.weights.shape[1] + 1
    normal = jnp.asarray(np.stack(np.meshgrid(*[nodes] * dimension), axis=-1).reshape(-1, dimension))
    chance = np.prod(np.meshgrid(*[chances / chances.sum()] * dimension), axis=0).ravel()
    inputs = normal[:, :-1]
    answers = jax.vmap(task.teacher)(inputs) + task.noise_scale * normal[:, -1]

    params, static = eqx.partition(model, eqx.is_inexact_array)

    def with_weights(weights):
        return eqx.tree_at(lambda m: m.weights, params, weights)

    def step(weights, x, y):
        objective = Objective(_OneExample(task, (x[None, :], y[None])), static)
        return rule.step(with_weights(weights), None, objective, key=key)[0].weights

    key = jax.random.key(0)
    every = jax.jit(jax.vmap(jax.vmap(step, in_axes=(None, 0, 0)), in_axes=(0, None, None)))
    states = jax.jit(jax.vmap(lambda weights: solution.reduce(eqx.combine(with_weights(weights), static))))
    weights, weight_chance, means = model.weights[None], np.ones(1), []
    for _ in range(steps):
        weights = every(weights, inputs, answers).reshape(-1, *model.weights.shape)
        weight_chance = np.outer(weight_chance, chance).ravel()
        means.append(jax.tree.map(lambda x, c=weight_chance: jnp.asarray(c) @ x, states(weights)))
    return means
