"""Epoch-wise double descent, after Pezeshki et al. 2021 (arXiv 2112.03215).

A linear model learns features of two scales from noisy labels by gradient descent. Fast features fit the noise before the
slow ones have learned, so that the risk falls, rises and falls again; the closer the scales, the smaller the second
descent. Theory (lines) is the limit of many examples; markers are trained models.

    python examples/epoch_wise_double_descent.py [figure.png]
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

import tractax as tx
from tractax import plotting
from tractax.teacher_student import GaussianRegression, LinearModel, TwoScaleRegressionFlow

RATIOS = (0.7, 0.1)
RISKS = (0.3, 0.7)  # what each level contributes at the start
NOISE = 0.5
RULE = tx.GradientDescent(0.25)


def theory(slow: jax.Array, ts: jax.Array) -> jax.Array:
    """The excess risk over time, with slow features of this variance."""
    variances = jnp.stack([jnp.ones_like(slow), slow])
    solution = TwoScaleRegressionFlow(variances, jnp.asarray(RATIOS), jnp.asarray(RISKS) / variances, NOISE, rule=RULE)
    return jax.vmap(solution.evaluate)(ts).excess


def train(slow: jax.Array, ts: jax.Array, *, examples: int, runs: int) -> jax.Array:
    """The same for trained models; mean over data sets, shape `(scales, times)`."""
    counts = [round(ratio * examples) for ratio in RATIOS]
    fast = jnp.asarray(np.repeat([True, False], counts))
    risks = jnp.asarray(np.repeat(np.asarray(RISKS) / counts, counts))

    def one(member):
        slow, key = member
        variances = jnp.where(fast, 1.0, slow)
        population = GaussianRegression(jnp.sqrt(risks / variances), variances, NOISE**0.5)
        model, task = LinearModel(jnp.zeros(fast.size)), population.draw(examples, key=key)
        return tx.train(model, task, RULE, ts, observe=population.excess_risk).observed

    keys = jax.random.split(jax.random.key(0), slow.size * runs)
    return tx.ensemble(one, (jnp.repeat(slow, runs), keys)).reshape(slow.size, runs, ts.size).mean(axis=1)


def main(path: str | None = None, *, quick: bool = False) -> dict[str, jax.Array]:
    """Compares theory and trained models; saves a figure if given a path.

    **Arguments:**

    - `path`: where to save the figure, if anywhere.
    - `quick`: smaller models, fewer of them, trained for a shorter time.

    **Returns:**

    By name, for each variance of the slow features (`"slow"`): the highest risk (`"peak"`), the lowest before it
    (`"first minimum"`) and after it (`"second minimum"`; the peak itself where there is no second descent), and the
    largest relative difference of the trained models (`"error"`).
    """
    examples, runs, ts = (50, 4, times(3.0, 8)) if quick else (300, 20, times(4.6, 24))
    slow = jnp.asarray([1.0, 0.1, 0.01, 0.001])
    curves = jax.jit(jax.vmap(theory, in_axes=(0, None)))
    simulated, predicted = train(slow, ts, examples=examples, runs=runs), curves(slow, ts)
    fine = times(5.5, 30 if quick else 100)
    numbers = {"slow": slow} | turning_points(curves(slow, fine))
    numbers["error"] = jnp.max(jnp.abs(simulated / predicted - 1), axis=1)
    if path is not None:
        grid = jnp.logspace(0, -4, 6 if quick else 60)
        draw(path, ts, simulated, fine, curves(slow, fine), grid, curves(grid, fine))
    return numbers


def times(decades: float, number: int) -> jax.Array:
    """After whole steps, more or less evenly spaced in their logarithm."""
    return RULE.time_per_step * jnp.asarray(np.unique(np.rint(np.logspace(0, decades, number))))


def turning_points(curves: jax.Array) -> dict[str, jax.Array]:
    """The lowest value before the peak of each curve, the peak, and the lowest value after it."""
    peak, index = jnp.argmax(curves, axis=1)[:, None], jnp.arange(curves.shape[1])[None, :]
    return {
        "first minimum": jnp.min(jnp.where(index <= peak, curves, jnp.inf), axis=1),
        "peak": jnp.max(curves, axis=1),
        "second minimum": jnp.min(jnp.where(index >= peak, curves, jnp.inf), axis=1),
    }


def draw(path, ts, simulated, fine, predicted, grid, map_of_risks) -> None:
    """Curves for a few scales, and a map over all of them."""
    figure = plotting.new_figure()
    left, right = figure.subplots(1, 2)
    labels = [f"$s_2/s_1 = {s}$" for s in ("1", "0.1", "0.01", "0.001")]
    plotting.overlay(left, fine, predicted.T, simulated.T, labels, simulated_ts=ts, markers=30)
    left.set(xlabel="learning rate × steps", ylabel="excess risk", xscale="log", ylim=(0, 2.1))
    left.set(title="Two scales, two descents")
    image = right.pcolormesh(fine, grid, map_of_risks, shading="gouraud", cmap="magma")
    right.set(xlabel="learning rate × steps", ylabel="scale of the slow features, $s_2/s_1$")
    right.set(xscale="log", yscale="log", title="Where training longer hurts")
    figure.colorbar(image, ax=right, label="excess risk")
    plotting.save(figure, path)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description="Epoch-wise double descent of linear regression.")
    parser.add_argument("path", nargs="?", help="where to save the figure")
    for name, values in main(parser.parse_args().path).items():
        print(f"{name:15}", *(f"{value:8.4f}" for value in values))
