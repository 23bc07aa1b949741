"""Teacher and student: one file per theory, in the order of the documentation."""

from ._one_pass_least_squares import OnePassLeastSquaresSystem
from ._online_perceptron import OnlinePerceptronSystem
from ._soft_committee import SoftCommitteeSystem
from ._two_scale_regression import TwoScaleRegressionSystem

SYSTEMS = (SoftCommitteeSystem(), OnlinePerceptronSystem(), OnePassLeastSquaresSystem(), TwoScaleRegressionSystem())
