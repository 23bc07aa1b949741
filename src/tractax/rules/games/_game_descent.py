r"""Gradient descent of two players, simultaneous or in turns, and the flow that it follows.

Set-up: players $x, y$ with losses $E_1(x, y)$ and $E_2(x, y)$, velocities
$F = (-a\,\partial_xE_1, -b\,\partial_yE_2)$ and steps of length $h$.
Simultaneous steps lie up to $O(h^3)$ each on the flow of

$$F - \tfrac h2\,F'F.$$

Where the second player answers the step that the first has just taken, $h\,(\partial_xF_2)F_1$ is added to its velocity.
The field is the gradient of nothing, even in a zero-sum game: its cross terms turn the players about each other, outwards
for simultaneous steps.

Assumes losses that are smooth where training passes. Time: a step, of both players, takes the flow time $h$.

Source: Rosca, Wu, Dherin, Barrett 2021 (arXiv 2105.13922), with one clock for both players.
"""

from typing import Any

import diffrax
import equinox as eqx
import jax
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ...core import AbstractFlowRule, AbstractStepRule, Objective, check_positive
from ..descent._modified_flow import check_order
from ..descent._weight_decay import check_decay
from ._game import AbstractGame, Players


class GameDescent(AbstractStepRule[None]):
    r"""$x \leftarrow x - ha\,\partial_xE_1$, $y \leftarrow y - hb\,\partial_yE_2$, of two players in an `AbstractGame`.

    **Arguments:**

    - `learning_rate`: $h > 0$; may be an array under `vmap`.
    - `rates`: $(a, b)$, relative learning rates of the players, not negative.
    - `alternating`: whether the second player sees the first one's step of the same time; otherwise both move at once.
    - `weight_decay`: $\gamma \ge 0$, the coefficient of a penalty $\tfrac\gamma2\lVert x\rVert^2$ on $E_1$ and of
      $\tfrac\gamma2\lVert y\rVert^2$ on $E_2$.

    **Raises:**

    `ValueError` for a learning rate that is not positive, negative rates or a negative decay.
    """

    time_per_step: Float[Array, ""]
    rates: tuple[Float[Array, ""], Float[Array, ""]]
    weight_decay: Float[Array, ""]
    alternating: bool = eqx.field(static=True)

    def __init__(
        self,
        learning_rate: ArrayLike,
        rates: PyTree = (1.0, 1.0),
        *,
        alternating: bool = False,
        weight_decay: ArrayLike = 0.0,
    ):
        self.time_per_step = check_positive("learning_rate", learning_rate, scalar=True)
        self.rates = _check_rates(rates)
        self.weight_decay = check_decay(weight_decay)
        self.alternating = alternating

    @property
    def learning_rate(self) -> Float[Array, ""]:
        """$h$."""
        return self.time_per_step

    @property
    def random(self) -> bool:
        """No."""
        return False

    def init(self, params: PyTree) -> None:
        """Nothing to remember."""
        _check_players(params)

    def step(self, params: PyTree, state: None, objective: Objective, *, key: PRNGKeyArray | None) -> tuple[PyTree, None]:
        """One step of each player."""
        del key
        objective = objective.penalised(self.weight_decay)
        first, second = params.first, params.second
        moved = _moved(first, _first_velocity(objective, first, second, self.rates[0]), self.time_per_step)
        seen = moved if self.alternating else first
        answer = _moved(second, _second_velocity(objective, seen, second, self.rates[1]), self.time_per_step)
        return eqx.tree_at(_both, params, (moved, answer)), state


