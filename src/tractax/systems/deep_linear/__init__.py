"""Deep linear networks: one file per theory, in the order of the documentation."""

from ._saddle_to_saddle import SaddleToSaddleSystem
from ._two_layer_modes import TwoLayerModesSystem

SYSTEMS = (TwoLayerModesSystem(), SaddleToSaddleSystem())
