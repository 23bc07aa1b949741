"""Two nonlinear layers: rectifier networks and modular arithmetic, whose training is solved."""

from ._base import Layers as Layers
from ._initialise import balanced_units as balanced_units
from ._modular_addition import ModularAddition as ModularAddition
from ._modular_modes import ModularModes as ModularModes
from ._modular_modes import ModularModesFlow as ModularModesFlow
from ._modular_modes import modular_modes as modular_modes
from ._modular_network import AbstractModularNetwork as AbstractModularNetwork
from ._modular_network import ModularNetwork as ModularNetwork
from ._modular_network import SeparateModularNetwork as SeparateModularNetwork
from ._modular_network import gaussian_modular_network as gaussian_modular_network
from ._network import LeakyReLU as LeakyReLU
from ._network import TwoLayerNetwork as TwoLayerNetwork
from ._orthogonal_relu_flow import Fields as Fields
from ._orthogonal_relu_flow import OrthogonalReLUFlow as OrthogonalReLUFlow
from ._orthogonal_saddles import OrthogonalSaddles as OrthogonalSaddles
from ._pattern_fixed_relu import PatternFixedReLU as PatternFixedReLU
from ._phase_locking import ModeAmplitudes as ModeAmplitudes
from ._phase_locking import PhaseLocking as PhaseLocking
from ._rank_one_relu import RankOneReLU as RankOneReLU
from ._symmetric_data import antipodal_network as antipodal_network
from ._symmetric_data import mirrored_task as mirrored_task
from ._symmetric_relu import SymmetricReLU as SymmetricReLU
