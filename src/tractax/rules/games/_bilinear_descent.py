r"""Two players on a bilinear game, by steps and by the flows that follow them.

Set-up: `BilinearGame`, of value $x^\top Ay$ with $A = USV^\top$, and learning rates $ha$ and $hb$. In the coordinates
$u = U^\top x/\sqrt a$, $v = V^\top y/\sqrt b$ every singular value $s$ is a plane of its own. With $k = hs\sqrt{ab}$,
a step is the linear map

$$e^{\alpha}\big(\cos\omega + \sin\omega\,G\big),\qquad
G = \frac1{\sqrt{1-c^2}}\begin{pmatrix}c&-1\\1&-c\end{pmatrix},\qquad G^2 = -1,$$

| | growth $\alpha$ | angle $\omega$ | skew $c$ |
|---|---|---|---|
| simultaneous steps | $\tfrac12\log(1+k^2)$ | $\arctan k$ | 0 |
| steps in turns, $k < 2$ | 0 | $2\arcsin(k/2)$ | $k/2$ |
| flow of order 1 | 0 | $k$ | 0 |
| flow of order 2, simultaneous | $k^2/2$ | $k$ | 0 |
| flow of order 2, in turns, $k < 2$ | 0 | $k\sqrt{1-k^2/4}$ | $k/2$ |

so that simultaneous steps spiral outwards, $\lVert z\rVert^2 \to (1+k^2)\lVert z\rVert^2$, and steps in turns stay on the
ellipse $u^2 + v^2 - k\,uv$ for ever. All of it is exact. Time: a step of both players takes $h$; between steps the map is
continued as a rotation.

Source: Rosca, Wu, Dherin, Barrett 2021 (arXiv 2105.13922); the continuation is derived here.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ...core import AbstractRule, AbstractSolution, AbstractTask, Assumption, Kind, enforce, require
from ..descent._weight_decay import refuse_decay
from ._game import BilinearGame, Players
from ._game_descent import GameDescent, GameFlow


class BilinearDescent(AbstractSolution[Players]):
    r"""The two players of a bilinear game, under simultaneous steps, steps in turns, or their flows.

    Build it with `from_model`. The state is `Players(x, y)`, with their strategies as arrays.

    **Attributes:**

    - `initial`: the players at time zero.
    - `left`, `right`: $U$ and $V$ as columns.
    - `scales`: $\sqrt a, \sqrt b$.
    - `growth`, `speed`: $\alpha$ and $\omega$ in a unit of time, one for each singular value.
    - `skew`: $c$.
    """

    initial: Players
    left: Float[Array, "m modes"]
    right: Float[Array, "n modes"]
    scales: tuple[Float[Array, ""], Float[Array, ""]]
    growth: Float[Array, " modes"]
    speed: Float[Array, " modes"]
    skew: Float[Array, " modes"]
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: PyTree, task: AbstractTask, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "BilinearDescent":
        """The course of the game.

        **Arguments:**

        - `model`: `Players` of two vectors that fit the matrix.
        - `task`: a `BilinearGame`.
        - `rule`: `GameDescent` or `GameFlow`, with positive rates.
        - `check`: whether to refuse steps in turns that are too long to stay on an ellipse; if not, the result is NaN
          there.

        **Raises:**

        `ValueError` for another model, task or rule, or steps that are too long.
        """
        game, rule = _check(model, task, rule)
        x, y = model.first, model.second
        u, s, vt = jnp.linalg.svd(game.matrix, full_matrices=False)
        a, b = (jnp.sqrt(rate).astype(s.dtype) for rate in rule.rates)
        h = rule.learning_rate.astype(s.dtype)
        k = h * s * a * b
        zero = jnp.zeros_like(k)
        skew = k / 2 if rule.alternating else zero
        if isinstance(rule, GameDescent):
            growth = zero if rule.alternating else jnp.log1p(k**2) / 2
            angle = 2 * jnp.arcsin(k / 2) if rule.alternating else jnp.arctan(k)
        else:
            skew = zero if rule.order == 1 else skew
            growth = zero if rule.order == 1 or rule.alternating else k**2 / 2
            angle = k * jnp.sqrt(1 - skew**2)
        solution = cls(Players(x, y), u, vt.T, (a, b), growth / h, angle / h, skew)
        return enforce(solution, cls.__name__, cls.assumptions(model, task, rule)) if check else solution

    @staticmethod
    def assumptions(model: PyTree, task: AbstractTask, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """What the theory takes for granted: steps in turns are shorter than the stability limit."""
        game, rule = _check(model, task, rule)
        if not rule.alternating or (isinstance(rule, GameFlow) and rule.order == 1):
            return ()
        a, b = (jnp.sqrt(rate) for rate in rule.rates)
        longest = rule.learning_rate * a * b * jnp.linalg.norm(game.matrix, ord=2)
        excess = jnp.where(longest < 2, 0.0, longest)
        return (Assumption("steps in turns with h s √(ab) < 2", excess, 0.0),)

    def state(self, t: Float[Array, ""]) -> Players:
        """Both players at time `t`."""
        t = t.astype(self.growth.dtype)
        grown, angle = jnp.exp(self.growth * t), self.speed * t
        change = self._apply(grown * jnp.cos(angle) - 1, grown * jnp.sin(angle), self.initial)
        return jax.tree.map(jnp.add, self.initial, change)

    def vector_field(self, t: Any, state: Players) -> Players:
        """The velocity of both players along the curve that the steps lie on."""
        del t
        return self._apply(self.growth, self.speed, state)

    def reduce(self, model: Players) -> Players:
        """The players themselves."""
        return Players(model.first, model.second)

    def invariant(self, state: Players) -> Float[Array, " modes"]:
        r"""$u^2 + v^2 - 2c\,uv$ of every mode: conserved in turns, and growing as $e^{2\alpha n}$ over $n$ steps."""
        u, v = self._modes(state)
        return u**2 + v**2 - 2 * self.skew * u * v

    def _modes(self, state: Players) -> tuple[Array, Array]:
        return self.left.T @ state.first / self.scales[0], self.right.T @ state.second / self.scales[1]

    def _apply(self, same: Array, turned: Array, players: Players) -> Players:
        """`same` + `turned` G on every mode, and nothing on what the matrix does not see."""
        u, v = self._modes(players)
        root = jnp.sqrt(1 - self.skew**2)
        du = same * u + turned * (self.skew * u - v) / root
        dv = same * v + turned * (u - self.skew * v) / root
        return Players(self.scales[0] * (self.left @ du), self.scales[1] * (self.right @ dv))


def _check(model: Any, task: Any, rule: Any) -> tuple[BilinearGame, GameDescent | GameFlow]:
    name = BilinearDescent.__name__
    if not isinstance(task, BilinearGame):
        raise ValueError(f"`task` must be a BilinearGame for {name}; got {type(task).__name__}.")
    if not isinstance(rule, GameDescent | GameFlow):
        raise ValueError(f"`rule` must be GameDescent or GameFlow for {name}; got {type(rule).__name__}.")
    shapes = [(size,) for size in task.matrix.shape]
    if not isinstance(model, Players) or not all(eqx.is_inexact_array(x) for x in (model.first, model.second)):
        raise ValueError(f"`model` must be Players of two vectors for {name}; got {type(model).__name__}.")
    given = [model.first.shape, model.second.shape]
    if given != shapes:
        raise ValueError(f"`model` must be Players of vectors of shapes {shapes}; got {given}.")
    rule = refuse_decay(rule, name)
    positive = (rule.rates[0] > 0) & (rule.rates[1] > 0)
    return task, require(rule, positive, f"`rule` must let both players learn for {name}; one of its rates is zero.")
