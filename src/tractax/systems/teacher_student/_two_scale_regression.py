"""Epoch-wise double descent of linear regression: fast features fit the noise before slow ones have learned."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ...analysis import Scaling, scaling
from ...core import Kind
from ...plotting import overlay
from ...rules import GradientFlow
from ...special import decay_integral
from ...teacher_student import GaussianRegression, LinearModel, TwoScaleRegressionFlow
from ...training import ensemble, train
from .._system import AbstractSystem, Citation, Exponent

VARIANCES, RATIOS, SIGNAL, NOISE = (1.0, 1e-3), (0.7, 0.1), (0.3, 700.0), 0.5


class TwoScaleRegressionSystem(AbstractSystem):
    """Inputs of two variances that differ by a factor of 1000, in the limit of many examples."""

    name: ClassVar[str] = "two_scale_regression"
    family: ClassVar[str] = "teacher_student"
    kind: ClassVar[Kind] = "asymptotic"
    summary: ClassVar[str] = "epoch-wise double descent of linear regression with features of two scales"
    citation: ClassVar[Citation] = Citation("Pezeshki, Mitra, Bengio, Lajoie", 2021, "2112.03215")
    claim: ClassVar[Exponent] = Exponent(-1.0, "exponent in n of the error in the excess risk")

    def measure(self) -> Scaling:
        """At $t = 10$, on the way up: the limit against exact averages over noise and teacher on drawn inputs."""
        limit = double_descent().evaluate(10.0).excess

        def errors(examples: float):
            n = int(examples)
            keys = jax.random.split(jax.random.key(n), 16000 // n)
            # On one device: XLA's decompositions of matrices may wait for ever where two threads call them.
            one = jax.local_devices()[:1]
            return ensemble(lambda key: mean_excess(population(n), n, 10.0, key=key) - limit, keys, devices=one)

        return scaling(errors, (20.0, 40.0, 80.0))

    def draw(self, figure: Any) -> None:
        """Excess risk and training loss over time, and what the excess risk is made of."""
        left, right = figure.subplots(1, 2)
        ts = jnp.logspace(-2, 5.5, 151)
        solution = double_descent()
        predicted = jax.vmap(solution.evaluate)(ts)
        few = ts[::5]
        simulated = simulate(few, examples=600, runs=16)
        shown = [jnp.stack([state.excess, state.train], axis=1) for state in (predicted, simulated)]
        labels = ["excess risk", "training loss"]
        overlay(left, ts, shown[0], shown[1], labels, simulated_ts=few, markers=31)
        left.set(xlabel="time $t$", ylabel="half the mean squared error", xscale="log", title="Double descent in time")
        bias, variance = jax.vmap(solution.bias)(ts) / 2, jax.vmap(solution.variance)(ts) / 2
        right.plot(ts, bias, color="C0", label="bias $B/2$")
        right.plot(ts, variance, color="C1", label="variance $\\sigma^2V/2$")
        right.plot(ts, bias + variance, color="0.2", lw=1, ls="--", label="excess risk")
        right.set(xlabel="time $t$", ylabel="excess risk", xscale="log", title="What it is made of")
        right.legend(fontsize=8)


def double_descent() -> TwoScaleRegressionFlow:
    """The limit of many examples."""
    return TwoScaleRegressionFlow(jnp.asarray(VARIANCES), jnp.asarray(RATIOS), jnp.asarray(SIGNAL), NOISE)


def population(examples: int) -> GaussianRegression:
    """Its inputs at finite size; within a level all weights of the teacher are the same."""
    counts = [round(ratio * examples) for ratio in RATIOS]
    teacher = np.repeat([(signal / count) ** 0.5 for signal, count in zip(SIGNAL, counts, strict=True)], counts)
    return GaussianRegression(jnp.asarray(teacher), jnp.asarray(np.repeat(VARIANCES, counts)), NOISE**0.5)


def mean_excess(source: GaussianRegression, examples: int, t: float, *, key: Any) -> Any:
    """The excess risk on drawn inputs, averaged over label noise and teachers of independent weights."""
    inputs, _ = source.sample(key, examples)
    rates, directions = jnp.linalg.eigh(inputs.T @ inputs / examples)
    left = (directions * jnp.exp(-t * rates)[None, :]) @ directions.T
    fitted = directions**2 @ (rates * decay_integral(rates, t) ** 2) / examples
    bias, variance = source.variances @ left**2 @ source.teacher**2, source.noise_scale**2 * source.variances @ fitted
    return (bias + variance) / 2


def simulate(ts: Any, *, examples: int, runs: int) -> Any:
    """The average of a few trained models."""
    # Loaded when asked for, as it is in `tractax`.
    from ...solvers import RKC4

    source = population(examples)
    model = LinearModel(jnp.zeros_like(source.teacher))

    def one(key):
        task = source.draw(examples, key=key)
        reduce = TwoScaleRegressionFlow.from_model(model, task, check=False).reduce
        return train(model, task, GradientFlow(), ts, observe=reduce, solver=RKC4()).observed

    observed = ensemble(one, jax.random.split(jax.random.key(0), runs), method="map", chunk_size=1)
    return jax.tree.map(lambda x: jnp.mean(x, axis=0), observed)
