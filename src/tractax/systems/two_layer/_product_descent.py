"""Gradient descent on a product of two layers: catapults, and the learning rate at which it diverges."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ...analysis import compare
from ...core import Kind, Trajectory
from ...deep_linear import RegressionTask
from ...plotting import overlay
from ...rules import GradientDescent
from ...training import train
from ...two_layer import ProductDescent, ProductState, TwoLayerNetwork
from .._system import AbstractSystem, Citation, Tolerance


class ProductDescentSystem(AbstractSystem):
    """A linear network on three examples along one direction, at rates that settle, oscillate and catapult."""

    name: ClassVar[str] = "product_descent"
    family: ClassVar[str] = "two_layer"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "descent on a product of two layers is an exact map of residual and curvature"
    citation: ClassVar[Citation] = Citation("Agarwala, Pedregosa, Pennington", 2022, "2210.04860")
    claim: ClassVar[Tolerance] = Tolerance(1e-8)

    @eqx.filter_jit
    def descend(self, fraction: ArrayLike, steps: int) -> tuple[ProductDescent, Trajectory]:
        """Theory and training, at a fraction of the learning rate at which they diverge."""
        model, task = _network(0.6, key=3)
        probe = ProductDescent.from_model(model, task, GradientDescent(1.0), steps=1)
        rule = GradientDescent(fraction * probe.divergence_rate)
        solution = ProductDescent.from_model(model, task, rule, steps=steps)
        ts = rule.learning_rate * jnp.arange(steps + 1.0)
        return solution, train(model, task, rule, ts, observe=solution.reduce)

    def measure(self) -> Float[Array, ""]:
        """The largest relative error of any number at any step, below and above the stable learning rate."""
        fractions = jnp.asarray([0.3, 0.6, 0.9])
        return jnp.max(jnp.stack([compare(*self.descend(fraction, 60)).worst for fraction in fractions]))

    def draw(self, figure: Any) -> None:
        """Loss and curvature at three learning rates."""
        left, right = figure.subplots(1, 2)
        fractions, steps = (0.3, 0.58, 0.85), 20
        cases = [self.descend(fraction, steps) for fraction in jnp.asarray(fractions)]
        labels = [f"$\\eta = {fraction}\\,\\eta_c$" for fraction in fractions]
        ks = jnp.arange(steps + 1)
        theory, trained = (
            [jnp.stack([f(s, state) for s, state in states], axis=1) for f in (_excess, _curvature)]
            for states in ([(s, s.path) for s, _ in cases], [(s, run.observed) for s, run in cases])
        )
        overlay(left, ks, theory[0], trained[0], labels, markers=steps)
        left.set(yscale="log", xlabel="steps", ylabel="excess loss", ylim=(1e-9, 10), xticks=range(0, 21, 5))
        overlay(right, ks, theory[1], trained[1], labels, markers=steps)
        right.axhline(2.0, color="0.6", ls=":", lw=1.2)
        right.set(xlabel="steps", ylabel="learning rate × curvature, $T$", xticks=range(0, 21, 5))
        right.set_title("Minima are stable below the dotted line")
        right.get_legend().remove()


class CatapultSystem(AbstractSystem):
    """Networks with random weights, with and without a target, at learning rates around the one that diverges."""

    name: ClassVar[str] = "catapult"
    family: ClassVar[str] = "two_layer"
    kind: ClassVar[Kind] = "bound"
    summary: ClassVar[str] = "too large a learning rate lowers the curvature, up to a rate that diverges"
    citation: ClassVar[Citation] = Citation("Lewkowycz, Bahri, Dyer, Sohl-Dickstein, Gur-Ari", 2020, "2003.02218")
    claim: ClassVar[Tolerance] = Tolerance(1e-5, "relative error of the learning rate that diverges")

    def measure(self) -> Float[Array, ""]:
        """The largest error of the rates at which training is found to diverge, for several networks."""
        return jnp.max(jnp.stack([_located(*_network(target, key)) for key, target in enumerate((0.0, 0.0, 1.0, -2.0))]))

    def draw(self, figure: Any) -> None:
        """The curvature at the end against that at the start, and which starts diverge."""
        left, right = figure.subplots(1, 2)
        model, task = _network(0.0, key=1)
        kappa = ProductDescent.from_model(model, task, GradientDescent(1.0), steps=1).path.curvature[0]
        fine, coarse = jnp.linspace(0.1, 3.99, 400), jnp.linspace(0.2, 4.4, 29)
        theory = jax.vmap(lambda rate: _solve(model, task, rate).path.curvature[-1])(fine / kappa)
        found = jax.vmap(lambda rate: _trained(model, task, rate, steps=600))(coarse / kappa)
        left.plot(fine, theory, color="tab:blue", lw=1.2, label="theory")
        ends = jnp.isfinite(found)
        left.plot(coarse[ends], found[ends], "o", color="tab:blue", mfc="white", ms=5, label="training")
        left.plot(coarse[~ends], 0 * coarse[~ends], "x", color="tab:red", ms=6, label="diverges")
        left.axhline(2.0, color="0.6", ls=":", lw=1.2)
        left.axvline(4.0, color="0.6", ls="--", lw=1.2)
        left.set(xlabel="$\\eta\\kappa$ at the start", ylabel="$\\eta\\kappa$ at the end", ylim=(-0.1, 2.6))
        left.set_title("No target, 50 units")
        left.legend(fontsize=8, loc="upper left")
        pushes, curvatures, lost = [], [], []
        rng = np.random.default_rng(5)
        for key in range(80):
            model, task = _network(rng.uniform(-4, 4), key, width=3)
            probe = ProductDescent.from_model(model, task, GradientDescent(1.0), steps=1)
            rate = probe.divergence_rate * rng.uniform(0.75, 1.25)
            start = _solve(model, task, rate, steps=1)
            pushes.append(start.path.residual[0] * start.target)
            curvatures.append(start.path.curvature[0])
            lost.append(not np.isfinite(_trained(model, task, rate, steps=200)))
        pushes, curvatures, lost = np.asarray(pushes), np.asarray(curvatures), np.asarray(lost)
        right.plot(pushes[~lost], curvatures[~lost], "o", color="tab:blue", mfc="white", ms=5, label="bounded")
        right.plot(pushes[lost], curvatures[lost], "x", color="tab:red", ms=6, label="diverges")
        span = np.asarray([pushes.min() - 0.3, pushes.max() + 0.3])
        right.plot(span, 4 + span, color="0.3", lw=1.2, label="$T = 4 + zY$")
        right.set(xlabel="$zY$ at the start", ylabel="$T$ at the start", ylim=(0, 5.5))
        right.set_title("Random networks and targets")
        right.legend(fontsize=8, loc="upper left")


def _network(target: ArrayLike, key: int, width: int = 50) -> tuple[TwoLayerNetwork, RegressionTask]:
    """Standard normal weights, and examples along one direction, with a target of the given slope."""
    first, second = jax.random.split(jax.random.key(key))
    direction = jnp.asarray([0.6, -0.8])
    model = TwoLayerNetwork(jax.random.normal(first, (width, 2)), jax.random.normal(second, (width,)), "linear")
    along = jnp.asarray([1.0, -0.5, 0.2])
    return model, RegressionTask(along[:, None] * direction[None, :] / width**0.5, target * along)


def _solve(model: TwoLayerNetwork, task: RegressionTask, rate: Array, steps: int = 600) -> ProductDescent:
    return ProductDescent.from_model(model, task, GradientDescent(rate), steps=steps)


def _trained(model: TwoLayerNetwork, task: RegressionTask, rate: Array, steps: int) -> Array:
    """The curvature after training; not finite for runs that diverge."""
    rule = GradientDescent(rate, time_per_step=1.0)
    start = ProductDescent.from_model(model, task, rule, steps=1)
    return train(model, task, rule, [float(steps)], observe=start.reduce, throw=False).observed.curvature[0]


def _excess(solution: ProductDescent, state: ProductState) -> Array:
    return solution.loss(state) - solution.floor


def _curvature(_: ProductDescent, state: ProductState) -> Array:
    return state.curvature


@eqx.filter_jit
def _located(model: TwoLayerNetwork, task: RegressionTask) -> Array:
    """The relative distance of the rate that diverges in training, narrowed down, from the predicted one."""
    predicted = ProductDescent.from_model(model, task, GradientDescent(1.0), steps=1).divergence_rate

    def narrow(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        fractions = jnp.linspace(*ends, 17)
        curvatures = jax.vmap(lambda fraction: _trained(model, task, fraction * predicted, steps=200))(fractions)
        first = jnp.argmin(jnp.isfinite(curvatures))
        return fractions[first - 1], fractions[first]

    low, high = jax.lax.fori_loop(0, 5, narrow, (jnp.asarray(0.5), jnp.asarray(2.0)))
    return jnp.abs((low + high) / 2 - 1)
