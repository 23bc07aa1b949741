"""Saxe, McClelland and Ganguli's learning curves (2013, arXiv 1312.6120): how two-layer linear networks learn modes.

A network that starts aligned with the task obeys the theory exactly. One that starts from small random weights obeys it
approximately: early on, the part of the weights along each mode grows as in an aligned network, which fixes the strength
to start the curve from; but the modes share hidden units, so they are not decoupled. Run it as

    python examples/saxe_learning_curves.py [curves.png]
"""

import argparse

import jax
import jax.numpy as jnp
from jax import Array

import tractax as tx
from tractax import plotting
from tractax.deep_linear import DeepLinear, LinearTask, TwoLayerModes, aligned, gaussian

SINGULAR_VALUES = (4.0, 2.5, 1.5)


def target() -> LinearTask:
    """A task with three modes."""
    return LinearTask(jnp.diag(jnp.array(SINGULAR_VALUES)))


def times() -> Array:
    """Until the weakest mode has been learned from weights of size 1e-4."""
    return jnp.linspace(0.0, 8.0, 161)


def mode_strengths(model: DeepLinear) -> Array:
    """How much of each mode a network has learned."""
    return jnp.diagonal(model.product)


def compare(model: DeepLinear, stand_in: DeepLinear) -> tuple[Array, Array, float]:
    """Theory for an aligned network, simulation of another one, and the worst error over the largest singular value."""
    task, ts = target(), times()
    solution = TwoLayerModes.from_model(stand_in, task)
    theory = jax.vmap(lambda t: solution.evaluate(t).strength)(ts)
    simulation = tx.train(model, task, tx.GradientFlow(), ts, observe=mode_strengths).observed
    return theory, simulation, float(jnp.max(jnp.abs(theory - simulation)) / SINGULAR_VALUES[0])


def growing_strengths(model: DeepLinear) -> Array:
    """What small weights grow from: for each mode, the squared length of (W1 v + W2ᵀ u)/2, a vector of hidden units."""
    first, second = model.weights
    return jnp.sum(((first + second.T) / 2) ** 2, axis=0)  # u and v are unit vectors: the task is diagonal


def random_start(scale: float, hidden: int, seed: int) -> tuple[Array, Array, float]:
    """A network that starts from random weights, against the aligned one that grows from the same strengths."""
    model = gaussian((3, hidden, 3), scale=scale, key=jax.random.key(seed))
    return compare(model, aligned(target(), (hidden,), strength=growing_strengths(model)))


def main(path: str | None = None, *, quick: bool = False) -> dict[str, float]:
    """Trains aligned and random networks, and compares each with the solution for aligned ones.

    **Arguments:**

    - `path`: where to save a figure; `None` for none.
    - `quick`: fewer random networks.

    **Returns:**

    The worst error of any mode's strength at any time, over the largest singular value: `aligned`; and for random
    weights, the largest of several networks: `random`, `smaller` (weights 100 times smaller) and `wider` (64 times as
    many hidden units, and weights 10 times smaller).
    """
    start = aligned(target(), (16,), strength=1e-3, key=jax.random.key(0))
    exact = compare(start, start)
    cases = {"random": (1e-2, 16), "smaller": (1e-4, 16), "wider": (1e-3, 1024)}
    runs = {name: [random_start(*case, seed) for seed in range(2 if quick else 6)] for name, case in cases.items()}
    errors = {"aligned": exact[2]} | {name: max(error for *_, error in some) for name, some in runs.items()}

    print("worst error of a mode's strength, relative to the largest singular value")
    print(f"  aligned weights:                            {errors['aligned']:.1e}")
    print(f"  random weights of size 1e-2, 16 units:      {errors['random']:.1e}")
    print(f"  random weights of size 1e-4, 16 units:      {errors['smaller']:.1e}")
    print(f"  random weights of size 1e-3, 1024 units:    {errors['wider']:.1e}")
    print("Aligned modes are decoupled, and the theory is exact. Random ones overlap in the hidden layer: the error does")
    print("not vanish with the size of the weights, but falls with width, as random directions become orthogonal.")
    if path is not None:
        figure = plotting.new_figure()
        panels = {"aligned weights": exact, "random weights": max(runs["random"], key=lambda run: run[2])}
        for axes, (title, (theory, simulation, _)) in zip(
            figure.subplots(1, 2, sharey=True), panels.items(), strict=True
        ):
            plotting.overlay(axes, times(), theory, simulation, [f"s = {s}" for s in SINGULAR_VALUES])
            axes.set(title=title, xlabel="time $t/\\tau$")
        figure.axes[0].set_ylabel("mode strength")
        print(f"saved {plotting.save(figure, path)}")
    return errors


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", help="where to save a figure")
    main(parser.parse_args().path)
