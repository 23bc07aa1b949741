"""Learning rules: one file per theory, in the order of the documentation."""

from ._adaptive_flows import AdamFlowSystem
from ._modified_flow import ModifiedFlowSystem
from ._noether_charges import NoetherChargesSystem
from ._normalised_weights import NormalisedWeightsSystem
from ._quadratic_descent import QuadraticDescentSystem
from ._two_player_games import BilinearGameSystem, TwoPlayerGamesSystem

SYSTEMS = (
    ModifiedFlowSystem(),
    QuadraticDescentSystem(),
    NoetherChargesSystem(),
    NormalisedWeightsSystem(),
    AdamFlowSystem(),
    BilinearGameSystem(),
    TwoPlayerGamesSystem(),
)
