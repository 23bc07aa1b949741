"""Deep linear networks: one file per theory, in the order of the documentation."""

from ._diagonal_network import DiagonalNetworkSystem
from ._diagonal_path import DiagonalPathSystem
from ._saddle_to_saddle import SaddleToSaddleSystem
from ._two_layer_modes import TwoLayerModesSystem

SYSTEMS = (TwoLayerModesSystem(), SaddleToSaddleSystem(), DiagonalNetworkSystem(), DiagonalPathSystem())
