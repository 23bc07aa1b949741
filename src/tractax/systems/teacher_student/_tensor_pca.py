"""Tensor PCA by averaging Langevin dynamics: partial traces, and the samples that they need."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ...analysis import Scaling, scaling
from ...core import Kind
from ...teacher_student import (
    AveragedLangevin,
    SphericalFlow,
    SphericalLangevin,
    TensorPCATask,
    UnitVector,
    leading_direction,
    partial_trace,
    partial_trace_overlap,
    partial_trace_variance,
    random_direction,
    spiked_tensor,
)
from ...training import Mean, ensemble, train
from .._system import AbstractSystem, Citation, Exponent

_CITATION = Citation(
    "Improved high-dimensional estimation with Langevin dynamics and stochastic weight averaging", 2026, "2603.06028"
)


class AveragedLangevinSystem(AbstractSystem):
    """Averages of Langevin dynamics on the sphere, at high temperature."""

    name: ClassVar[str] = "averaged_langevin"
    family: ClassVar[str] = "teacher_student"
    kind: ClassVar[Kind] = "asymptotic"
    summary: ClassVar[str] = "averaged Langevin iterates are the partial trace of a tensor energy"
    citation: ClassVar[Citation] = _CITATION
    claim: ClassVar[Exponent] = Exponent(-2.0, "exponent in the temperature of the relative error of the mean")

    def measure(self) -> Scaling:
        """Against averages over Gibbs' law by quadrature on the sphere in three dimensions, for 24 noisy tensors."""
        points, weights = sphere_quadrature()
        tensors = jax.vmap(lambda key: noisy_cube(3, key))(jax.random.split(jax.random.key(0), 24))

        @jax.jit
        def errors(temperature: Float[Array, ""]) -> Float[Array, " tensors"]:
            def error(tensor):
                task = TensorPCATask(tensor)
                energies = jax.vmap(lambda x: task.loss(UnitVector(x)))(points)
                density = weights * jnp.exp(-energies / temperature)
                mean = density @ points / jnp.sum(density)
                rule = SphericalLangevin(temperature, 0.01)
                found = AveragedLangevin.from_model(UnitVector(points[0]), task, rule).limit().mean
                return jnp.linalg.norm(found - mean) / jnp.linalg.norm(mean)

            return jax.vmap(error)(tensors)

        return scaling(lambda temperature: errors(jnp.asarray(temperature)), (5.0, 10.0, 20.0, 40.0))

    def draw(self, figure: Any) -> None:
        """Means over runs against time, and how the error of the theory falls with the temperature."""
        left, right = figure.subplots(1, 2)
        ts, fine = jnp.linspace(0.0, 1.2, 13), jnp.linspace(0.0, 1.2, 121)
        teacher = jnp.asarray([1.0, 0.0, 0.0])
        for i, temperature in enumerate((1.0, 2.0, 4.0)):
            task = TensorPCATask(spiked_tensor(teacher, order=3, samples=math.inf, key=jax.random.key(0)))
            rule = SphericalLangevin(temperature, 0.01)

            def overlaps(key, task=task, rule=rule):
                start, noise = jax.random.split(key)
                model = random_direction(3, key=start)
                return train(model, task, rule, ts, observe=lambda model: model.direction[0], key=noise).observed

            solution = AveragedLangevin.from_model(UnitVector(teacher), task, rule)
            found = ensemble(overlaps, jax.random.split(jax.random.key(i), 40000), reduce=Mean())
            mean = jax.vmap(solution.evaluate)(fine).mean[:, 0]
            left.plot(fine, mean, color=f"C{i}", label=f"temperature {temperature:g}")
            left.errorbar(ts, found.mean, found.standard_error, color=f"C{i}", fmt="o", mfc="white", ms=4, elinewidth=1)
        left.set(xlabel="time", ylabel="$\\mathbb{E}\\,\\theta\\cdot\\theta^*$", title="Mean of 40000 runs, $k = d = 3$")
        left.legend(fontsize=8, loc="upper left")
        left.set(ylim=(-0.01, 0.27))
        found = self.measure()
        right.loglog(found.sizes, found.errors, "o", color="C0", mfc="white", label="against quadrature")
        law = found.errors[-1] * (found.sizes / found.sizes[-1]) ** -2.0
        right.loglog(found.sizes, law, color="C0", label="$\\propto$ temperature$^{-2}$")
        right.set(xlabel="temperature", ylabel="relative error of the mean", title="What the first order leaves out")
        right.set_xticks(found.sizes, [f"{float(x):g}" for x in found.sizes])
        right.minorticks_off()
        right.legend(fontsize=8)


