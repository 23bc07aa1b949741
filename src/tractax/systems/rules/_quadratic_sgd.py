"""SGD on least squares with label noise: exact moments, where they settle, and the diffusions that stand for them."""

import functools
import itertools
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ...analysis import Scaling, scaling
from ...core import AbstractRule, Kind
from ...deep_linear import DeepLinear, RegressionTask
from ...rules import GradientDescent, ParameterMoments, QuadraticSGD, SGDFlow
from ...training import ensemble, train
from .._system import AbstractSystem, Citation, Exponent, Tolerance

_BATCHES = (1, 4, None)
_TIME = 2.0
_RATES = (0.1, 0.05, 0.025, 0.0125)


def regression() -> tuple[DeepLinear, RegressionTask]:
    """A single layer, and data that it cannot fit."""
    inputs = jnp.asarray([[1.5, 0.4], [-0.6, 1.1], [0.9, -0.7], [-1.0, -0.3], [0.2, 0.8]])
    return DeepLinear((jnp.asarray([[-1.0, 0.8]]),)), RegressionTask(inputs, jnp.asarray([1.0, -0.5, 0.3, 0.1, -0.4]))


def theory(rule: AbstractRule) -> QuadraticSGD:
    """The moments of that case."""
    return QuadraticSGD.from_model(*regression(), rule)


class QuadraticSGDSystem(AbstractSystem):
    """Linear regression by a single layer, from five examples of two inputs."""

    name: ClassVar[str] = "quadratic_sgd"
    family: ClassVar[str] = "rules"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "mean and covariance of the parameters under mini-batch SGD with label noise"
    citation: ClassVar[Citation] = Citation("Li, Tai, E", 2017, "1511.06251")
    claim: ClassVar[Tolerance] = Tolerance(1e-10)

    def measure(self) -> Float[Array, ""]:
        """Three steps below and above the threshold, against every sequence of batches, one by one."""
        errors = [self.error(fraction, 1) for fraction in (0.7, 1.3)] + [self.error(0.7, 2)]
        return jnp.max(jnp.stack(errors))

    @functools.partial(jax.jit, static_argnums=(0, 2))
    def error(self, fraction: ArrayLike, batch_size: int) -> Float[Array, ""]:
        """The error after three steps at this fraction of the threshold."""
        rate = fraction * theory(GradientDescent(1.0, batch_size=batch_size)).threshold()
        predicted = theory(GradientDescent(rate, time_per_step=1.0, batch_size=batch_size)).evaluate(3.0)
        return _distance(predicted, _enumerated(rate, batch_size, 3))

    def growth_of_ensemble(self, rate: ArrayLike, batch_size: int | None, members: int, key: PRNGKeyArray) -> Array:
        """The rate at which the mean square grows over two steps, from far away in directions that grow fastest."""
        model, task = regression()
        rule = GradientDescent(rate, time_per_step=1.0, batch_size=batch_size)
        solution = QuadraticSGD.from_model(model, task, rule)
        values, vectors = jnp.linalg.eigh(_fastest(solution))
        factor = 1e4 * vectors * jnp.sqrt(jnp.maximum(values, 0.0))[None, :]

        def squares(key):
            start, steps = jax.random.split(key)
            displaced = solution.minimum + factor @ jax.random.normal(start, solution.minimum.shape)
            placed = eqx.tree_at(lambda m: m.weights, model, (displaced[None, :],))
            run = train(placed, task, rule, jnp.asarray([0.0, 2.0]), key=steps, observe=solution.reduce)
            return jnp.trace(run.observed.second, axis1=1, axis2=2)

        before, after = jnp.mean(ensemble(squares, jax.random.split(key, members)), axis=0)
        return jnp.log(after / before) / 2

    def draw(self, figure: Any) -> None:
        """How fast the mean square grows, and where the loss settles, against the learning rate."""
        import matplotlib

        growth, floor = figure.subplots(1, 2)
        colours = matplotlib.colormaps["viridis"]([0.0, 0.45, 0.8])
        for colour, batch_size, key in zip(colours, _BATCHES, jax.random.split(jax.random.key(0), 3), strict=True):
            threshold = float(theory(GradientDescent(1.0, batch_size=batch_size)).threshold())
            size = "full batch" if batch_size is None else f"$B = {batch_size}$"

            def solved(rate, batch_size=batch_size):
                return theory(GradientDescent(rate, time_per_step=1.0, batch_size=batch_size))

            fine, coarse = threshold * jnp.linspace(0.02, 1.3, 120), threshold * jnp.linspace(0.1, 1.25, 8)
            growth.plot(fine, jax.vmap(lambda rate, f=solved: f(rate).growth_rate)(fine), color=colour)
            grown = [self.growth_of_ensemble(rate, batch_size, 20_000, key) for rate in coarse]
            growth.plot(coarse, jnp.stack(grown), "o", color=colour, mfc="white", ms=5)
            growth.plot([], [], color=colour, label=f"{size}, $\\eta^* = {threshold:.2f}$")
            for axes in (growth, floor):
                axes.axvline(threshold, color=colour, ls=":", lw=1.2)
            if batch_size is None:
                continue
            below = threshold * jnp.linspace(0.03, 0.985, 60)
            lowest = solved(0.1).quadratic.lowest
            exact = jax.vmap(lambda rate, f=solved: f(rate).limit().loss)(below) - lowest
            linear = jax.vmap(lambda rate, f=solved: f(rate).small_rate_limit().limit().loss)(below) - lowest
            floor.semilogy(below, exact, color=colour)
            floor.semilogy(below, linear, color=colour, ls="--", lw=1.2)
            few = threshold * jnp.linspace(0.1, 0.7, 5)
            late = [_late_loss(rate, batch_size, key) - lowest for rate in few]
            floor.semilogy(few, jnp.stack(late), "o", color=colour, mfc="white", ms=5)
        growth.axhline(0.0, color="0.6", lw=0.8)
        growth.plot([], [], "o", color="0.3", mfc="white", ms=5, label="simulation")
        floor.plot([], [], color="0.3", label="SGD, exact")
        floor.plot([], [], color="0.3", ls="--", label="Ornstein-Uhlenbeck")
        growth.set(xlabel="learning rate $\\eta$", ylabel="growth of the mean square per step", ylim=(-1.6, 1.5))
        floor.set(xlabel="learning rate $\\eta$", ylabel="excess loss in the long run", ylim=(5e-4, 3.0))
        growth.legend(fontsize=8, loc="upper left", handlelength=1.2)
        floor.legend(fontsize=8, loc="upper left")


