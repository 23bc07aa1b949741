"""Descent of two players: the bilinear game exactly, and the drift from the flow of another game."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...analysis import Scaling, compare, scaling
from ...core import Kind
from ...rules import AbstractGame, BilinearDescent, BilinearGame, GameDescent, GameFlow, Players
from ...training import train
from .._system import AbstractSystem, Citation, Exponent, Tolerance
from ._small_cases import flat, tight

_CITATION = Citation("Rosca, Wu, Dherin, Barrett", 2021, "2105.13922")
_TIME, _RATES = 2.0, (0.1, 0.05, 0.025, 0.0125)


class BilinearGameSystem(AbstractSystem):
    """Players of two and three numbers, who learn at different rates."""

    name: ClassVar[str] = "bilinear_game"
    family: ClassVar[str] = "rules"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "two players of a bilinear game, by steps at once or in turns, and their flows"
    citation: ClassVar[Citation] = _CITATION
    claim: ClassVar[Tolerance] = Tolerance(1e-8)

    def measure(self) -> Float[Array, ""]:
        """Steps and flows of second order, at once and in turns."""
        game = BilinearGame(jnp.asarray([[1.0, -0.4, 0.2], [0.3, 0.9, -0.5]]))
        players = Players(jnp.asarray([0.6, -0.2]), jnp.asarray([0.3, 1.0, -0.7]))
        h, rates, errors = 0.3, (1.3, 0.6), []
        for alternating in (False, True):
            for rule in (GameDescent(h, rates, alternating=alternating), GameFlow(h, rates, alternating=alternating)):
                solution = BilinearDescent.from_model(players, game, rule)
                run = train(players, game, rule, h * jnp.arange(31.0), observe=solution.reduce, **tight(rule))
                errors.append(compare(solution, run).worst)
        return jnp.max(jnp.stack(errors))

    def draw(self, figure: Any) -> None:
        """Orbits of two numbers: steps at once and in turns, on the curves that theory draws through them."""
        game, players = BilinearGame(jnp.eye(1)), Players(jnp.asarray([1.0]), jnp.asarray([0.0]))
        h, last = 0.3, 32
        fine, steps = h * jnp.linspace(0.0, last, 641), h * jnp.arange(last + 1.0)
        for axes, alternating in zip(figure.subplots(1, 2), (False, True), strict=True):
            rule = GameDescent(h, alternating=alternating)
            curves = [
                (rule, "C3", "-", "exact, through the steps"),
                (GameFlow(h, alternating=alternating), "C0", "--", "flow of order 2"),
                (GameFlow(h, order=1), "0.6", ":", "flow of order 1"),
            ]
            for each, colour, style, label in curves:
                orbit = jax.vmap(BilinearDescent.from_model(players, game, each).evaluate)(fine)
                axes.plot(orbit.first[:, 0], orbit.second[:, 0], style, color=colour, lw=1.4, label=label)
            run = train(players, game, rule, steps, observe=lambda model: model).observed
            axes.plot(run.first[:, 0], run.second[:, 0], "o", color="k", mfc="white", ms=4, label="steps")
            axes.set(xlabel="first player $x$", title="in turns" if alternating else "at once", aspect="equal")
        figure.axes[0].set_ylabel("second player $y$")
        figure.axes[1].legend(fontsize=8, loc="center")


class TwoPlayerGamesSystem(AbstractSystem):
    """A game with curved losses that have nothing to do with each other."""

    name: ClassVar[str] = "two_player_games"
    family: ClassVar[str] = "rules"
    kind: ClassVar[Kind] = "asymptotic"
    summary: ClassVar[str] = "steps of two players drift from their flow, less from the modified one"
    citation: ClassVar[Citation] = _CITATION
    claim: ClassVar[Exponent] = Exponent(2.0, "exponent in the learning rate, in turns, flow of order 2")

    def drift(self, rate: Any, alternating: bool, order: int, answered: bool | None = None) -> Float[Array, ""]:
        """The distance of steps from a flow at a fixed time; `answered` if the flow believes in other turns."""
        answered = alternating if answered is None else answered
        rules = GameDescent(rate, alternating=alternating), GameFlow(rate, alternating=answered, order=order)
        start = Players(jnp.asarray([0.5, -0.3]), jnp.asarray([0.8]))
        ends = [train(start, _Curved(), rule, [_TIME], observe=flat, **tight(rule)).observed[0] for rule in rules]
        return jnp.linalg.norm(ends[0] - ends[1])

    def measure(self) -> Scaling:
        """The rate at which the drift falls with the learning rate."""
        return scaling(lambda rate: self.drift(rate, True, 2), _RATES, correction=1.0)

    def draw(self, figure: Any) -> None:
        """The drift against the learning rate, at once and in turns."""
        rates = jnp.asarray(_RATES)
        for axes, alternating in zip(figure.subplots(1, 2, sharey=True), (False, True), strict=True):
            cases = [
                ("order 1", 1, alternating, 1, "C0", "o"),
                ("order 2 of the other turns", 2, not alternating, 1, "C1", "s"),
                ("order 2", 2, alternating, 2, "C3", "o"),
            ]
            for label, order, answered, power, colour, marker in cases:
                drifts = jnp.stack([self.drift(rate, alternating, order, answered) for rate in _RATES])
                axes.loglog(rates, drifts[-1] * (rates / rates[-1]) ** power, color=colour, lw=1.2)
                axes.loglog(rates, drifts, marker, color=colour, mfc="white", label=f"{label}, $h^{power}$")
            axes.set(xlabel="learning rate $h$", title="in turns" if alternating else "at once")
            axes.set_xticks(_RATES, [f"{rate:g}" for rate in _RATES])
            axes.minorticks_off()
            axes.legend(fontsize=8)
        figure.axes[0].set_ylabel(f"distance from the flow at $t = {_TIME:g}$")


class _Curved(AbstractGame):
    """Players of two numbers and of one."""

    def losses(self, model: Players) -> tuple[Float[Array, ""], Float[Array, ""]]:
        (x, y), (z,) = model.first, model.second
        return x**4 / 4 + x * y * z + jnp.cos(y) - 0.3 * x, z**2 / 2 - x * y * z + z**4 / 20
