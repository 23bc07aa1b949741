"""The curve of massive activations: its peak, and how well it describes a small transformer that trains."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from ...core import Kind
from ...rules import GradientDescent
from ...training import train
from ...transformers import (
    InContextRegression,
    MassiveActivationCurve,
    SoftmaxTransformer,
    activation_ratio,
    fit_massive_activation,
)
from .._system import AbstractSystem, Citation, Tolerance


class MassiveActivationsSystem(AbstractSystem):
    """Three curves, sampled at sixty checkpoints, fitted, and asked where they peak."""

    name: ClassVar[str] = "massive_activations"
    family: ClassVar[str] = "transformers"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "the curve of the largest hidden activity over training, its peak and its fit"
    citation: ClassVar[Citation] = Citation("Gallego-Feliciano et al.", 2025, "2508.03616")
    claim: ClassVar[Tolerance] = Tolerance(1e-8, "relative error of the peak of a fitted curve")

    def measure(self) -> Float[Array, ""]:
        """The closed form of the fitted curve's peak against the numerical maximum of the true one."""
        curves = [
            MassiveActivationCurve(*p) for p in ((50, 0.02, 0.5, 1.2, 10), (3e3, 0.1, 1e-3, 1.1, 5), (7, 1e-3, 2, 3, 0))
        ]
        errors = []
        for curve in curves:
            end = 5 * curve.peak_time
            ts = jnp.linspace(0.0, 1.0, 60) * end
            fitted, time = fit_massive_activation(ts, curve(ts)).curve, _maximum(curve, end)
            errors += [fitted.peak_time / time - 1, fitted.peak_value / curve(time) - 1]
        return jnp.max(jnp.abs(jnp.stack(errors)))

    def draw(self, figure: Any) -> None:
        """Noisy samples of a curve with their fit; the measured ratio of a transformer with its own."""
        left, right = figure.subplots(1, 2)
        curve = MassiveActivationCurve(50, 0.02, 0.5, 1.2, 10)
        ts = jnp.linspace(0.0, 400.0, 201)
        for noise, colour in ((0.0, "C0"), (8.0, "C3")):
            samples = ts[::5]
            values = curve(samples) + noise * jax.random.normal(jax.random.key(0), samples.shape)
            fit = fit_massive_activation(samples, values)
            left.plot(ts, fit.curve(ts), color=colour, label=f"fit, noise {noise:g}: $R^2 = {fit.r_squared:.4f}$")
            left.plot(samples, values, "o", color=colour, mfc="white", ms=3)
            left.plot(fit.curve.peak_time, fit.curve.peak_value, "x", color=colour, ms=8)
        left.set(xlabel="time", ylabel="$f(t)$", title="The curve and its peak")
        left.legend(fontsize=8)
        for width, colour in ((16, "C0"), (32, "C2")):
            steps, ratios = _training(width, jax.random.key(0))
            fit = fit_massive_activation(steps, ratios)
            right.plot(steps, fit.curve(steps), color=colour, label=f"width {width}: $R^2 = {fit.r_squared:.2f}$")
            right.plot(steps, ratios, "o", color=colour, mfc="white", ms=3)
        right.set(xlabel="step", ylabel="max|h| / median|h|", title="A small transformer", ylim=(0, None))
        right.legend(fontsize=8)


def _maximum(curve: MassiveActivationCurve, end: Float[Array, ""]) -> Float[Array, ""]:
    """Where the curve is largest, by bisection of its automatic derivative."""
    slope = jax.grad(curve.__call__)

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = (ends[0] + ends[1]) / 2
        rises = slope(middle) > 0
        return jnp.where(rises, middle, ends[0]), jnp.where(rises, ends[1], middle)

    return jax.lax.fori_loop(0, 60, halve, (jnp.zeros_like(end), end))[0]


def _training(width: int, key: PRNGKeyArray) -> tuple[Float[Array, " times"], Float[Array, " times"]]:
    """The ratio while a transformer of one layer learns regression in context."""
    task = InContextRegression(jnp.eye(3), length=8)
    model = SoftmaxTransformer(3, width, 2, key=key)
    prompts = task.sample(jax.random.key(99), 64)[0]
    rule = GradientDescent(3e-3, optax.adam, time_per_step=1.0, batch_size=32)

    def ratio(model: SoftmaxTransformer) -> Array:
        return activation_ratio(jax.vmap(model.hidden)(prompts))

    trajectory = train(model, task, rule, jnp.arange(0.0, 801.0, 20.0), observe=ratio, key=jax.random.key(1))
    return trajectory.ts, trajectory.observed
