"""Teacher and student: one file per theory, in the order of the documentation."""

from ._consensus import ConsensusSystem
from ._coupled_learners import CoupledLearnersSystem
from ._curl_chaos import CurlChaosSystem
from ._curl_descent import CurlDescentSystem, CurlThresholdSystem
from ._curl_speed_up import CurlSpeedUpSystem
from ._logistic_regression import LargeStepLogisticSystem, LogisticRegressionSystem
from ._noisy_perceptron import NoisyPerceptronSystem
from ._one_pass_least_squares import OnePassLeastSquaresSystem
from ._online_perceptron import OnlinePerceptronSystem
from ._single_index import OnlineSingleIndexSystem, SingleIndexSystem
from ._soft_committee import SoftCommitteeSystem
from ._teacher_forcing import TeacherForcingSystem
from ._tensor_pca import AveragedLangevinSystem, TensorPCASystem
from ._two_scale_regression import TwoScaleRegressionSystem

SYSTEMS = (
    SoftCommitteeSystem(),
    OnlinePerceptronSystem(),
    OnePassLeastSquaresSystem(),
    TwoScaleRegressionSystem(),
    CurlDescentSystem(),
    CurlThresholdSystem(),
    CurlChaosSystem(),
    CurlSpeedUpSystem(),
    SingleIndexSystem(),
    OnlineSingleIndexSystem(),
    AveragedLangevinSystem(),
    TensorPCASystem(),
    NoisyPerceptronSystem(),
    LogisticRegressionSystem(),
    LargeStepLogisticSystem(),
    CoupledLearnersSystem(),
    ConsensusSystem(),
    TeacherForcingSystem(),
)
