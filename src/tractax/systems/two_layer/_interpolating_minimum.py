"""Where SGD leaves a minimum of a nonlinear network, for every batch size, with and without replacement."""

import itertools
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from ...core import Kind
from ...deep_linear import RegressionTask, sgd_moment_step
from ...rules import GradientDescent
from ...training import ensemble, train
from ...two_layer import InterpolatingMinimum, TwoLayerNetwork
from .._system import AbstractSystem, Citation, Tolerance

_STEPS = 16


class InterpolatingMinimumSystem(AbstractSystem):
    """A two-layer tanh network with biases that fits five examples."""

    name: ClassVar[str] = "interpolating_minimum"
    family: ClassVar[str] = "two_layer"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "SGD leaves a minimum that fits all data above a learning rate known for any network"
    citation: ClassVar[Citation] = Citation("Wu, Su", 2023, "2305.17490")
    claim: ClassVar[Tolerance] = Tolerance(1e-8, "relative error of the threshold")

    def minimum(self) -> tuple[TwoLayerNetwork, RegressionTask]:
        """The network, and its own answers as data."""
        first = jnp.asarray([[1.1, -0.4], [-0.3, 0.9], [0.5, 0.6]])
        model = TwoLayerNetwork(first, jnp.asarray([0.9, -1.1, 0.6]), "tanh", bias=jnp.asarray([0.1, -0.2, 0.3]))
        inputs = jnp.asarray([[1.0, 0.5], [-0.7, 1.2], [0.4, -1.1], [-1.3, -0.6], [0.2, 0.9]])
        return model, RegressionTask(inputs, jax.vmap(model)(inputs)[:, 0])

    def measure(self) -> Float[Array, ""]:
        """Thresholds against bisection, in the learning rate, of the growth over all batches of the network."""
        model, task = self.minimum()
        minimum = InterpolatingMinimum.from_model(model, task)
        hessians, errors = _example_hessians(model, task), []
        for size, replace in ((1, True), (2, True), (2, False), (3, False), (5, False)):
            located = _bisect(_batches(hessians, size, replace))
            errors.append(minimum.threshold(size, replace=replace) / located - 1)
        return jnp.max(jnp.abs(jnp.stack(errors)))

    def losses(self, fraction: float, *, members: int, key: PRNGKeyArray) -> tuple[Array, Array]:
        """The mean loss of networks near the minimum, in theory and over runs, at a fraction of the threshold for B = 1.

        In units of the loss at the start. Displacements are normal and tiny.
        """
        model, task = self.minimum()
        minimum = InterpolatingMinimum.from_model(model, task)
        eta = fraction * minimum.threshold(1)
        params, static = eqx.partition(model, eqx.is_inexact_array)
        flat, unravel = ravel_pytree(params)
        rule = GradientDescent(eta, time_per_step=1.0, batch_size=1)
        times = jnp.arange(0.0, _STEPS + 1)

        def run(key):
            start, steps = jax.random.split(key)
            displaced = flat + 1e-6 * jax.random.normal(start, flat.shape, flat.dtype)
            return train(eqx.combine(unravel(displaced), static), task, rule, times, key=steps).observed

        simulated = jnp.mean(ensemble(run, jax.random.split(key, members), chunk_size=50_000), axis=0)

        def step(moment, _):
            after = sgd_moment_step(minimum.gradients, moment, eta, 1)
            return after, jnp.trace(minimum.gradients @ moment @ minimum.gradients.T)

        _, predicted = jax.lax.scan(step, jnp.eye(flat.shape[0]), None, length=_STEPS + 1)
        return predicted / predicted[0], simulated / simulated[0]

    def draw(self, figure: Any) -> None:
        """The mean loss below and above the threshold; the threshold and its bounds against the batch size."""
        import matplotlib

        left, right = figure.subplots(1, 2)
        colours = matplotlib.colormaps["viridis"]([0.1, 0.5, 0.8])
        keys = jax.random.split(jax.random.key(0), 3)
        for colour, fraction, key in zip(colours, (0.8, 1.0, 1.2), keys, strict=True):
            predicted, simulated = self.losses(fraction, members=100_000, key=key)
            left.semilogy(predicted, color=colour, label=f"$\\eta = {fraction}\\,\\eta^*$")
            left.semilogy(simulated, "o", color=colour, mfc="white", ms=5)
        left.plot([], [], "o", color="0.3", mfc="white", ms=5, label="mean of 100 000 runs")
        left.set(xlabel="step", ylabel="mean loss / its start", title="One example a step")
        left.legend(fontsize=8)
        model, task = self.minimum()
        minimum = InterpolatingMinimum.from_model(model, task)
        hessians, sizes = _example_hessians(model, task), range(1, 6)
        for colour, replace, label in ((colours[0], True, "with"), (colours[2], False, "without")):
            theory = [float(minimum.threshold(size, replace=replace)) for size in sizes]
            right.plot(sizes, theory, color=colour, label=f"threshold, {label} replacement")
            enumerable = [size for size in sizes if size < 5 or not replace]
            found = [_bisect(_batches(hessians, size, replace)) for size in enumerable]
            right.plot(enumerable, found, "o", color=colour, mfc="white", ms=5)
        bounds = [minimum.bounds(size) for size in sizes]
        noise = [float(minimum.noise_bound(size)) for size in sizes]
        right.plot(
            sizes, [float(b.trace) for b in bounds], color="0.3", ls="--", lw=1.2, label="bound by the trace, with"
        )
        right.plot(sizes, noise, color="0.3", ls=":", lw=1.2, label="bound by the noise, with")
        right.axhline(float(bounds[0].full_batch), color="0.6", lw=0.8)
        right.text(1.0, float(bounds[0].full_batch) + 0.02, "$2/\\lambda_{\\max}$", color="0.4", fontsize=8)
        right.plot([], [], "o", color="0.3", mfc="white", ms=5, label="bisection over all batches")
        right.set(
            xlabel="batch size $B$",
            ylabel="learning rate",
            title="Thresholds, five examples",
            xticks=list(sizes),
            ylim=(0.4, 2.2),
        )
        right.legend(fontsize=8)


