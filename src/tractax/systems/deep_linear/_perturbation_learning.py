"""Learning a linear map by shaking outputs or weights: speed and final error, against gradient descent."""

import itertools
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...core import Kind, Objective
from ...deep_linear import DeepLinear, GaussianMapTask, PerturbationLearning
from ...rules import SPSA, GradientDescent, NodePerturbation, WeightPerturbation
from ...training import Mean, ensemble, train
from .._system import AbstractSystem, Citation, Tolerance

_RULES = {
    "gradient descent": lambda rate: GradientDescent(rate, time_per_step=1.0, batch_size=1),
    "node perturbation": lambda rate: NodePerturbation(rate, 0.01, batch_size=1),
    "weight perturbation": lambda rate: WeightPerturbation(rate, 0.01, batch_size=1),
    "SPSA": lambda rate: SPSA(rate, 0.01, batch_size=1),
}


class PerturbationLearningSystem(AbstractSystem):
    """One linear layer that learns from fresh examples."""

    name: ClassVar[str] = "perturbation_learning"
    family: ClassVar[str] = "deep_linear"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "mean error of learning by node and weight perturbation, its best and largest learning rates"
    citation: ClassVar[Citation] = Citation("Werfel, Xie, Seung", 2005)
    claim: ClassVar[Tolerance] = Tolerance(1e-10)

    def layer(self, outputs: int, inputs: int) -> tuple[DeepLinear, GaussianMapTask]:
        """A layer of zeros and a teacher of unit norm."""
        teacher = jax.random.normal(jax.random.key(0), (outputs, inputs))
        return DeepLinear((jnp.zeros((outputs, inputs)),)), GaussianMapTask(teacher / jnp.linalg.norm(teacher))

    def measure(self) -> Float[Array, ""]:
        """One step of every rule, averaged over all examples and all noise by Gauss-Hermite quadrature."""
        model, task = self.layer(2, 3)
        rate, errors = 0.05, []
        for make in (NodePerturbation, WeightPerturbation, SPSA):
            rule = make(rate, 0.3, batch_size=1)
            predicted = PerturbationLearning.from_model(model, task, rule).evaluate(rate).square
            errors.append(jnp.abs(_averaged(model, task, rule) / predicted - 1))
        return jnp.max(jnp.stack(errors))

    def draw(self, figure: Any) -> None:
        """The mean error in the course of training at the best rates, and the speed against the learning rate."""
        import matplotlib

        along, against = figure.subplots(1, 2)
        model, task = self.layer(4, 6)
        colours = ["0.3", *matplotlib.colormaps["viridis"]([0.1, 0.5, 0.85])]
        counts = np.unique(np.round(np.geomspace(1, 3000, 25)))
        for (label, make), colour, last in zip(_RULES.items(), colours, (150, 800, 3000, 3000), strict=True):
            best = PerturbationLearning.from_model(model, task, make(0.1)).best_learning_rate
            solution = PerturbationLearning.from_model(model, task, make(best))
            steps = counts[counts <= last]
            ts = jnp.asarray(steps) * solution.rule.time_per_step
            keys = jax.random.split(jax.random.key(1), 1000)
            runs = ensemble(lambda key, s=solution, ts=ts: _errors(model, s, ts, key), keys, reduce=Mean())
            along.loglog(steps, jax.vmap(solution.evaluate)(ts).square, color=colour, label=label)
            along.loglog(steps, runs.mean, "o", color=colour, mfc="white", ms=4, ls="none")

            def shrinkage(rate, make=make):
                return 1 - PerturbationLearning.from_model(model, task, make(rate)).factor

            rates = best * 2 * jnp.geomspace(1e-2, 0.9995, 200)
            against.loglog(rates, jax.vmap(shrinkage)(rates), color=colour)
            against.plot(best, best, "o", color=colour, ms=5)
            against.axvline(float(2 * best), color=colour, ls=":", lw=1.0)
        along.plot([], [], "o", color="0.3", mfc="white", ms=4, label="mean of 1000 runs")
        along.set(xlabel="steps", ylabel="$\\mathbb{E}\\,\\Vert W - W_*\\Vert^2$", ylim=(1e-6, 2.0))
        along.set_title("at the best learning rates, 4 outputs, 6 inputs", fontsize=10)
        against.set(xlabel="learning rate $\\eta$", ylabel="part of the error unlearned per step", ylim=(1e-5, 0.5))
        against.set_title("dots: $\\eta = 1/R$; dotted: $2/R$", fontsize=10)
        along.legend(fontsize=8, loc="lower left")


def _errors(model: DeepLinear, solution: PerturbationLearning, ts: Array, key: Any) -> Array:
    return train(model, solution.task, solution.rule, ts, key=key, observe=solution.reduce).observed.square


def _averaged(model: DeepLinear, task: GaussianMapTask, rule: Any) -> Float[Array, ""]:
    """The mean of the squared error after one step, over a grid of examples and noise."""
    outputs, inputs = task.teacher.shape
    examples, weights = _grid(3, inputs)
    if isinstance(rule, SPSA):
        noise = jnp.asarray(list(itertools.product((-1.0, 1.0), repeat=outputs * inputs)))
        chances = jnp.full(noise.shape[0], 1 / noise.shape[0])
    else:
        noise, chances = _grid(4, outputs if isinstance(rule, NodePerturbation) else outputs * inputs)
    params, static = eqx.partition(model, eqx.is_inexact_array)
    objective = Objective(task, static)

    def after(example, noise):
        if isinstance(rule, NodePerturbation):
            estimate = rule.estimate(params, objective, example[None], lambda source, _: source, noise[None])
        else:
            shaped = jax.tree.map(lambda w: noise.reshape(w.shape), params)
            estimate = rule.estimate(params, lambda p: task.batch_loss(objective.model(p), example[None]), shaped)
        moved = jax.tree.map(lambda w, g: w - rule.learning_rate * g, params, estimate)
        return jnp.sum(task.error(objective.model(moved)) ** 2)

    squares = jax.jit(jax.vmap(jax.vmap(after, in_axes=(None, 0)), in_axes=(0, None)))(examples, noise)
    return weights @ squares @ chances


def _grid(points: int, dimensions: int) -> tuple[Array, Array]:
    """Nodes and weights for averages over a standard normal vector."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(points)
    grid = np.asarray(list(itertools.product(nodes, repeat=dimensions)))
    products = np.prod(list(itertools.product(weights / weights.sum(), repeat=dimensions)), axis=1)
    return jnp.asarray(grid), jnp.asarray(products)
