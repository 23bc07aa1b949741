import jax.numpy as jnp

from tractax.rules import BilinearDescent, BilinearGame, GameFlow, Players
from tractax.systems import Run

from ._problem import Problem


def _run(knob):
    """The knob is the learning rate. The second player has a direction that the matrix does not see."""
    dtype = knob.dtype
    game = BilinearGame(jnp.asarray([[1.0, -0.4, 0.2], [0.3, 0.9, -0.5]], dtype))
    players = Players(jnp.asarray([0.6, -0.2], dtype), jnp.asarray([0.3, 1.0, -0.7], dtype))
    rule = GameFlow(knob, (1.3, 0.6), alternating=True)
    solution = BilinearDescent.from_model(players, game, rule)
    return Run(players, game, rule, solution, jnp.linspace(0, 6.0, 21).astype(dtype))


# In turns only: at once, the players leave for infinity.
PROBLEMS = (Problem("bilinear_game/in_turns", _run, 0.4, late=None),)
