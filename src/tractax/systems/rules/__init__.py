"""Learning rules: one file per theory, in the order of the documentation."""

from ._modified_flow import ModifiedFlowSystem
from ._orthogonal_gradient import OrthogonalGradientSystem
from ._quadratic_descent import QuadraticDescentSystem

SYSTEMS = (
    ModifiedFlowSystem(),
    QuadraticDescentSystem(),
    OrthogonalGradientSystem(),
)
