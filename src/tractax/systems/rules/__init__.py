"""Learning rules: one file per theory, in the order of the documentation."""

from ._central_flow import CentralFlowSystem, SharpeningValleySystem
from ._modified_flow import ModifiedFlowSystem
from ._quadratic_descent import QuadraticDescentSystem
from ._river_valley import CertainTokenSystem, RiverValleySystem, WarmupStableDecaySystem

SYSTEMS = (
    ModifiedFlowSystem(),
    QuadraticDescentSystem(),
    CentralFlowSystem(),
    SharpeningValleySystem(),
    RiverValleySystem(),
    WarmupStableDecaySystem(),
    CertainTokenSystem(),
)
