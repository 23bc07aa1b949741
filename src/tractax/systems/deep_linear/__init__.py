"""Deep linear networks: one file per theory, in the order of the documentation."""

from ._high_dim_regression import HighDimRegressionSystem
from ._init_rank_alignment import InitRankAlignmentSystem
from ._linear_regression import LinearRegressionSystem
from ._two_layer_modes import TwoLayerModesSystem

SYSTEMS = (TwoLayerModesSystem(), LinearRegressionSystem(), HighDimRegressionSystem(), InitRankAlignmentSystem())
