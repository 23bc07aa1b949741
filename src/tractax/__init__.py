"""tractax: exactly solvable models of learning, simulated, solved and compared in JAX."""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from . import analysis as analysis
from . import core as core
from . import deep_linear as deep_linear
from . import rules as rules
from . import special as special
from . import teacher_student as teacher_student
from . import training as training
from . import transformers as transformers
from . import two_layer as two_layer
from .analysis import compare as compare
from .analysis import residual as residual
from .analysis import scaling as scaling
from .core import RESULTS as RESULTS
from .core import AbstractFiniteTask as AbstractFiniteTask
from .core import AbstractFlowRule as AbstractFlowRule
from .core import AbstractSampledTask as AbstractSampledTask
from .core import AbstractSolution as AbstractSolution
from .core import AbstractStepRule as AbstractStepRule
from .core import AbstractTask as AbstractTask
from .core import Assumption as Assumption
from .core import Objective as Objective
from .core import OfState as OfState
from .core import Trajectory as Trajectory
from .rules import GradientDescent as GradientDescent
from .rules import GradientFlow as GradientFlow
from .training import Mean as Mean
from .training import Quantiles as Quantiles
from .training import ensemble as ensemble
from .training import to_xarray as to_xarray
from .training import train as train

if TYPE_CHECKING:
    from . import solvers as solvers
    from . import systems as systems
    from .systems import verify as verify

__version__ = importlib.metadata.version("tractax")


def __getattr__(name: str) -> Any:
    # Read when they are first asked for: the catalogue, and the tables of the solvers.
    if name in ("solvers", "systems"):
        return importlib.import_module(f".{name}", __name__)
    if name == "verify":
        return __getattr__("systems").verify
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), "solvers", "systems", "verify"})