def _example_hessians(model: TwoLayerNetwork, task: RegressionTask) -> np.ndarray:
    """The Hessian of every example's loss, by differentiating the whole network twice."""
    params, static = eqx.partition(model, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(params)
    hessian = jax.hessian(lambda w, batch: task.batch_loss(eqx.combine(unravel(w), static), batch))
    examples = jnp.arange(task.inputs.shape[0])[:, None]
    return np.asarray(jax.lax.map(lambda batch: hessian(flat, batch), examples))


def _batches(hessians: np.ndarray, size: int, replace: bool) -> np.ndarray:
    """The Hessians of all batches that SGD can draw."""
    examples = range(len(hessians))
    draws = itertools.product(examples, repeat=size) if replace else itertools.combinations(examples, size)
    return np.stack([np.mean(hessians[list(draw)], axis=0) for draw in draws])


def _bisect(hessians: np.ndarray) -> float:
    """The learning rate at which E[J ⊗ J] has the spectral radius 1, with J = I - ηH on curved directions."""
    values, vectors = np.linalg.eigh(np.mean(hessians, axis=0))
    curved = vectors[:, values > 1e-10 * values[-1]]
    curvatures = curved.T @ hessians @ curved
    identity = np.eye(curved.shape[1])

    def grows(eta: float) -> bool:
        steps = identity - eta * curvatures
        mean = np.einsum("bij,bkl->ikjl", steps, steps) / len(steps)
        return bool(np.max(np.abs(np.linalg.eigvals(mean.reshape(identity.size, -1)))) >= 1)

    below, above = 0.0, 2.5 / values[-1]
    for _ in range(45):
        middle = (below + above) / 2
        below, above = (below, middle) if grows(middle) else (middle, above)
    return below
