"""Deep linear networks: nonlinear learning dynamics, solved exactly."""

from ._base import Product as Product
from ._base import balance_matrices as balance_matrices
from ._initialise import aligned as aligned
from ._initialise import balanced as balanced
from ._initialise import balanced_factors as balanced_factors
from ._initialise import gaussian as gaussian
from ._initialise import haar as haar
from ._initialise import lambda_balanced as lambda_balanced
from ._initialise import low_rank as low_rank
from ._initialise import orthogonal as orthogonal
from ._network import DeepLinear as DeepLinear
from ._regression_task import RegressionTask as RegressionTask
from ._sgd_stability import ThresholdBounds as ThresholdBounds
from ._sgd_stability import per_example_gradients as per_example_gradients
from ._sgd_stability import sgd_growth as sgd_growth
from ._sgd_stability import sgd_l1_bound as sgd_l1_bound
from ._sgd_stability import sgd_moment_step as sgd_moment_step
from ._sgd_stability import sgd_threshold as sgd_threshold
from ._sgd_stability import sgd_threshold_bounds as sgd_threshold_bounds
from ._task import LinearTask as LinearTask
from ._two_layer_modes import Modes as Modes
from ._two_layer_modes import TwoLayerModes as TwoLayerModes
from ._two_layer_modes import two_layer_mode as two_layer_mode
from ._whitening import Whitening as Whitening
from ._whitening import whiten as whiten
