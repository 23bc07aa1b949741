"""Where SGD leaves a minimum: the growth of a small displacement, against learning rate and batch size."""

import itertools
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from ...core import Kind
from ...deep_linear import (
    DeepLinear,
    RegressionTask,
    per_example_gradients,
    sgd_growth,
    sgd_moment_step,
    sgd_threshold,
)
from ...rules import GradientDescent
from ...training import ensemble, train
from .._system import AbstractSystem, Citation, Tolerance

_BATCHES = (1, 4, None)
_STEPS = 3


class SGDStabilitySystem(AbstractSystem):
    """A two-layer linear network with one output at a minimum that fits three examples."""

    name: ClassVar[str] = "sgd_stability"
    family: ClassVar[str] = "deep_linear"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "learning rate above which SGD with batches of B leaves an interpolating minimum"
    citation: ClassVar[Citation] = Citation("Wu, Su", 2023, "2305.17490")
    claim: ClassVar[Tolerance] = Tolerance(1e-8, "error of the growth per step")

    def minimum(self) -> tuple[DeepLinear, RegressionTask]:
        """A network and data that it fits exactly."""
        inputs = jnp.asarray([[1.0, 0.5, 0.2], [-0.4, 1.1, 0.1], [0.1, -0.3, 1.2]])
        first = jnp.asarray([[0.5, 0.1, -0.25], [-0.15, 0.4, 0.2]])
        model = DeepLinear((first, jnp.asarray([[0.8, -0.5]])))
        return model, RegressionTask(inputs, jax.vmap(model)(inputs))

    def measure(self) -> Float[Array, ""]:
        """Growth factors below, at and above each threshold, against all batches that SGD can draw, one by one."""
        model, task = self.minimum()
        gradients = per_example_gradients(model, task.inputs)
        errors = []
        for batch_size in _BATCHES:
            threshold = sgd_threshold(gradients, batch_size)
            for fraction in (0.6, 1.0, 1.4):
                eta = fraction * threshold
                predicted = 1.0 if fraction == 1.0 else sgd_growth(gradients, eta, batch_size)
                errors.append(jnp.abs(_enumerated_growth(model, task, eta, batch_size) - predicted))
        return jnp.max(jnp.stack(errors))

    def growth_of_ensemble(
        self, etas: Float[Array, " rates"], batch_size: int | None, *, members: int, key: PRNGKeyArray
    ) -> Float[Array, " rates"]:
        """The growth per step of the mean loss of many runs, over their first steps.

        Runs start displaced in the directions that grow fastest, so that no transient has to be waited for, during
        which the mean would come to rest on ever fewer runs.
        """
        model, task = self.minimum()
        gradients = per_example_gradients(model, task.inputs)
        params, static = eqx.partition(model, eqx.is_inexact_array)
        flat, unravel = ravel_pytree(params)
        factors = jax.vmap(lambda eta: _dominant_factor(gradients, eta, batch_size))(etas)
        times = jnp.asarray([0, _STEPS], flat.dtype)

        def losses(member):
            index, key = member
            start, steps = jax.random.split(key)
            displacement = factors[index] @ jax.random.normal(start, factors.shape[-1:], flat.dtype)
            displaced = eqx.combine(unravel(flat + 1e-6 * displacement), static)
            rule = GradientDescent(etas[index], time_per_step=1.0, batch_size=batch_size)
            return train(displaced, task, rule, times, key=steps).observed

        rates = etas.shape[0]
        runs = ensemble(
            losses, (jnp.repeat(jnp.arange(rates), members), jax.random.split(key, rates * members)), chunk_size=50_000
        )
        before, after = jnp.mean(runs.reshape(rates, members, 2), axis=1).T
        return (after / before) ** (1 / _STEPS)

    def draw(self, figure: Any) -> None:
        """Growth per step against the learning rate, for three batch sizes, with the predicted thresholds."""
        import matplotlib

        model, task = self.minimum()
        gradients = per_example_gradients(model, task.inputs)
        axes = figure.subplots()
        colours = matplotlib.colormaps["viridis"]([0.0, 0.45, 0.8])
        for colour, batch_size, key in zip(colours, _BATCHES, jax.random.split(jax.random.key(0), 3), strict=True):
            threshold = float(sgd_threshold(gradients, batch_size))
            fine = threshold * jnp.linspace(0.02, 1.25, 80)
            coarse = threshold * jnp.linspace(0.1, 1.2, 12)
            theory = jax.vmap(lambda eta, size=batch_size: sgd_growth(gradients, eta, size))(fine)
            measured = self.growth_of_ensemble(coarse, batch_size, members=40_000, key=key)
            size = "full batch" if batch_size is None else f"B = {batch_size}"
            axes.plot(fine, theory, color=colour, label=f"{size}, η* = {threshold:.3f}")
            axes.plot(coarse, measured, "o", color=colour, mfc="white", ms=5, ls="none")
            axes.axvline(threshold, color=colour, ls=":", lw=1.2)
        axes.axhline(1.0, color="0.6", lw=0.8)
        axes.plot([], [], "o", color="0.3", mfc="white", ms=5, ls="none", label="mean of 40 000 runs")
        axes.set(xlabel="learning rate $\\eta$", ylabel="growth of the mean loss per step")
        axes.legend(fontsize=8)


def _dominant_factor(gradients: Array, eta: Array, batch_size: int | None) -> Array:
    """A square root of the second moment to which the growing one converges in shape."""
    # On the range of H; rounding in the flat directions would not decay.
    basis = jnp.linalg.svd(gradients, full_matrices=False)[2].T
    reduced = gradients @ basis

    def step(moment, _):
        moment = sgd_moment_step(reduced, moment, eta, batch_size)
        return moment / jnp.trace(moment), None

    moment, _ = jax.lax.scan(step, jnp.eye(reduced.shape[1], dtype=reduced.dtype), None, length=200)
    values, vectors = jnp.linalg.eigh(moment)
    return basis @ (vectors * jnp.sqrt(jnp.maximum(values, 0.0))[None, :])


def _enumerated_growth(model: DeepLinear, task: RegressionTask, eta: Array, batch_size: int | None) -> Array:
    """The spectral radius of E[J ⊗ J], J the derivative of one step of training, over every possible batch."""
    params, static = eqx.partition(model, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(params)
    examples = task.inputs.shape[0]
    size = examples if batch_size is None else batch_size
    draws = list(itertools.product(range(examples), repeat=size)) if batch_size else [tuple(range(examples))]

    def hessian(batch):
        return jax.hessian(lambda w: task.batch_loss(eqx.combine(unravel(w), static), batch))(flat)

    hessians = jax.lax.map(hessian, jnp.asarray(draws))
    values, vectors = jnp.linalg.eigh(jnp.mean(hessians, axis=0))
    curved = vectors[:, values > 1e-10 * values[-1]]
    identity = jnp.eye(curved.shape[1], dtype=flat.dtype)
    steps = identity[None, :, :] - eta * jnp.einsum("pi,bpq,qj->bij", curved, hessians, curved)
    moments = jnp.mean(jax.vmap(jnp.kron)(steps, steps), axis=0)
    return jnp.max(jnp.abs(jnp.linalg.eigvalsh(moments)))
