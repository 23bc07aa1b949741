"""One drop or many: merged against separate keys and queries in linear attention (Zhang et al. 2025, arXiv 2501.16265).

The same regression problems in context, from equally small random weights. With one matrix per head for keys and
queries the loss has one plateau; with separate low-rank keys and queries it falls once for every principal component of
the inputs, or for several at a time if the rank is above one. All weights of the layer are simulated (markers), the
reduced flows are theory (lines). Run it as

    python examples/one_drop_or_many.py [drops.png]
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

import tractax as tx
from tractax import plotting
from tractax.transformers import (
    InContextRegression,
    LinearAttention,
    LinearAttentionFlow,
    SeparateAttentionFlow,
    gaussian_attention,
    gaussian_separate_attention,
    plateau_losses,
)

HEADS = 5


def problem() -> InContextRegression:
    """Four inputs with variances in the ratio 4 : 3 : 2 : 1, 31 examples in a prompt."""
    return InContextRegression(jnp.diag(jnp.array([0.4, 0.3, 0.2, 0.1])), length=31)


def networks(scale: float, ranks: tuple[int, ...]) -> dict:
    """The same numbers of heads, merged, and separate of each rank."""
    key = jax.random.key(0)
    separate = {f"separate, rank {r}": gaussian_separate_attention(4, HEADS, r, scale=scale, key=key) for r in ranks}
    return {"merged": gaussian_attention(4, HEADS, scale=scale, key=key), **separate}


def plateaus_visited(losses, levels) -> list[int]:
    """The plateaus next to which a curve, recorded at logarithmic times, is found more than a few times."""
    near = np.abs(np.asarray(losses)[:, None] - np.asarray(levels)[None, :]) < 2e-3
    return [int(m) for m in np.flatnonzero(near.sum(axis=0) >= losses.shape[0] / 50)]


def main(path: str | None = None, *, quick: bool = False) -> dict[str, list[int]]:
    """Trains each network, compares it with its reduced flow, and returns the plateaus that it visited."""
    task, scale = problem(), 0.05 if quick else 0.01
    ts = jnp.geomspace(1.0, 150 / scale, 100 if quick else 500)
    levels = plateau_losses(task)
    visited, worst = {}, 0.0
    figure = plotting.new_figure(7.0, 4.0)
    axes = figure.subplots()
    for i, (name, model) in enumerate(networks(scale, (1,) if quick else (1, 2, 4)).items()):
        theory = LinearAttentionFlow if isinstance(model, LinearAttention) else SeparateAttentionFlow
        solution = theory.from_model(model, task, t1=1.001 * ts[-1])
        losses = tx.train(model, task, tx.GradientFlow(), ts).observed
        predicted = jax.vmap(solution.loss)(ts)
        worst = max(worst, float(jnp.max(jnp.abs(losses - predicted))))
        visited[name] = plateaus_visited(losses, levels)
        print(f"{name}: plateaus of {visited[name]} components")
        axes.plot(ts, predicted, color=f"C{i}", label=name)
        axes.plot(ts[3 * i :: 13], losses[3 * i :: 13], "o", color=f"C{i}", mfc="white", ms=3)
    print(f"largest difference between theory and simulation: {worst:.1e}")
    for level in levels:
        axes.axhline(float(level), color="0.7", ls=":", lw=1, zorder=0)
    axes.set(xscale="log", xlabel="time $t/\\tau$", ylabel="loss", ylim=(0, 0.6))
    axes.set(title=f"{HEADS} heads, initial scale {scale:g}")
    axes.legend(fontsize=8, ncols=2)
    if path is not None:
        print(plotting.save(figure, path))
    return visited


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("path", nargs="?", default="one_drop_or_many.png")
    main(parser.parse_args().path)
