"""Teacher and student, online learning, and other reduced descriptions of how learners move."""

from ._classification_task import ClassificationTask as ClassificationTask
from ._committee import SoftCommittee as SoftCommittee
from ._committee import committees as committees
from ._committee_task import CommitteeTask as CommitteeTask
from ._large_step_logistic import large_step_bound as large_step_bound
from ._large_step_logistic import perceptron_bound as perceptron_bound
from ._linear_classifier import LinearClassifier as LinearClassifier
from ._logistic_regression import ClassifierState as ClassifierState
from ._logistic_regression import LogisticRegressionFlow as LogisticRegressionFlow
from ._margin_losses import AbstractMarginLoss as AbstractMarginLoss
from ._margin_losses import Exponential as Exponential
from ._margin_losses import Hinge as Hinge
from ._margin_losses import Logistic as Logistic
from ._max_margin import MaxMargin as MaxMargin
from ._max_margin import max_margin as max_margin
from ._online_sgd import OnlineSGD as OnlineSGD
from ._plateau import noise_floor as noise_floor
from ._plateau import symmetric_plateau as symmetric_plateau
from ._soft_committee_flow import Overlaps as Overlaps
from ._soft_committee_flow import SoftCommitteeFlow as SoftCommitteeFlow
