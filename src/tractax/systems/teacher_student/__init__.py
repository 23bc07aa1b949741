"""Teacher and student: one file per theory, in the order of the documentation."""

from ._logistic_regression import LargeStepLogisticSystem, LogisticRegressionSystem
from ._soft_committee import SoftCommitteeSystem

SYSTEMS = (SoftCommitteeSystem(), LogisticRegressionSystem(), LargeStepLogisticSystem())
