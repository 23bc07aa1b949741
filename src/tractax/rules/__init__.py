"""Learning rules: how parameters move. One file per rule."""

from ._central_flow import CentralFlow as CentralFlow
from ._central_flow import Oscillation as Oscillation
from ._central_flow import RMSPropCentralFlow as RMSPropCentralFlow
from ._central_flow import RMSPropState as RMSPropState
from ._consensus_flow import ConsensusFlow as ConsensusFlow
from ._consensus_hopping import ConsensusHopping as ConsensusHopping
from ._coupled_flow import CoupledFlow as CoupledFlow
from ._curl_descent import CurlDescent as CurlDescent
from ._gradient_descent import GradientDescent as GradientDescent
from ._gradient_flow import GradientFlow as GradientFlow
from ._gradient_flow import check_flow as check_flow
from ._gradient_flow import no_weight_decay as no_weight_decay
from ._modified_flow import ModifiedFlow as ModifiedFlow
from ._principal_flow import PrincipalFlow as PrincipalFlow
from ._quadratic_descent import QuadraticDescent as QuadraticDescent
from ._quadratic_descent import QuadraticModes as QuadraticModes
from ._scalar_rmsprop import ScalarRMSPropState as ScalarRMSPropState
from ._scalar_rmsprop import scalar_rmsprop as scalar_rmsprop
from ._sharpening_valley import SharpeningValley as SharpeningValley
from ._sharpening_valley import SharpeningValleyFlow as SharpeningValleyFlow
from ._sharpening_valley import ValleyFloor as ValleyFloor
from ._sharpening_valley import ValleyPoint as ValleyPoint
from ._sharpness import sharpness as sharpness
