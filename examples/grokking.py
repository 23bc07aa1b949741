"""Grokking from lazy to rich (Kumar, Bordelon, Gershman and Pehlevan 2023, 2310.06110).

A network of quadratic units learns the square of a projection from fewer examples than the polynomials of its degree
have coefficients. The scale α of its outputs decides how lazy it is. For several α: training and test error over time,
from the exact reduction to two moments of the weights (lines) and from the network itself (markers); and how many times
later the test error is small than the training error (theory and network). Run it as

    python examples/grokking.py [grokking.png]
"""

import argparse

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

import tractax as tx
from tractax import plotting
from tractax.analysis import crossing_times
from tractax.two_layer import PolynomialGrokking, PolynomialTask, gaussian_polynomial_network, squared_projection

INPUTS, HIDDEN, EXAMPLES, CURVATURE = 8, 30, 40, 0.25


def case(scale, key):
    """A network, its task and its rule. The outputs at the start are not counted."""
    direction, examples, weights = jax.random.split(key, 3)
    beta = jax.random.normal(direction, (INPUTS,))
    beta = beta * INPUTS**0.5 / jnp.linalg.norm(beta)
    model = gaussian_polynomial_network(INPUTS, HIDDEN, scale, CURVATURE, key=weights)
    task = PolynomialTask.draw(squared_projection(beta), EXAMPLES, key=examples).centred(model)
    return model, task, tx.GradientFlow(model.time_constant)


def predicted(scale, key, ts):
    """Training and test error at all times, from the moments."""
    model, task, rule = case(scale, key)
    controller = diffrax.PIDController(rtol=1e-8, atol=1e-10)
    solution = PolynomialGrokking.from_model(
        model, task, rule, t1=ts[-1], solver=diffrax.Tsit5(), stepsize_controller=controller, max_steps=8192
    )
    return jax.vmap(lambda t: jnp.stack([solution.train_error(t), solution.test_error(t)]))(ts)


def simulated(scale, key, ts):
    """The same, from the network."""
    model, task, rule = case(scale, key)
    loss, test_error = tx.train(model, task, rule, ts, observe=(task.loss, task.test_error)).observed
    return jnp.stack([2 * loss, test_error], axis=1)


def gap(ts, errors):
    """How many times later the test error is below 5 % of its start than the training error below 1 % of its own."""
    train_time, test_time = crossing_times(ts, errors / errors[0][None], jnp.asarray([0.01, 0.05]))
    return float(test_time / train_time)


def main(path: str | None = None, *, quick: bool = False) -> dict[float, tuple[float, float]]:
    """Returns the gap for each α, from theory and from the network."""
    scales = (0.5, 4.0) if quick else (0.5, 1.0, 2.0, 4.0, 8.0)
    key, ts = jax.random.key(3), jnp.append(jnp.zeros(1), jnp.geomspace(1.0, 5000.0, 300))
    figure = plotting.new_figure(12.0, 3.8)
    train_axes, test_axes, gap_axes = figure.subplots(1, 3)
    gaps, curves = {}, []
    for scale in scales:
        theory, network = predicted(jnp.asarray(scale), key, ts), simulated(jnp.asarray(scale), key, ts)
        curves.append((theory / theory[0][None], network / theory[0][None]))
        gaps[scale] = gap(ts, theory), gap(ts, network)
        apart = float(jnp.max(jnp.abs(curves[-1][0] - curves[-1][1])))
        print(
            f"α = {scale:3g}: the test error is late by a factor {gaps[scale][0]:.4f} in theory, {gaps[scale][1]:.4f} in "
            f"the network; the errors of the two differ by {apart:.1e} at most"
        )
    labels = [f"$\\alpha = {scale:g}$" for scale in scales]
    for i, (axes, name) in enumerate(((train_axes, "training"), (test_axes, "test"))):
        lines, points = (jnp.stack([pair[j][1:, i] for pair in curves], axis=1) for j in (0, 1))
        plotting.overlay(axes, ts[1:], lines, points, labels, markers=18)
        axes.set(
            xscale="log", yscale="log", ylim=(1e-4, 3), title=f"{name} error", xlabel="time $t$, at $\\tau = \\alpha^2/N$"
        )
        axes.axhline((0.01, 0.05)[i], color="0.5", ls=":", lw=1)
    train_axes.set_ylabel("mean squared error, relative to the start")
    test_axes.get_legend().remove()
    both = np.asarray(list(gaps.values()))
    gap_axes.loglog(scales, both[:, 0], color="0.3", label="theory")
    gap_axes.loglog(scales, both[:, 1], "o", color="C3", mfc="white", label="network")
    gap_axes.set(xlabel="scale $\\alpha$ of the outputs", ylabel="$t$(test < 5 %) / $t$(train < 1 %)", title="the gap")
    gap_axes.minorticks_off()
    gap_axes.set_xticks(scales, [f"{scale:g}" for scale in scales])
    gap_axes.set_yticks([1, 1.5, 2, 3], ["1", "1.5", "2", "3"])
    gap_axes.legend(fontsize=8)
    if path is not None:
        print(plotting.save(figure, path))
    return gaps


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("path", nargs="?", default="grokking.png")
    main(parser.parse_args().path)
