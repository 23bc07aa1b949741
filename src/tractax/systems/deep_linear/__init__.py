"""Deep linear networks: one file per theory, in the order of the documentation."""

from ._opposing_signals import EdgeOfStabilitySystem, OpposingSignalsSystem
from ._sgd_stability import SGDStabilitySystem
from ._two_layer_modes import TwoLayerModesSystem

SYSTEMS = (TwoLayerModesSystem(), SGDStabilitySystem(), OpposingSignalsSystem(), EdgeOfStabilitySystem())
