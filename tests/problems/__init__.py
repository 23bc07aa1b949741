"""The bank of exactly solved problems; `test_problems.py` runs the common checks on each.

A file per theory lists its problems in `PROBLEMS`; a new theory adds its file here.
"""

from . import (
    balanced_end_to_end,
    conservation_laws,
    curl_descent,
    deep_modes,
    diagonal_network,
    lambda_balanced_riccati,
    linear_regression,
    opposing_signals,
    single_index,
    two_layer_modes,
)
from ._problem import Problem as Problem

PROBLEMS: tuple[Problem, ...] = (
    *balanced_end_to_end.PROBLEMS,
    *conservation_laws.PROBLEMS,
    *curl_descent.PROBLEMS,
    *deep_modes.PROBLEMS,
    *diagonal_network.PROBLEMS,
    *lambda_balanced_riccati.PROBLEMS,
    *linear_regression.PROBLEMS,
    *opposing_signals.PROBLEMS,
    *single_index.PROBLEMS,
    *two_layer_modes.PROBLEMS,
)
