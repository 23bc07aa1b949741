"""Deep linear networks: one file per theory, in the order of the documentation."""

from ._balanced_end_to_end import BalancedEndToEndSystem
from ._conservation_laws import ConservationDriftSystem, ConservationLawsSystem
from ._two_layer_modes import TwoLayerModesSystem

SYSTEMS = (TwoLayerModesSystem(), BalancedEndToEndSystem(), ConservationLawsSystem(), ConservationDriftSystem())
