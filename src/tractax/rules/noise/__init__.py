"""Noisy rules: SGD, its diffusion, Langevin dynamics."""

from ._langevin_flow import LangevinFlow as LangevinFlow
from ._ornstein_uhlenbeck import OrnsteinUhlenbeck as OrnsteinUhlenbeck
from ._parameter_moments import ParameterMoments as ParameterMoments
from ._parameter_moments import QuadraticLoss as QuadraticLoss
from ._quadratic_sgd import QuadraticSGD as QuadraticSGD
from ._sgd_flow import SGDFlow as SGDFlow
