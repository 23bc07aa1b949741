"""The bank of exactly solved problems; `test_problems.py` runs the common checks on each.

A file per theory lists its problems in `PROBLEMS`; a new theory adds its file here.
"""

from . import diagonal_network, two_layer_modes
from ._problem import Problem as Problem

PROBLEMS: tuple[Problem, ...] = (*two_layer_modes.PROBLEMS, *diagonal_network.PROBLEMS)
