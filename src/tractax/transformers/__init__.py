"""Attention and in-context learning: transformers of one layer whose training is solved."""

from ._aligned_attention import AlignedAttention as AlignedAttention
from ._aligned_attention import aligned_attention as aligned_attention
from ._attention_plateaus import plateau_losses as plateau_losses
from ._attention_plateaus import plateau_map as plateau_map
from ._drop_time import drop_time as drop_time
from ._in_context_regression import InContextRegression as InContextRegression
from ._initialise import balanced_attention as balanced_attention
from ._initialise import gaussian_attention as gaussian_attention
from ._initialise import gaussian_separate_attention as gaussian_separate_attention
from ._isotropic_attention import IsotropicAttention as IsotropicAttention
from ._linear_attention import AbstractLinearAttention as AbstractLinearAttention
from ._linear_attention import LinearAttention as LinearAttention
from ._linear_attention import SeparateAttention as SeparateAttention
from ._linear_attention_flow import LinearAttentionFlow as LinearAttentionFlow
from ._linear_attention_flow import MergedHeads as MergedHeads
from ._random_covariance import random_covariance_limit as random_covariance_limit
from ._separate_attention_flow import SeparateAttentionFlow as SeparateAttentionFlow
from ._separate_attention_flow import SeparateHeads as SeparateHeads
