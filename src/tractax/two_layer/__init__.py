"""Two nonlinear layers: rectifier networks and modular arithmetic, whose training is solved."""

from ._finite_group import FiniteGroup as FiniteGroup
from ._finite_group import cyclic_group as cyclic_group
from ._finite_group import dihedral_group as dihedral_group
from ._li2_energy import Li2Energy as Li2Energy
from ._li2_energy import feature_gradient as feature_gradient
from ._li2_energy import ridge_readout as ridge_readout
from ._modular_addition import ModularAddition as ModularAddition
from ._modular_logits import gromov_logits as gromov_logits
from ._modular_logits import gromov_network as gromov_network
from ._modular_logits import phase_locked_assumptions as phase_locked_assumptions
from ._modular_logits import phase_locked_logits as phase_locked_logits
from ._modular_logits import phase_locked_network as phase_locked_network
from ._modular_logits import quadratic_logits as quadratic_logits
from ._modular_logits import random_gromov_network as random_gromov_network
from ._modular_logits import relu_logits as relu_logits
from ._modular_modes import ModularModes as ModularModes
from ._modular_modes import ModularModesFlow as ModularModesFlow
from ._modular_modes import modular_modes as modular_modes
from ._modular_network import AbstractModularNetwork as AbstractModularNetwork
from ._modular_network import ModularNetwork as ModularNetwork
from ._modular_network import SeparateModularNetwork as SeparateModularNetwork
from ._modular_network import gaussian_modular_network as gaussian_modular_network
from ._phase_locking import ModeAmplitudes as ModeAmplitudes
from ._phase_locking import PhaseLocking as PhaseLocking