class TensorPCASystem(AbstractSystem):
    """The direction that an average shows, of a tensor of order three."""

    name: ClassVar[str] = "tensor_pca"
    family: ClassVar[str] = "teacher_student"
    kind: ClassVar[Kind] = "asymptotic"
    summary: ClassVar[str] = "how well a partial trace shows the direction hidden in a noisy tensor"
    citation: ClassVar[Citation] = _CITATION
    claim: ClassVar[Exponent] = Exponent(-0.5, "exponent in d of the scatter of the overlap")

    def measure(self) -> Scaling:
        """How far overlaps of single tensors are from the limit, at samples where this is $1/\\sqrt2$."""

        def errors(size: float):
            d = int(size)
            samples = d * partial_trace_variance(3, d)
            limit = partial_trace_overlap(samples, order=3, size=d)
            keys = jax.random.split(jax.random.key(d), 150)
            return ensemble(lambda key: found_overlap(3, d, samples, key) - limit, keys, method="map")

        return scaling(errors, (8.0, 16.0, 32.0, 64.0))

    def draw(self, figure: Any) -> None:
        """Overlaps of averages against samples, and what gradient flow finds from there and from random starts."""
        left, right = figure.subplots(1, 2)
        ratios, fine = np.logspace(-1, 1, 9), np.logspace(-1, 1, 400)
        for i, (order, size) in enumerate(((3, 40), (4, 25))):
            scale = size * partial_trace_variance(order, size)
            left.semilogx(
                fine,
                partial_trace_overlap(fine * scale, order=order, size=size),
                color=f"C{i}",
                label=f"$k = {order}$",
            )
            found = _over_tensors(
                lambda samples, key, order=order, size=size: found_overlap(order, size, samples, key), ratios * scale
            )
            left.semilogx(ratios, found, "o", color=f"C{i}", mfc="white", ms=4, label=f"24 tensors, $d = {size}$")
        left.set(xlabel="samples $n / (dv)$", ylabel="overlap $|\\hat\\theta\\cdot\\theta^*|$", title="Of averages alone")
        left.legend(fontsize=8, loc="lower right")
        size, multiples = 30, (0.25, 0.5, 1.0, 2.0, 4.0)
        samples = np.asarray(multiples) * size**1.5
        ends = _over_tensors(lambda samples, key: _overlaps_after_ascent(size, samples, key), samples)
        right.semilogx(multiples, partial_trace_overlap(samples, order=3, size=size), color="C0", label="average alone")
        right.semilogx(multiples, ends[:, 0], "o-", color="C2", mfc="white", label="gradient flow from the average")
        right.semilogx(multiples, ends[:, 1], "s:", color="C3", mfc="white", label="gradient flow from random starts")
        right.set(xlabel="samples $n / d^{3/2}$", ylabel="mean overlap", ylim=(0, 1.4), yticks=np.linspace(0, 1, 6))
        right.set(title=f"Then gradient flow, $k = 3$, $d = {size}$")
        right.set_xticks(multiples, [f"{x:g}" for x in multiples])
        right.minorticks_off()
        right.legend(fontsize=8, loc="upper left")


def sphere_quadrature() -> tuple[Float[Array, "points 3"], Float[Array, " points"]]:
    """Points and weights on the sphere in three dimensions, exact for polynomials of degree below 40."""
    heights, weights = np.polynomial.legendre.leggauss(20)
    angles = np.arange(40) * np.pi / 20
    across = np.sqrt(1 - heights**2)
    points = [np.outer(across, np.cos(angles)), np.outer(across, np.sin(angles)), np.outer(heights, np.ones(40))]
    return jnp.asarray(np.stack(points, axis=-1).reshape(-1, 3)), jnp.asarray(np.repeat(weights / 80, 40))


def noisy_cube(size: int, key: Array, samples: ArrayLike = 1.0) -> Float[Array, "size size size"]:
    """A tensor of order three with the first axis as its spike."""
    return spiked_tensor(jnp.eye(size)[0], order=3, samples=samples, key=key)


def found_overlap(order: int, size: int, samples: ArrayLike, key: Array) -> Float[Array, ""]:
    """The overlap with the spike of what the partial trace of a noisy tensor shows; of even orders, its size."""
    tensor = spiked_tensor(jnp.eye(size)[0], order=order, samples=samples, key=key)
    overlap = leading_direction(partial_trace(tensor))[0]
    return overlap if order % 2 else jnp.abs(overlap)


def _over_tensors(f: Callable[[Array, Array], Array], samples: np.ndarray, tensors: int = 24) -> Float[Array, "..."]:
    """The mean of `f(samples, key)` over the noise of some tensors, for several numbers of samples."""
    keys = jnp.tile(jax.random.split(jax.random.key(0), tensors), samples.size)
    cases = jnp.repeat(jnp.asarray(samples), tensors), keys
    found = ensemble(lambda case: f(*case), cases, method="map")
    return jnp.mean(found.reshape(samples.size, tensors, *found.shape[1:]), axis=1)


def _overlaps_after_ascent(size: int, samples: Array, key: Array) -> Float[Array, " starts"]:
    """Overlaps at the end of gradient flow, from the average and from a random start."""
    noise, start = jax.random.split(key)
    tensor = noisy_cube(size, noise, samples)
    task = TensorPCATask(tensor)
    starts = jnp.stack([leading_direction(partial_trace(tensor)), random_direction(size, key=start).direction])

    def end(direction):
        first = train(UnitVector(direction), task, SphericalFlow(), [20.0], observe=lambda model: model.direction[0])
        return first.observed[0]

    return jax.lax.map(end, starts)
