"""One-pass SGD on least squares: in high dimension a single run follows a deterministic curve."""

from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike

from ...analysis import Scaling, scaling
from ...core import Kind
from ...plotting import overlay
from ...rules import GradientDescent
from ...teacher_student import GaussianRegression, LinearModel, OnePassLeastSquares, OnePassRecursion
from ...training import ensemble, train
from .._system import AbstractSystem, Citation, Exponent


class OnePassLeastSquaresSystem(AbstractSystem):
    """The risk of a linear model that sees every example once, inputs of unequal variance."""

    name: ClassVar[str] = "one_pass_least_squares"
    family: ClassVar[str] = "teacher_student"
    kind: ClassVar[Kind] = "asymptotic"
    summary: ClassVar[str] = "risk of one-pass SGD on least squares, its stability and where it ends"
    citation: ClassVar[Citation] = Citation("Paquette, Lee, Pedregosa, Paquette", 2021, "2102.04396")
    claim: ClassVar[Exponent] = Exponent(-1.0, "exponent in d of the error in the mean risk")

    def measure(self) -> Scaling:
        """At $t = 4$: the limit against the exact mean over all examples, in growing dimension."""

        @partial(jax.jit, static_argnums=0)
        def error(size: int):
            case = one_pass_case(size, 0.6)
            limit, exact = OnePassLeastSquares.from_model(*case), OnePassRecursion.from_model(*case)
            return jnp.abs(exact.evaluate(4.0).risk / limit.evaluate(4.0).risk - 1)

        return scaling(error, (20, 40, 80, 160), correction=-1.0)

    def draw(self, figure: Any) -> None:
        """Single runs at three learning rates, and the risk at which SGD ends."""
        import matplotlib

        left, right = figure.subplots(1, 2)
        ts = jnp.linspace(0.0, 12.0, 49)
        predicted, simulated = [], []
        fractions = (0.1, 0.5, 1.05)
        for fraction in fractions:
            case = one_pass_case(400, fraction)
            solution = OnePassLeastSquares.from_model(*case)
            predicted.append(jax.vmap(solution.evaluate)(ts).risk)
            simulated.append(train(*case, ts, observe=solution.reduce, key=jax.random.key(1)).observed.risk)
        labels = [f"$g = {fraction}\\,g^*$" for fraction in fractions]
        overlay(left, ts, jnp.stack(predicted, axis=1), jnp.stack(simulated, axis=1), labels)
        left.set(xlabel="steps / $d$", ylabel="risk", yscale="log", title="Single runs, $d = 400$")
        grid = jnp.linspace(0.01, 0.97, 97)
        right.plot(grid, jax.vmap(lambda x: final_risk(OnePassLeastSquares, 400, x))(grid), color="0.2", label="limit")
        few = jnp.linspace(0.1, 0.7, 7)
        for size, colour in zip((10, 100), matplotlib.colormaps["viridis"]([0.3, 0.75]), strict=True):
            exact = jax.vmap(lambda x, size=size: final_risk(OnePassRecursion, size, x))(grid)
            right.plot(grid, exact, color=colour, ls="--", label=f"exact, $d = {size}$")
            right.plot(few, late_risks(few, size), "o", color=colour, mfc="white", ms=5)
        right.plot([], [], "o", color="0.3", mfc="white", ms=5, label="simulation")
        right.axvline(1.0, color="0.7", lw=1)
        right.set(xlabel="learning rate $g/g^*$", ylabel="final risk", yscale="log", ylim=(0.04, 4.0))
        right.set(title="Where it ends")
        right.legend(fontsize=8, loc="upper left")


def one_pass_case(size: int, fraction: ArrayLike) -> tuple[LinearModel, GaussianRegression, GradientDescent]:
    """Inputs with variances between 0.1 and 1.9, a learning rate that is this fraction of the threshold."""
    variances = jnp.linspace(0.1, 1.9, 2 * size + 1)[1::2]
    task = GaussianRegression(jnp.full(size, size**-0.5), variances, noise_scale=0.3)
    rate = 2 * jnp.asarray(fraction) / size
    return LinearModel(jnp.zeros(size)), task, GradientDescent(rate, time_per_step=1 / size, batch_size=1)


def final_risk(theory: Any, size: int, fraction: ArrayLike) -> Any:
    """Where theory says that the risk ends."""
    return theory.from_model(*one_pass_case(size, fraction)).limit().risk


def late_risks(fractions: Any, size: int, runs: int = 100) -> Any:
    """The risk after a long time, averaged over runs and over times that are far apart."""
    ts = jnp.linspace(30.0, 60.0, 7)

    def one(member):
        fraction, key = member
        case = one_pass_case(size, fraction)
        return train(*case, ts, observe=case[1].loss, key=key).observed

    keys = jax.random.split(jax.random.key(0), fractions.size * runs)
    return ensemble(one, (jnp.repeat(fractions, runs), keys)).reshape(fractions.size, -1).mean(axis=1)
