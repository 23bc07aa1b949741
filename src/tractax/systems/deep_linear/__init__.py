"""Deep linear networks: one file per theory, in the order of the documentation."""

from ._lambda_balanced_riccati import LambdaBalancedRiccatiSystem
from ._two_layer_modes import TwoLayerModesSystem

SYSTEMS = (TwoLayerModesSystem(), LambdaBalancedRiccatiSystem())
