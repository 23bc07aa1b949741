"""Teacher and student: one file per theory, in the order of the documentation."""

from ._consensus import ConsensusSystem
from ._coupled_learners import CoupledLearnersSystem
from ._logistic_regression import LargeStepLogisticSystem, LogisticRegressionSystem
from ._noisy_perceptron import NoisyPerceptronSystem
from ._soft_committee import SoftCommitteeSystem
from ._teacher_forcing import TeacherForcingSystem

SYSTEMS = (
    SoftCommitteeSystem(),
    NoisyPerceptronSystem(),
    LogisticRegressionSystem(),
    LargeStepLogisticSystem(),
    CoupledLearnersSystem(),
    ConsensusSystem(),
    TeacherForcingSystem(),
)