class SGDDiffusionSystem(AbstractSystem):
    """The same regression at small learning rates, and its diffusions."""

    name: ClassVar[str] = "sgd_diffusion"
    family: ClassVar[str] = "rules"
    kind: ClassVar[Kind] = "asymptotic"
    summary: ClassVar[str] = "SGD as a diffusion: moments agree to first order in the learning rate"
    citation: ClassVar[Citation] = Citation("Li, Tai, E", 2017, "1511.06251")
    claim: ClassVar[Exponent] = Exponent(1.0, "exponent in the learning rate of the error of the moments")

    def error(self, rate: ArrayLike, *, linear: bool) -> Float[Array, ""]:
        """The relative distance of the moments at a fixed time: of `SGDFlow`, or of the Ornstein-Uhlenbeck process."""
        exact = theory(GradientDescent(rate, batch_size=1))
        limit = exact.small_rate_limit() if linear else theory(SGDFlow(rate, 5))
        return _distance(limit.evaluate(_TIME), exact.evaluate(_TIME))

    def measure(self) -> Scaling:
        """The rate at which the error of the Ornstein-Uhlenbeck process falls with the learning rate."""
        return scaling(jax.jit(functools.partial(self.error, linear=True)), _RATES, correction=1.0)

    def draw(self, figure: Any) -> None:
        """The mean loss in the course of training, and errors against the learning rate."""
        along, against = figure.subplots(1, 2)
        model, task = regression()
        rate = 0.25
        rule, ts = GradientDescent(rate, batch_size=1), rate * jnp.arange(0.0, 33.0)
        exact = theory(rule)
        keys = jax.random.split(jax.random.key(0), 20_000)
        runs = jnp.mean(ensemble(lambda key: train(model, task, rule, ts, key=key).observed, keys), axis=0)
        fine = jnp.linspace(0.0, 8.0, 161)
        curves = (
            ("Ornstein-Uhlenbeck", exact.small_rate_limit(), "tab:orange"),
            ("SGDFlow", theory(SGDFlow(rate, 5)), "tab:blue"),
        )
        for label, solution, colour in curves:
            along.semilogy(
                fine, jax.vmap(solution.evaluate)(fine).loss - exact.quadratic.lowest, color=colour, label=label
            )
        steps = jax.vmap(exact.evaluate)(ts).loss - exact.quadratic.lowest
        along.semilogy(ts, steps, color="0.3", label="SGD, exact", lw=1.2)
        along.semilogy(ts, runs - exact.quadratic.lowest, "o", color="0.3", mfc="white", ms=4, label="SGD, mean of runs")
        rates = jnp.asarray(_RATES)
        for (label, _, colour), linear in zip(curves, (True, False), strict=True):
            errors = jax.vmap(functools.partial(self.error, linear=linear))(rates)
            against.loglog(rates, errors, "o", color=colour, mfc="white", ms=6, ls="none", label=label)
            against.loglog(rates, errors[-1] * rates / rates[-1], color=colour, lw=1.2)
        against.plot([], [], color="0.3", lw=1.2, label="proportional to $\\eta$")
        along.set(xlabel="time $t = \\eta k$", ylabel="mean excess loss", title=f"$\\eta = {rate}$, $B = 1$")
        against.set(xlabel="learning rate $\\eta$", ylabel="relative error", title=f"moments at $t = {_TIME:g}$")
        against.set_xticks(_RATES, [f"{rate:g}" for rate in _RATES])
        against.minorticks_off()
        along.legend(fontsize=8)
        against.legend(fontsize=8)


