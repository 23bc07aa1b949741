"""Learning rules: one file per theory, in the order of the documentation."""

from ._accelerated_flow import AcceleratedFlowSystem
from ._heavy_ball_cycle import HeavyBallCycleSystem
from ._lion_box import LionBoxSystem
from ._lion_k import LionKSystem
from ._modified_flow import ModifiedFlowSystem
from ._quadratic_descent import QuadraticDescentSystem
from ._quadratic_momentum import QuadraticMomentumSystem

SYSTEMS = (
    ModifiedFlowSystem(),
    QuadraticDescentSystem(),
    AcceleratedFlowSystem(),
    QuadraticMomentumSystem(),
    HeavyBallCycleSystem(),
    LionKSystem(),
    LionBoxSystem(),
)
