"""Attention and in-context learning: one file per theory, in the order of the documentation."""

from ._linear_self_attention import LinearSelfAttentionSystem
from ._massive_activations import MassiveActivationsSystem
from ._merged_linear_attention import MergedLinearAttentionSystem
from ._rank_one_tensor import RankOneTensorSystem
from ._separate_kq_attention import SeparateKQAttentionSystem
from ._trajectory_geometry import TrajectoryGeometrySystem
from ._transformer_stability import TransformerStabilitySystem

SYSTEMS = (
    LinearSelfAttentionSystem(),
    MergedLinearAttentionSystem(),
    SeparateKQAttentionSystem(),
    RankOneTensorSystem(),
    MassiveActivationsSystem(),
    TransformerStabilitySystem(),
    TrajectoryGeometrySystem(),
)
