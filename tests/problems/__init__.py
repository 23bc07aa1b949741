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
    modular_addition_modes,
    opposing_signals,
    orthogonal_relu,
    quadratic_descent,
    rank_one_tensor,
    scan_and_snap,
    separate_kq_attention,
    single_index,
    softmax_heads,
    symmetric_relu,
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
    *modular_addition_modes.PROBLEMS,
    *opposing_signals.PROBLEMS,
    *rank_one_tensor.PROBLEMS,
    *orthogonal_relu.PROBLEMS,
    *quadratic_descent.PROBLEMS,
    *scan_and_snap.PROBLEMS,
    *separate_kq_attention.PROBLEMS,
    *single_index.PROBLEMS,
    *softmax_heads.PROBLEMS,
    *symmetric_relu.PROBLEMS,
    *two_layer_modes.PROBLEMS,
    *two_scale_regression.PROBLEMS,
)
