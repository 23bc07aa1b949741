"""Learning rules: how parameters move. One file per rule."""

from ._accelerated_flow import AbstractAcceleratedFlow as AbstractAcceleratedFlow
from ._accelerated_flow import Coefficients as Coefficients
from ._accelerated_flow import HeavyBallFlow as HeavyBallFlow
from ._accelerated_flow import MovingParameters as MovingParameters
from ._accelerated_flow import NesterovFlow as NesterovFlow
from ._accelerated_flow import nesterov_bound as nesterov_bound
from ._consensus_flow import ConsensusFlow as ConsensusFlow
from ._consensus_hopping import ConsensusHopping as ConsensusHopping
from ._coupled_flow import CoupledFlow as CoupledFlow
from ._curl_descent import CurlDescent as CurlDescent
from ._gradient_descent import GradientDescent as GradientDescent
from ._gradient_flow import GradientFlow as GradientFlow
from ._gradient_flow import check_flow as check_flow
from ._gradient_flow import no_weight_decay as no_weight_decay
from ._heavy_ball import HeavyBall as HeavyBall
from ._heavy_ball import strongly_convex_momentum as strongly_convex_momentum
from ._modified_flow import ModifiedFlow as ModifiedFlow
from ._nesterov import Nesterov as Nesterov
from ._principal_flow import PrincipalFlow as PrincipalFlow
from ._quadratic_descent import QuadraticDescent as QuadraticDescent
from ._quadratic_loss import QuadraticModes as QuadraticModes
from ._quadratic_momentum import QuadraticAcceleration as QuadraticAcceleration
from ._quadratic_momentum import QuadraticMomentum as QuadraticMomentum
from ._slope_change import SlopeChange as SlopeChange
from ._triple_momentum import TripleMomentum as TripleMomentum
