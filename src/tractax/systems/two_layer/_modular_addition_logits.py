"""Modular addition: what phase-locked networks answer, with squares and with rectifiers."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...analysis import Scaling, scaling
from ...core import Kind
from ...two_layer import (
    gromov_logits,
    gromov_network,
    phase_locked_logits,
    phase_locked_network,
    quadratic_logits,
    relu_logits,
)
from .._system import AbstractSystem, Citation, Exponent, Tolerance

_CITATION = Citation("He, Wang, Chen, Yang", 2026, "2602.16849")


class ModularAdditionLogitsSystem(AbstractSystem):
    """Squares modulo 11, with one embedding and with two."""

    name: ClassVar[str] = "modular_addition_logits"
    family: ClassVar[str] = "two_layer"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "the answers of phase-locked quadratic networks, with two flaws, and of Gromov's, without"
    citation: ClassVar[Citation] = _CITATION
    claim: ClassVar[Tolerance] = Tolerance(1e-12)

    def measure(self) -> Float[Array, ""]:
        """The largest relative error of any score: equal and unequal frequencies, three and more phases."""
        sizes = jnp.asarray([1.0, 0.3, 0.0, 0.7, 1.4])
        locked = [phase_locked_network(11, neurons, readout=b, phase=0.4) for neurons in (3, 5, 6) for b in (1.0, sizes)]
        errors = [_distance(model.logits(), phase_locked_logits(model)) for model in locked]
        grids = ((3, 3), (4, 5))
        errors += [_distance(gromov_network(11, *grid).logits(), gromov_logits(11, *grid)) for grid in grids]
        return jnp.max(jnp.stack(errors))

    def draw(self, figure: Any) -> None:
        """The scores of all answers to two pairs."""
        axes = figure.subplots(1, 2, sharey=True)
        answers = np.arange(11)
        for ax, (x, y) in zip(axes, ((2, 6), (4, 4)), strict=True):
            for model, predicted, colour, label in (
                (phase_locked_network(11, 9), quadratic_logits(11, 9.0), "C0", "shared embedding"),
                (gromov_network(11, 3, 3), gromov_logits(11, 3, 3), "C1", "separate embeddings (Gromov)"),
            ):
                ax.plot(answers, predicted[x, y], color=colour, label=f"{label}, theory")
                ax.plot(answers, model.logits()[x, y], "o", color=colour, mfc="white", ms=5, label=f"{label}, network")
            ax.axvline((x + y) % 11, color="0.6", ls=":", lw=1)
            ax.set(xlabel="answer $j$", title=f"$x = {x}$, $y = {y}$ modulo 11")
            ax.set_xticks(answers)
        axes[0].set_ylabel("score $f_j(x, y)$, nine neurons a frequency")
        axes[1].legend(fontsize=8, loc="upper left")


class ModularAdditionReLUSystem(AbstractSystem):
    """Rectifiers modulo 11, more and more of them."""

    name: ClassVar[str] = "modular_addition_relu"
    family: ClassVar[str] = "two_layer"
    kind: ClassVar[Kind] = "asymptotic"
    summary: ClassVar[str] = "the answers of phase-locked rectifiers, in the limit of many"
    citation: ClassVar[Citation] = _CITATION
    claim: ClassVar[Exponent] = Exponent(-2.0, "exponent in the number of rectifiers of the error of the scores")

    def measure(self) -> Scaling:
        """Odd numbers of rectifiers of each frequency."""
        return scaling(_relu_error, (17, 33, 65, 129), correction=-2.0)

    def draw(self, figure: Any) -> None:
        """The scores of all answers to one pair, and the error against the number of rectifiers."""
        left, right = figure.subplots(1, 2)
        answers = np.arange(11)
        left.plot(answers, relu_logits(11, 1.0)[2, 6], color="0.3", label="many rectifiers, theory")
        for neurons, colour in ((3, "C3"), (5, "C0"), (9, "C2")):
            scores = phase_locked_network(11, neurons, activation=jax.nn.relu).logits()[2, 6] / neurons
            left.plot(answers, scores, "o", color=colour, mfc="white", ms=5, label=f"{neurons} a frequency")
        left.set(xlabel="answer $j$", ylabel="score per neuron of a frequency", title="$x = 2$, $y = 6$ modulo 11")
        left.set_xticks(answers)
        left.legend(fontsize=8, loc="upper left")
        for sizes, colour, label in (((5, 9, 17, 33, 65, 129), "C0", "odd"), ((6, 8, 16, 32, 64, 128), "C1", "even")):
            right.loglog(sizes, [_relu_error(n) for n in sizes], "o", color=colour, mfc="white", label=label)
        ends = np.asarray([5.0, 129.0])
        right.loglog(ends, 1.25 / ends**2, color="0.3", label="$\\propto N^{-2}$")
        right.set(xlabel="rectifiers $N$ of each frequency", ylabel="relative error of the scores", title="The limit")
        right.legend(fontsize=8)


def _relu_error(neurons: float) -> Float[Array, ""]:
    model = phase_locked_network(11, int(neurons), activation=jax.nn.relu)
    return _distance(model.logits(), relu_logits(11, neurons))


def _distance(found: Float[Array, "p p p"], predicted: Float[Array, "p p p"]) -> Float[Array, ""]:
    return jnp.max(jnp.abs(found - predicted)) / jnp.max(jnp.abs(predicted))
