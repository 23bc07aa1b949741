"""Velocities that are no gradient: flipped signs, and players with losses of their own."""

from ._bilinear_descent import BilinearDescent as BilinearDescent
from ._curl_descent import CurlDescent as CurlDescent
from ._game import AbstractGame as AbstractGame
from ._game import BilinearGame as BilinearGame
from ._game import Players as Players
from ._game_descent import GameDescent as GameDescent
from ._game_descent import GameFlow as GameFlow
