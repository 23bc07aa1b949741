"""How many samples does online SGD need to find a direction? (Ben Arous, Gheissari, Jagannath 2021, 2003.10409.)

Student and teacher share one Hermite order k, their information exponent. From an overlap of d^(-1/2), the size that a
random start has, the search takes d samples for k = 1, d ln d for k = 2 and d^(k-1) for k ≥ 3, at the largest learning
rate that the noise of the steps permits. Simulated overlaps are drawn over their limit for many inputs.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

import tractax as tx
from tractax.teacher_student import (
    HermiteLink,
    OnlineSingleIndex,
    SingleIndexTask,
    SphericalSGD,
    sample_exponent,
    single_indices,
)

LAWS = {1: "d", 2: "d ln d", 3: "d²"}
RATES = {1: 0.5, 2: 0.1, 3: 0.03}


def case(order: int, size: int):
    """A student that starts as well as a random one, and the learning rate; for k ≥ 3 it falls with the size."""
    link = HermiteLink([1.0], orders=(order,))
    student, teacher = single_indices(size**-0.5, size=size, student=link, teacher=link, key=jax.random.key(size))
    rate = RATES[order] * size ** -(max(order - 2, 0) / 2)
    return student, SingleIndexTask(teacher), SphericalSGD(rate, size)


def horizon(order: int, size: int) -> float:
    """Steps over inputs, some times what the search should take."""
    return {1: 6.0, 2: 12.0 * np.log(size), 3: 20.0 * size}[order]


def overlaps(order: int, size: int, draws: int) -> tuple[jax.Array, jax.Array]:
    """Recorded times, and the overlap of every run, shape (times, draws)."""
    student, task, rule = case(order, size)
    ts = jnp.linspace(0.0, horizon(order, size), 301)

    def run(key):
        trained = tx.train(student, task, rule, ts, observe=task.overlap, key=key)
        return trained.ts, trained.observed

    times, found = tx.ensemble(run, jax.random.split(jax.random.key(order), draws), method="map")
    return times[0], found.T


def main(path: str | None = None, *, quick: bool = False) -> dict[int, np.ndarray]:
    """Returns the median number of samples to an overlap of 1/2 for each order and size; draws it if a path is given."""
    sizes, draws = ((12, 16), 4) if quick else ((12, 16, 24, 32, 48), 24)
    shown = sizes[-1]
    figure = None
    if path is not None:
        from tractax import plotting

        figure = plotting.new_figure()
        left, right = figure.subplots(1, 2)
    results = {}
    for i, order in enumerate((1, 2) if quick else (1, 2, 3)):
        samples = []
        for size in sizes:
            ts, found = overlaps(order, size, draws)
            # Even links cannot tell a direction from its opposite. A run that does not arrive takes for ever.
            arrived = (np.abs(found) if order % 2 == 0 else found) >= 0.5
            reached = np.where(np.any(arrived, axis=0), ts[np.argmax(arrived, axis=0)], np.inf)
            samples.append(size * np.median(reached))
            if figure is not None and size == shown:
                limit = OnlineSingleIndex.from_model(*case(order, size), t1=ts[-1])
                left.semilogx(ts[1:] * size, found[1:, :4], color=f"C{i}", lw=0.5)
                theory = jax.vmap(limit.evaluate)(ts[1:]).overlap
                left.semilogx(ts[1:] * size, theory, color=f"C{i}", ls="--", label=f"$k = {order}$")
        results[order] = np.asarray(samples)
        slope = np.polyfit(np.log(sizes), np.log(samples), 1)[0]
        counts = ", ".join(f"{count:.0f}" for count in samples)
        print(f"k = {order}: {counts} samples, growing as d^{slope:.2f}; for large d, {LAWS[order]}")
        if figure is not None:
            d = np.asarray(sizes, dtype=float)
            law = d ** sample_exponent(order) * (np.log(d) if order == 2 else 1.0)
            scale = np.exp(np.mean(np.log(samples / law)))
            right.loglog(d, scale * law, color=f"C{i}", label=f"$k = {order}$: {LAWS[order]}")
            right.loglog(d, samples, "o", color=f"C{i}", mfc="white")
    if figure is not None:
        left.set(xlabel="samples", ylabel="overlap", title=f"Runs and their limit (dashed), $d = {shown}$")
        right.set(xlabel="dimension $d$", ylabel="samples to an overlap of 1/2", title="The cost of a search")
        for axes in (left, right):
            axes.legend(fontsize=8)
        print(plotting.save(figure, path))
    return results


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main(sys.argv[1] if len(sys.argv) > 1 else "information_exponents.png")
