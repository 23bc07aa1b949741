"""Learning rules: how parameters move. One file per rule."""

from ._consensus_flow import ConsensusFlow as ConsensusFlow
from ._consensus_hopping import ConsensusHopping as ConsensusHopping
from ._coupled_flow import CoupledFlow as CoupledFlow
from ._curl_descent import CurlDescent as CurlDescent
from ._gradient_descent import GradientDescent as GradientDescent
from ._gradient_flow import GradientFlow as GradientFlow
from ._gradient_flow import check_flow as check_flow
from ._gradient_flow import no_weight_decay as no_weight_decay
from ._langevin_flow import LangevinFlow as LangevinFlow
from ._modified_flow import ModifiedFlow as ModifiedFlow
from ._node_perturbation import NodePerturbation as NodePerturbation
from ._ornstein_uhlenbeck import OrnsteinUhlenbeck as OrnsteinUhlenbeck
from ._parameter_moments import ParameterMoments as ParameterMoments
from ._parameter_moments import QuadraticLoss as QuadraticLoss
from ._perturbation import AbstractPerturbation as AbstractPerturbation
from ._principal_flow import PrincipalFlow as PrincipalFlow
from ._quadratic_descent import QuadraticDescent as QuadraticDescent
from ._quadratic_descent import QuadraticModes as QuadraticModes
from ._quadratic_sgd import QuadraticSGD as QuadraticSGD
from ._sgd_flow import SGDFlow as SGDFlow
from ._weight_perturbation import SPSA as SPSA
from ._weight_perturbation import WeightPerturbation as WeightPerturbation
