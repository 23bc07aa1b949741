"""tractax: exactly solvable models of learning, simulated, solved and compared in JAX."""

import importlib.metadata

from . import analysis as analysis
from . import core as core
from . import deep_linear as deep_linear
from . import rules as rules
from . import solvers as solvers
from . import special as special
from . import systems as systems
from . import teacher_student as teacher_student
from . import training as training
from .analysis import compare as compare
from .analysis import residual as residual
from .analysis import scaling as scaling
from .core import RESULTS as RESULTS
from .core import AbstractFlowRule as AbstractFlowRule
from .core import AbstractSampledTask as AbstractSampledTask
from .core import AbstractSolution as AbstractSolution
from .core import AbstractStepRule as AbstractStepRule
from .core import AbstractTask as AbstractTask
from .core import Assumption as Assumption
from .core import Objective as Objective
from .core import Trajectory as Trajectory
from .rules import GradientDescent as GradientDescent
from .rules import GradientFlow as GradientFlow
from .systems import verify as verify
from .training import Mean as Mean
from .training import Quantiles as Quantiles
from .training import ensemble as ensemble
from .training import to_xarray as to_xarray
from .training import train as train

__version__ = importlib.metadata.version("tractax")
