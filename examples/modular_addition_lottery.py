"""The lottery of modular addition: which frequency each neuron will have, from its initial weights (arXiv 2602.16849).

A two-layer network learns to add modulo 23 by cross-entropy, from small random weights until every pair is right. At
first each neuron holds all frequencies, at the end mostly one. Theory gives, for every frequency of every neuron, the
time at which it would diverge on small outputs (He, Wang, Chen and Yang 2026). The first of them is the predicted
winner (circles), which need not be the largest at the start. Run it as
time at which it would diverge on small outputs (He, Wang, Chen and Yang 2026). The first of them is the predicted winner
(circles), which need not be the largest at the start.
Run it as

    python examples/modular_addition_lottery.py [lottery.png]
"""

import argparse

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

import tractax as tx
from tractax import plotting
from tractax.analysis import frequency_power, inverse_participation_ratio
from tractax.two_layer import ModularAddition, ModularNetwork, PhaseLocking, gaussian_modular_network


def spectra(model: ModularNetwork) -> jax.Array:
    """The power of each frequency in the embedding of each neuron, as a share of the neuron's largest."""
    power = frequency_power(model.embedding)
    return power / jnp.max(power, axis=1)[:, None]


def sharpness(model: ModularNetwork) -> jax.Array:
    """How close the neurons are to a single frequency, on average."""
    return jnp.mean(inverse_participation_ratio(model.embedding))


def main(path: str | None = None, *, quick: bool = False) -> float:
    """Trains the network, and returns the fraction of neurons that end with the predicted frequency."""
    p, neurons = (11, 12) if quick else (23, 48)
    model = gaussian_modular_network(p, neurons, scale=0.02, key=jax.random.key(1))
    solution = PhaseLocking.from_model(model, ModularAddition(p, "correlation"))
    times = np.asarray(solution.blow_up_times)
    winners = np.asarray(solution.winners)

    task = ModularAddition(p)
    first, last = times.min(), times.min(axis=1).max()
    ts = np.append(np.asarray([0.01, 0.9, 1.2]) * first, 1.5 * last)
    run = tx.train(
        model,
        task,
        tx.GradientFlow(),
        ts,
        observe=(spectra, sharpness, task.accuracy, task.loss),
        solver=diffrax.Tsit5(),
        stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-9),
    )
    shares, ratios, accuracies, losses = (np.asarray(x) for x in run.observed)
    found = 1 + np.argmax(shares, axis=2)
    hits = np.mean(found == winners[None, :], axis=1)
    print(f"first divergence predicted at t = {first:.0f}, that of the last neuron at {last:.0f}")
    for t, hit, ratio, accuracy, loss in zip(ts, hits, ratios, accuracies, losses, strict=True):
        print(
            f"t = {t:7.0f}: loss {loss:.4f}, accuracy {accuracy:.3f}, participation ratio {ratio:.2f}, "
            f"{hit:.0%} of the neurons led by their predicted winner"
        )

    figure = plotting.new_figure(10.0, 6.0)
    order = np.lexsort((times.min(axis=1), winners))
    panels = figure.subplots(1, len(ts), sharey=True)
    for panel, t, share, accuracy in zip(panels, ts, shares, accuracies, strict=True):
        image = panel.imshow(share[order], aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="none")
        panel.plot(winners[order] - 1, np.arange(neurons), "o", color="C3", mfc="none", ms=5)
        panel.set(title=f"$t = {t:.0f}$\naccuracy {accuracy:.2f}", xlabel="frequency $k$")
        panel.set_xticks(range(0, shares.shape[2], 2), range(1, shares.shape[2] + 1, 2))
    panels[0].set_ylabel("neuron, ordered by predicted winner (circle)")
    figure.colorbar(image, ax=panels, label="power, as a share of the neuron's largest", shrink=0.6)
    if path is not None:
        print(plotting.save(figure, path))
    return float(hits[-1])


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("path", nargs="?", default="modular_addition_lottery.png")
    main(parser.parse_args().path)
