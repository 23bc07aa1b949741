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
from ._saddle_to_saddle import SaddleToSaddle as SaddleToSaddle
from ._saddle_to_saddle import Staircase as Staircase
from ._saddle_to_saddle import dependence_violation as dependence_violation
from ._saddle_to_saddle import hidden_units as hidden_units
from ._saddle_to_saddle import unit_dependences as unit_dependences
from ._task import LinearTask as LinearTask
from ._two_layer_modes import Modes as Modes
from ._two_layer_modes import TwoLayerModes as TwoLayerModes
from ._two_layer_modes import two_layer_mode as two_layer_mode
from ._whitening import Whitening as Whitening
from ._whitening import whiten as whiten