class GameFlow(AbstractFlowRule[PyTree]):
    r"""The flow that `GameDescent` follows up to $O(h^p)$ at a fixed time, for $p$ of 1 or 2.

    Compare at the times $t = hk$. Order 1 is the plain flow $F$ of both players.

    **Arguments:**

    - `learning_rate`, `rates`, `alternating`, `weight_decay`: as for `GameDescent`.
    - `order`: $p$, 1 or 2.

    **Raises:**

    `ValueError` for a learning rate that is not positive, negative rates, another order, or a negative decay.
    """

    learning_rate: Float[Array, ""]
    rates: tuple[Float[Array, ""], Float[Array, ""]]
    weight_decay: Float[Array, ""]
    alternating: bool = eqx.field(static=True)
    order: int = eqx.field(static=True)

    def __init__(
        self,
        learning_rate: ArrayLike,
        rates: PyTree = (1.0, 1.0),
        *,
        alternating: bool = False,
        order: PyTree = 2,
        weight_decay: ArrayLike = 0.0,
    ):
        self.learning_rate = check_positive("learning_rate", learning_rate, scalar=True)
        self.rates = _check_rates(rates)
        self.weight_decay = check_decay(weight_decay)
        self.alternating = alternating
        self.order = check_order(order, 2)

    def init(self, params: PyTree) -> PyTree:
        """The state is the parameters of both."""
        _check_players(params)
        return params

    def params(self, state: PyTree) -> PyTree:
        """The state is the parameters of both."""
        return state

    def vector_field(self, t: Any, params: PyTree, objective: Objective) -> PyTree:
        """The velocity of both players."""
        del t
        objective = objective.penalised(self.weight_decay)

        def first(x: PyTree, y: PyTree) -> PyTree:
            return _first_velocity(objective, x, y, self.rates[0])

        def second(x: PyTree, y: PyTree) -> PyTree:
            return _second_velocity(objective, x, y, self.rates[1])

        x, y = params.first, params.second
        if self.order == 1:
            return eqx.tree_at(_both, params, (first(x, y), second(x, y)))
        f, g = first(x, y), second(x, y)
        bend_first = jax.jvp(first, (x, y), (f, g))[1]
        # -½ ∂_xF₂ F₁, and +½ where the second player answers.
        seen = jax.tree.map(lambda v: -v, f) if self.alternating else f
        bend_second = jax.jvp(second, (x, y), (seen, g))[1]
        half = -self.learning_rate / 2
        return eqx.tree_at(_both, params, (_moved(f, bend_first, half), _moved(g, bend_second, half)))

    def terms(self, state: PyTree, t0: Any, t1: Any, *, key: PRNGKeyArray | None) -> diffrax.ODETerm:
        """One `diffrax.ODETerm`."""
        del state, t0, t1, key
        return diffrax.ODETerm(self.vector_field)


def _first_velocity(objective: Objective, x: PyTree, y: PyTree, rate: Array) -> PyTree:
    return _scaled(jax.grad(lambda x: _losses(objective, x, y)[0])(x), rate)


def _second_velocity(objective: Objective, x: PyTree, y: PyTree, rate: Array) -> PyTree:
    return _scaled(jax.grad(lambda y: _losses(objective, x, y)[1])(y), rate)


def _losses(objective: Objective, x: PyTree, y: PyTree) -> tuple[Array, Array]:
    game = objective.task
    if not isinstance(game, AbstractGame):
        raise ValueError(f"`task` must be a game (tx.rules.AbstractGame); got {type(game).__name__}.")
    first, second = game.losses(eqx.combine(Players(x, y), objective.static))
    return objective.with_penalty(first, x), objective.with_penalty(second, y)


def _scaled(gradient: PyTree, rate: Array) -> PyTree:
    return jax.tree.map(lambda g: -rate.astype(g.dtype) * g, gradient)


def _moved(start: PyTree, velocity: PyTree, time: Array) -> PyTree:
    return jax.tree.map(lambda w, v: w + time.astype(w.dtype) * v, start, velocity)


def _both(players: Players) -> tuple[PyTree, PyTree]:
    return players.first, players.second


def _check_players(params: PyTree) -> None:
    if not isinstance(params, Players):
        raise ValueError(f"`model` must be a pair tx.rules.Players(first, second); got {type(params).__name__}.")


def _check_rates(rates: PyTree) -> tuple[Array, Array]:
    if not isinstance(rates, list | tuple) or len(rates) != 2:
        raise ValueError(f"`rates` must be two numbers, one for each player; got {rates!r}.")
    first, second = (check_positive("rates", rate, zero=True, scalar=True) for rate in rates)
    return first, second
