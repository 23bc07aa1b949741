"""Learning rules: one file per theory, in the order of the documentation."""

from ._equilibrium_propagation import EquilibriumPropagationSystem
from ._holomorphic_nudging import HolomorphicNudgingSystem
from ._modified_flow import ModifiedFlowSystem
from ._quadratic_descent import QuadraticDescentSystem

SYSTEMS = (
    ModifiedFlowSystem(),
    QuadraticDescentSystem(),
    EquilibriumPropagationSystem(),
    HolomorphicNudgingSystem(),
)
