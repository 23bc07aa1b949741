"""Learning rules: one file per theory, in the order of the documentation."""

from ._mirror_flow import MirrorFlowSystem
from ._modified_flow import ModifiedFlowSystem
from ._quadratic_descent import QuadraticDescentSystem
from ._quadratic_sgd import QuadraticSGDSystem, SGDDiffusionSystem

SYSTEMS = (
    ModifiedFlowSystem(),
    QuadraticDescentSystem(),
    QuadraticSGDSystem(),
    SGDDiffusionSystem(),
    MirrorFlowSystem(),
)
