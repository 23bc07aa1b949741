"""Learning rules: how parameters move. One file per rule."""

from ._consensus_flow import ConsensusFlow as ConsensusFlow
from ._consensus_hopping import ConsensusHopping as ConsensusHopping
from ._coupled_flow import CoupledFlow as CoupledFlow
from ._curl_descent import CurlDescent as CurlDescent
from ._equilibrium_network import AbstractEquilibriumModel as AbstractEquilibriumModel
from ._equilibrium_network import EquilibriumNetwork as EquilibriumNetwork
from ._equilibrium_network import EquilibriumTask as EquilibriumTask
from ._equilibrium_propagation import EquilibriumPropagation as EquilibriumPropagation
from ._gradient_descent import GradientDescent as GradientDescent
from ._gradient_flow import GradientFlow as GradientFlow
from ._gradient_flow import check_flow as check_flow
from ._gradient_flow import no_weight_decay as no_weight_decay
from ._jacobian_homeostasis import HomeostasisFlow as HomeostasisFlow
from ._jacobian_homeostasis import HomeostasisState as HomeostasisState
from ._jacobian_homeostasis import HomeostasisTask as HomeostasisTask
from ._jacobian_homeostasis import jacobian_asymmetry as jacobian_asymmetry
from ._linear_equilibrium import LinearEquilibrium as LinearEquilibrium
from ._modified_flow import ModifiedFlow as ModifiedFlow
from ._principal_flow import PrincipalFlow as PrincipalFlow
from ._quadratic_descent import QuadraticDescent as QuadraticDescent
from ._quadratic_descent import QuadraticModes as QuadraticModes
