"""How many hidden units may climb the loss before solutions are lost? (Curl descent, Ninou et al. 2025, 2510.02765.)

Two-layer linear networks start next to a solution of their task, with a fraction of their units flipped in one layer.
Whether they leave it is decided by the stability matrix of every single network, and for large ones by random matrix
theory; here they are trained.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

import tractax as tx
from tractax.rules import CurlDescent
from tractax.teacher_student import (
    TwoLayerLinear,
    VectorTask,
    curl_stability_matrix,
    hidden_flip_threshold,
    readout_flip_threshold,
)

THRESHOLDS = {"hidden layer": hidden_flip_threshold, "readout": readout_flip_threshold}
TS = np.linspace(0.0, 200.0, 21)


def stays(layer: str, ratio: float, fraction: float, inputs: int, key: jax.Array) -> tuple[bool, bool]:
    """Whether a solution is stable, and whether a network trained from next to it never has a larger loss."""
    units = round(ratio * inputs)
    hidden_key, readout_key, nudge_key = jax.random.split(key, 3)
    readout = jax.random.normal(readout_key, (units,))
    hidden = jax.random.normal(hidden_key, (units, inputs)) / inputs**0.5
    model = TwoLayerLinear(hidden, readout / jnp.linalg.norm(readout))
    task = VectorTask(model.vector + 1e-4 * jax.random.normal(nudge_key, (inputs,)))
    flipped, kept = np.where(np.arange(units) < round(fraction * units), -1.0, 1.0), np.ones(units)
    rule = CurlDescent((flipped, kept) if layer == "hidden layer" else (kept, flipped))
    losses = tx.train(model, task, rule, TS).observed
    stable = jnp.linalg.eigvalsh(curl_stability_matrix(model, rule))[0] > 0
    return bool(stable), bool(jnp.all(losses[1:] <= losses[0]))


def main(path: str | None = None, *, quick: bool = False) -> dict[str, np.ndarray]:
    """Returns how many networks are stable, and stay, for each layer, ratio and flipped fraction; draws them."""
    inputs, draws, points, ratios = (12, 2, 3, (1.0,)) if quick else (60, 10, 9, (0.5, 1.0, 2.0))
    results = {}
    figure = None
    if path is not None:
        from tractax import plotting

        figure = plotting.new_figure()
        panels = dict(zip(THRESHOLDS, figure.subplots(1, 2), strict=True))
    for layer, threshold in THRESHOLDS.items():
        fractions = np.linspace(0.0, 1.0 if layer == "hidden layer" else 0.3, points)
        results[layer] = np.empty((len(ratios), points, 2))
        for i, ratio in enumerate(ratios):
            keys = jax.random.split(jax.random.key(0), draws)
            results[layer][i] = [
                np.mean([stays(layer, ratio, x, inputs, key) for key in keys], axis=0) for x in fractions
            ]
            predicted = float(threshold(ratio))
            print(f"{layer}, {ratio:g} units for each input: of large networks {predicted:.3f} may be flipped")
            for name, share in zip(("stable:", "stay:  "), results[layer][i].T, strict=True):
                print(f"    {name} " + "  ".join(f"{x:.2f}: {y:.1f}" for x, y in zip(fractions, share, strict=True)))
            if figure is not None:
                panels[layer].plot(fractions, results[layer][i, :, 0], color=f"C{i}", lw=1)
                panels[layer].plot(fractions, results[layer][i, :, 1], "o", ms=4, mfc="white", color=f"C{i}")
                panels[layer].axvline(predicted, color=f"C{i}", ls="--", label=f"$c = {ratio:g}$")
    if figure is not None:
        for layer, axes in panels.items():
            axes.plot([], [], "o", ms=4, mfc="white", color="0.3", label="stay in training")
            axes.plot([], [], lw=1, color="0.3", label="stable")
            axes.plot([], [], ls="--", color="0.3", label="threshold, N → ∞")
            axes.set(xlabel=f"flipped fraction of the {layer}", ylabel="share of networks")
            axes.legend(fontsize=8)
        print(plotting.save(figure, path))
    return results


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main(sys.argv[1] if len(sys.argv) > 1 else "curl_threshold.png")
