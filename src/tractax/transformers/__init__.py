"""Attention and in-context learning: transformers of one layer whose training is solved."""

from ._drop_time import drop_time as drop_time
from ._in_context_regression import InContextRegression as InContextRegression
from ._initialise import balanced_attention as balanced_attention
from ._initialise import gaussian_attention as gaussian_attention
from ._isotropic_attention import IsotropicAttention as IsotropicAttention
from ._linear_attention import AbstractLinearAttention as AbstractLinearAttention
from ._linear_attention import LinearAttention as LinearAttention
from ._linear_attention import SeparateAttention as SeparateAttention
from ._linear_attention_flow import LinearAttentionFlow as LinearAttentionFlow
from ._linear_attention_flow import MergedHeads as MergedHeads
from ._random_covariance import random_covariance_limit as random_covariance_limit
