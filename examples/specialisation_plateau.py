"""The plateau of soft committee machines and how it ends (Saad and Solla 1995, Phys. Rev. E 52, 4225).

Two hidden units learn from a teacher with two, online. At first both imitate both, and the error stays where it is: an
unstable fixed point of the overlaps, which is known in closed form. The difference between the units grows exponentially,
at a rate that is the largest eigenvalue there, until they specialise: a start that is ten times as symmetric prolongs
the plateau by ln(10) over this rate. Networks are simulated (markers), the limit of many inputs is theory (lines). Run
it as

    python examples/specialisation_plateau.py [plateau.png]
"""

import argparse
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import tractax as tx
from tractax import plotting
from tractax.teacher_student import (
    CommitteeTask,
    OnlineSGD,
    SoftCommitteeFlow,
    committees,
    symmetric_plateau,
)

RATE = 0.2
SPECIALISED = 0.3


def case(gap: float, size: int):
    """A student whose units prefer different units of the teacher by a small gap in the overlaps."""
    cross = 0.4 + gap / 2 * jnp.array([[1.0, -1.0], [-1.0, 1.0]])
    overlaps = cross @ cross.T + 0.02 * jnp.eye(2)
    student, teacher = committees(overlaps, cross, jnp.eye(2), size=size, key=jax.random.key(0))
    return student, CommitteeTask(teacher), OnlineSGD(RATE, size)


def escape_rate() -> float:
    """The largest eigenvalue of the flow at the plateau, over the learning rate, which is small there."""
    small = 1e-5
    student, task, _ = case(0.1, 4)
    solution = SoftCommitteeFlow.from_model(student, task, OnlineSGD(small, 4), t1=1.0)
    plateau, unravel = ravel_pytree(symmetric_plateau(2)[0])
    jacobian = jax.jacfwd(lambda x: ravel_pytree(solution.vector_field(jnp.zeros(()), unravel(x)))[0])(plateau)
    return float(np.max(np.linalg.eigvals(jacobian).real)) / small


def gap_of(overlaps) -> jax.Array:
    """How much more the first unit has learned of one unit of the teacher than of the other."""
    return overlaps.cross[:, 0, 0] - overlaps.cross[:, 0, 1]


def main(path: str | None = None, *, quick: bool = False) -> dict[float, tuple[float, float]]:
    """Trains a network from each gap, and compares it with its limit.

    **Arguments:**

    - `path`: where to save a figure; `None` for none.
    - `quick`: one short run of a small network.

    **Returns:**

    For each gap, the times (steps over inputs) at which the units have specialised: theory, simulation.
    """
    gaps, size, last = ((0.1,), 100, 150.0) if quick else ((0.1, 0.03, 0.01), 500, 400.0)
    ts = jnp.linspace(0.0, last, 401)
    overlaps, level = symmetric_plateau(2)
    rate = escape_rate()
    print(f"escape from the plateau at the rate {rate:.5f} times the learning rate")
    figure = plotting.new_figure()
    left, right = figure.subplots(1, 2)
    found = {}
    for i, gap in enumerate(gaps):
        student, task, rule = case(gap, size)
        solution = SoftCommitteeFlow.from_model(student, task, rule, t1=last)
        theory = jax.vmap(solution.evaluate)(ts)
        run = tx.train(student, task, rule, ts, observe=solution.reduce, key=jax.random.key(i))
        times = [tx.analysis.crossing_times(ts, gap_of(x)[:, None], SPECIALISED) for x in (theory, run.observed)]
        found[gap] = (float(times[0][0]), float(times[1][0]))
        print(f"gap {gap:g}: specialised at {found[gap][0]:.0f} in theory, {found[gap][1]:.0f} in simulation")
        if i == len(gaps) - 1:
            labels = [f"$R_{{{j}{n}}}$" for j in (1, 2) for n in (1, 2)]
            plotting.overlay(left, ts, theory.cross.reshape(-1, 4), run.observed.cross.reshape(-1, 4), labels)
            left.set(title=f"From a gap of {gap:g}, $N = {size}$")
        errors = [jax.vmap(solution.error_of)(x) for x in (theory, run.observed)]
        right.semilogy(ts, errors[0], color=f"C{i}", label=f"gap {gap:g}")
        right.semilogy(ts[6 * i :: 18], errors[1][6 * i :: 18], "o", color=f"C{i}", mfc="white", ms=4)
    for first, second in itertools.pairwise(gaps):
        theory, simulation = (found[second][j] - found[first][j] for j in (0, 1))
        eigenvalue = np.log(first / second) / (rate * RATE)
        print(f"from {first:g} to {second:g} the plateau lasts longer by {theory:.0f} in theory, {simulation:.0f} in")
        print(f"simulation, and ln({first / second:.3g})/({rate:.4f} x {RATE:g}) = {eigenvalue:.0f} by the eigenvalue")
    for axes, value in ((left, overlaps.cross[0, 0]), (right, level)):
        axes.axhline(float(value), color="0.5", ls="--", lw=1, zorder=0, label="plateau, small rates")
        axes.set(xlabel="steps / $N$")
        axes.legend(fontsize=8)
    left.set(ylabel="overlap with the teacher")
    right.set(ylabel="generalisation error", title="The closer to symmetry, the longer the plateau")
    if path is not None:
        print(plotting.save(figure, path))
    return found


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", default="specialisation_plateau.png")
    main(parser.parse_args().path)
