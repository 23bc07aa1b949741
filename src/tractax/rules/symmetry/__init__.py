"""Symmetries of networks and the charges that training keeps or breaks."""

from ._noether_charges import NoetherCharge as NoetherCharge
from ._noether_charges import NoetherCharges as NoetherCharges
from ._noether_charges import charge_after_step as charge_after_step
from ._noether_charges import translation_charge_after_steps as translation_charge_after_steps
from ._normalised_network import NormalisedNetwork as NormalisedNetwork
from ._normalised_weights import angle_between as angle_between
from ._normalised_weights import equilibrium_angle as equilibrium_angle
from ._normalised_weights import equilibrium_norm as equilibrium_norm
from ._normalised_weights import norm_from_gradients as norm_from_gradients
from ._symmetry import AbstractSymmetry as AbstractSymmetry
from ._symmetry import RescaleSymmetry as RescaleSymmetry
from ._symmetry import RotationSymmetry as RotationSymmetry
from ._symmetry import ScaleSymmetry as ScaleSymmetry
from ._symmetry import TranslationSymmetry as TranslationSymmetry
