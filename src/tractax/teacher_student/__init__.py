"""Teacher and student: reduced descriptions that become exact as the dimension grows."""

from ._committee import SoftCommittee as SoftCommittee
from ._committee import committees as committees
from ._committee_task import CommitteeTask as CommitteeTask
from ._gaussian_regression import GaussianRegression as GaussianRegression
from ._gaussian_regression import RegressionSample as RegressionSample
from ._least_squares_path import LeastSquaresPath as LeastSquaresPath
from ._least_squares_path import RegressionOverlaps as RegressionOverlaps
from ._linear_model import LinearModel as LinearModel
from ._one_pass_least_squares import AbstractOnePass as AbstractOnePass
from ._one_pass_least_squares import OnePassLeastSquares as OnePassLeastSquares
from ._one_pass_least_squares import OnePassRecursion as OnePassRecursion
from ._one_pass_least_squares import SquaredErrors as SquaredErrors
from ._online_perceptron import AbstractOnlinePerceptron as AbstractOnlinePerceptron
from ._online_perceptron import OnlinePerceptron as OnlinePerceptron
from ._online_perceptron import OnlinePerceptronLimit as OnlinePerceptronLimit
from ._online_perceptron import PerceptronState as PerceptronState
from ._online_sgd import OnlineSGD as OnlineSGD
from ._plateau import noise_floor as noise_floor
from ._plateau import symmetric_plateau as symmetric_plateau
from ._soft_committee_flow import Overlaps as Overlaps
from ._soft_committee_flow import SoftCommitteeFlow as SoftCommitteeFlow
from ._two_scale_regression import TwoScaleRegressionFlow as TwoScaleRegressionFlow
