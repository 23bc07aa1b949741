"""The nouns that every family shares: task, rule, solution, trajectory, result codes, checks."""

from ._assumption import Assumption as Assumption
from ._assumption import enforce as enforce
from ._assumption import relative_norm as relative_norm
from ._assumption import tolerance_for as tolerance_for
from ._checks import as_float_array as as_float_array
from ._checks import check_finite as check_finite
from ._checks import check_key as check_key
from ._checks import check_matrix as check_matrix
from ._checks import check_positive as check_positive
from ._checks import check_psd as check_psd
from ._checks import check_times as check_times
from ._checks import require as require
from ._reduced_flow import AbstractReducedFlow as AbstractReducedFlow
from ._reduced_flow import integrate_flow as integrate_flow
from ._result import RESULTS as RESULTS
from ._result import succeeded as succeeded
from ._rule import AbstractFlowRule as AbstractFlowRule
from ._rule import AbstractRule as AbstractRule
from ._rule import AbstractStepRule as AbstractStepRule
from ._rule import Objective as Objective
from ._solution import AbstractSolution as AbstractSolution
from ._solution import Kind as Kind
from ._task import AbstractSampledTask as AbstractSampledTask
from ._task import AbstractTask as AbstractTask
from ._trajectory import Trajectory as Trajectory
