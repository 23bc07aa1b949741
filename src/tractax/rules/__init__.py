"""Learning rules: how parameters move. One file per rule."""

from ._consensus_flow import ConsensusFlow as ConsensusFlow
from ._consensus_hopping import ConsensusHopping as ConsensusHopping
from ._coupled_flow import CoupledFlow as CoupledFlow
from ._curl_descent import CurlDescent as CurlDescent
from ._gradient_descent import GradientDescent as GradientDescent
from ._gradient_flow import GradientFlow as GradientFlow
from ._gradient_flow import check_flow as check_flow
from ._gradient_flow import no_weight_decay as no_weight_decay
from ._modified_flow import ModifiedFlow as ModifiedFlow
from ._orthogonal_gradient import OrthogonalFlow as OrthogonalFlow
from ._orthogonal_gradient import array_norms as array_norms
from ._orthogonal_gradient import orthogonal_gradient as orthogonal_gradient
from ._orthogonal_gradient import perp_grad as perp_grad
from ._orthogonal_gradient import radial_alignment as radial_alignment
from ._principal_flow import PrincipalFlow as PrincipalFlow
from ._quadratic_descent import QuadraticDescent as QuadraticDescent
from ._quadratic_descent import QuadraticModes as QuadraticModes
