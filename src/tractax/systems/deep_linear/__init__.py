"""Deep linear networks: one file per theory, in the order of the documentation."""

from ._balanced_end_to_end import BalancedEndToEndSystem
from ._conservation_laws import ConservationDriftSystem, ConservationLawsSystem
from ._deep_modes import DeepModesSystem
from ._diagonal_network import DiagonalNetworkSystem
from ._diagonal_path import DiagonalPathSystem
from ._dynamical_isometry import GaussianSpectrumSystem, OrthogonalIsometrySystem
from ._high_dim_regression import HighDimRegressionSystem
from ._init_rank_alignment import InitRankAlignmentSystem
from ._lambda_balanced_riccati import LambdaBalancedRiccatiSystem
from ._linear_regression import LinearRegressionSystem
from ._opposing_signals import EdgeOfStabilitySystem, OpposingSignalsSystem
from ._perturbation_learning import PerturbationLearningSystem
from ._saddle_to_saddle import SaddleToSaddleSystem
from ._sgd_stability import SGDStabilitySystem
from ._two_layer_modes import TwoLayerModesSystem

SYSTEMS = (
    TwoLayerModesSystem(),
    DeepModesSystem(),
    OrthogonalIsometrySystem(),
    GaussianSpectrumSystem(),
    LambdaBalancedRiccatiSystem(),
    BalancedEndToEndSystem(),
    LinearRegressionSystem(),
    HighDimRegressionSystem(),
    InitRankAlignmentSystem(),
    SaddleToSaddleSystem(),
    DiagonalNetworkSystem(),
    DiagonalPathSystem(),
    SGDStabilitySystem(),
    OpposingSignalsSystem(),
    EdgeOfStabilitySystem(),
    ConservationLawsSystem(),
    ConservationDriftSystem(),
    PerturbationLearningSystem(),
)
