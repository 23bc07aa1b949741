"""Networks that answer with an equilibrium, and equilibrium propagation."""

from ._equilibrium_network import AbstractEquilibriumModel as AbstractEquilibriumModel
from ._equilibrium_network import EquilibriumNetwork as EquilibriumNetwork
from ._equilibrium_network import EquilibriumTask as EquilibriumTask
from ._equilibrium_propagation import EquilibriumPropagation as EquilibriumPropagation
from ._jacobian_homeostasis import HomeostasisFlow as HomeostasisFlow
from ._jacobian_homeostasis import HomeostasisState as HomeostasisState
from ._jacobian_homeostasis import HomeostasisTask as HomeostasisTask
from ._jacobian_homeostasis import jacobian_asymmetry as jacobian_asymmetry
from ._linear_equilibrium import LinearEquilibrium as LinearEquilibrium
