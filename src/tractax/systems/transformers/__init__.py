"""Attention and in-context learning: one file per theory, in the order of the documentation."""

from ._binary_markov import BinaryMarkovSystem
from ._linear_self_attention import LinearSelfAttentionSystem
from ._merged_linear_attention import MergedLinearAttentionSystem
from ._scan_and_snap import ScanAndSnapSystem
from ._scan_and_snap_law import ScanAndSnapLawSystem
from ._separate_kq_attention import SeparateKQAttentionSystem
from ._two_token_attention import TwoTokenAttentionSystem

SYSTEMS = (
    LinearSelfAttentionSystem(),
    MergedLinearAttentionSystem(),
    SeparateKQAttentionSystem(),
    ScanAndSnapSystem(),
    ScanAndSnapLawSystem(),
    TwoTokenAttentionSystem(),
    BinaryMarkovSystem(),
)
