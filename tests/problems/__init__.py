"""The bank of exactly solved problems; `test_problems.py` runs the common checks on each.

A file per theory lists its problems in `PROBLEMS`; a new theory adds its file here.
"""

from . import (
    balanced_end_to_end,
    conservation_laws,
    coupled_learners,
    curl_descent,
    deep_modes,
    diagonal_network,
    lambda_balanced_riccati,
    linear_regression,
    linear_self_attention,
    logistic_regression,
    opposing_signals,
    rank_one_tensor,
    separate_kq_attention,
    transformer_stability,
    two_layer_modes,
    two_scale_regression,
)
from ._problem import Problem as Problem

PROBLEMS: tuple[Problem, ...] = (
    *balanced_end_to_end.PROBLEMS,
    *conservation_laws.PROBLEMS,
    *coupled_learners.PROBLEMS,
    *curl_descent.PROBLEMS,
    *deep_modes.PROBLEMS,
    *diagonal_network.PROBLEMS,
    *lambda_balanced_riccati.PROBLEMS,
    *linear_regression.PROBLEMS,
    *logistic_regression.PROBLEMS,
    *linear_self_attention.PROBLEMS,
    *opposing_signals.PROBLEMS,
    *rank_one_tensor.PROBLEMS,
    *separate_kq_attention.PROBLEMS,
    *transformer_stability.PROBLEMS,
    *two_layer_modes.PROBLEMS,
    *two_scale_regression.PROBLEMS,
)
