"""Learning rules: one file per theory, in the order of the documentation."""

from ._diffgrad import DiffGradSystem
from ._equilibrium_propagation import EquilibriumPropagationSystem
from ._holomorphic_nudging import HolomorphicNudgingSystem
from ._knowledge_steps import KnowledgeStepsSystem
from ._lanton import LantonSystem
from ._modified_flow import ModifiedFlowSystem
from ._momentum_layers import MomentumLayersSystem
from ._quadratic_descent import QuadraticDescentSystem
from ._radius_limit import RadiusLimitSystem
from ._softmax_ghosts import SoftmaxGhostsSystem
from ._spam import SpamSystem
from ._structured_knowledge import StructuredKnowledgeSystem

SYSTEMS = (
    ModifiedFlowSystem(),
    QuadraticDescentSystem(),
    EquilibriumPropagationSystem(),
    HolomorphicNudgingSystem(),
    DiffGradSystem(),
    SpamSystem(),
    LantonSystem(),
    MomentumLayersSystem(),
    SoftmaxGhostsSystem(),
    RadiusLimitSystem(),
    StructuredKnowledgeSystem(),
    KnowledgeStepsSystem(),
)
