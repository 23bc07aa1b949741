"""Learning rules: one file per theory, in the order of the documentation."""

from ._accelerated_flow import AcceleratedFlowSystem
from ._adaptive_flows import AdamFlowSystem
from ._central_flow import CentralFlowSystem, SharpeningValleySystem
from ._diffgrad import DiffGradSystem
from ._equilibrium_propagation import EquilibriumPropagationSystem
from ._heavy_ball_cycle import HeavyBallCycleSystem
from ._holomorphic_nudging import HolomorphicNudgingSystem
from ._knowledge_steps import KnowledgeStepsSystem
from ._lanton import LantonSystem
from ._lion_box import LionBoxSystem
from ._lion_k import LionKSystem
from ._mirror_flow import MirrorFlowSystem
from ._modified_flow import ModifiedFlowSystem
from ._momentum_layers import MomentumLayersSystem
from ._narrowing_valley import NarrowingValleySystem
from ._noether_charges import NoetherChargesSystem
from ._normalised_weights import NormalisedWeightsSystem
from ._orthogonal_gradient import OrthogonalGradientSystem
from ._quadratic_descent import QuadraticDescentSystem
from ._quadratic_momentum import QuadraticMomentumSystem
from ._quadratic_sgd import QuadraticSGDSystem, SGDDiffusionSystem
from ._radius_limit import RadiusLimitSystem
from ._river_valley import CertainTokenSystem, RiverValleySystem, WarmupStableDecaySystem
from ._softmax_ghosts import SoftmaxGhostsSystem
from ._spam import SpamSystem
from ._structured_knowledge import StructuredKnowledgeSystem
from ._two_player_games import BilinearGameSystem, TwoPlayerGamesSystem

SYSTEMS = (
    ModifiedFlowSystem(),
    QuadraticDescentSystem(),
    AcceleratedFlowSystem(),
    QuadraticMomentumSystem(),
    HeavyBallCycleSystem(),
    EquilibriumPropagationSystem(),
    HolomorphicNudgingSystem(),
    DiffGradSystem(),
    SpamSystem(),
    LantonSystem(),
    MomentumLayersSystem(),
    OrthogonalGradientSystem(),
    NoetherChargesSystem(),
    NormalisedWeightsSystem(),
    QuadraticSGDSystem(),
    SGDDiffusionSystem(),
    AdamFlowSystem(),
    BilinearGameSystem(),
    TwoPlayerGamesSystem(),
    LionKSystem(),
    LionBoxSystem(),
    CentralFlowSystem(),
    SharpeningValleySystem(),
    SoftmaxGhostsSystem(),
    RadiusLimitSystem(),
    StructuredKnowledgeSystem(),
    KnowledgeStepsSystem(),
    RiverValleySystem(),
    WarmupStableDecaySystem(),
    NarrowingValleySystem(),
    CertainTokenSystem(),
    MirrorFlowSystem(),
)