def _distance(a: ParameterMoments, b: ParameterMoments) -> Float[Array, ""]:
    """Relative, all numbers together."""
    x, y = ravel_pytree(a)[0], ravel_pytree(b)[0]
    return jnp.linalg.norm(x - y) / jnp.linalg.norm(y)


def _enumerated(rate: Array, batch_size: int, steps: int) -> ParameterMoments:
    """The mean over all sequences of batches, with the gradients that training uses."""
    model, task = regression()
    batches = jnp.asarray(list(itertools.product(range(task.examples), repeat=batch_size)))
    models = jax.tree.map(lambda x: x[None, ...], model)

    def after(model, batch):
        gradient = jax.grad(task.batch_loss)(model, batch)
        return jax.tree.map(lambda w, g: w - rate * g, model, gradient)

    for _ in range(steps):
        models = jax.vmap(jax.vmap(after, in_axes=(None, 0)), in_axes=(0, None))(models, batches)
        models = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), models)
    reduce = theory(GradientDescent(rate, batch_size=batch_size)).reduce
    return jax.tree.map(lambda x: jnp.mean(x, axis=0), jax.vmap(reduce)(models))


def _fastest(solution: QuadraticSGD) -> Array:
    """The second moment to which a growing one converges in shape."""

    def step(second, _):
        second = solution.step(ParameterMoments(jnp.zeros_like(second[0]), 1e12 * second, second[0, 0])).second
        return second / jnp.trace(second), None

    return jax.lax.scan(step, jnp.eye(solution.minimum.size) / 2, None, length=200)[0]


def _late_loss(rate: ArrayLike, batch_size: int, key: PRNGKeyArray) -> Array:
    """The mean loss after many steps."""
    model, task = regression()
    rule = GradientDescent(rate, time_per_step=1.0, batch_size=batch_size)
    ts = jnp.linspace(200.0, 1000.0, 9)
    return jnp.mean(ensemble(lambda key: train(model, task, rule, ts, key=key).observed, jax.random.split(key, 1000)))
