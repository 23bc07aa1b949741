"""Attention and in-context learning: one file per theory, in the order of the documentation."""

from ._binary_markov import BinaryMarkovSystem
from ._knowledge_extraction import KnowledgeExtractionSystem
from ._linear_self_attention import LinearSelfAttentionSystem
from ._massive_activations import MassiveActivationsSystem
from ._merged_linear_attention import MergedLinearAttentionSystem
from ._multi_task_heads import MultiTaskHeadsSystem
from ._rank_one_tensor import RankOneTensorSystem
from ._scan_and_snap import ScanAndSnapSystem
from ._scan_and_snap_law import ScanAndSnapLawSystem
from ._separate_kq_attention import SeparateKQAttentionSystem
from ._softmax_heads import SoftmaxHeadsSystem
from ._trajectory_geometry import TrajectoryGeometrySystem
from ._transformer_stability import TransformerStabilitySystem
from ._two_token_attention import TwoTokenAttentionSystem

SYSTEMS = (
    LinearSelfAttentionSystem(),
    MergedLinearAttentionSystem(),
    SeparateKQAttentionSystem(),
    RankOneTensorSystem(),
    ScanAndSnapSystem(),
    ScanAndSnapLawSystem(),
    TwoTokenAttentionSystem(),
    BinaryMarkovSystem(),
    SoftmaxHeadsSystem(),
    MultiTaskHeadsSystem(),
    KnowledgeExtractionSystem(),
    MassiveActivationsSystem(),
    TransformerStabilitySystem(),
    TrajectoryGeometrySystem(),
)
