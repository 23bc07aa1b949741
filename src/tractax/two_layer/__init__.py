"""Two nonlinear layers: rectifier networks and modular arithmetic, whose training is solved."""

from ._modular_addition import ModularAddition as ModularAddition
from ._modular_modes import ModularModes as ModularModes
from ._modular_modes import ModularModesFlow as ModularModesFlow
from ._modular_modes import modular_modes as modular_modes
from ._modular_network import AbstractModularNetwork as AbstractModularNetwork
from ._modular_network import ModularNetwork as ModularNetwork
from ._modular_network import SeparateModularNetwork as SeparateModularNetwork
from ._modular_network import gaussian_modular_network as gaussian_modular_network
from ._phase_locking import ModeAmplitudes as ModeAmplitudes
from ._phase_locking import PhaseLocking as PhaseLocking
