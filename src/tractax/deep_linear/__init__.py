"""Deep linear networks: nonlinear learning dynamics, solved exactly."""

from ._balanced_end_to_end import BalancedEndToEnd as BalancedEndToEnd
from ._base import Product as Product
from ._base import balance_matrices as balance_matrices
from ._conservation_laws import Balance as Balance
from ._conservation_laws import ConservationLaws as ConservationLaws
from ._conservation_laws import balance_after_step as balance_after_step
from ._conservation_laws import balance_drift as balance_drift
from ._end_to_end import end_to_end as end_to_end
from ._initialise import aligned as aligned
from ._initialise import balanced as balanced
from ._initialise import balanced_factors as balanced_factors
from ._initialise import gaussian as gaussian
from ._initialise import haar as haar
from ._initialise import lambda_balanced as lambda_balanced
from ._initialise import low_rank as low_rank
from ._initialise import orthogonal as orthogonal
from ._map_task import MapTask as MapTask
from ._network import DeepLinear as DeepLinear
from ._task import LinearTask as LinearTask
from ._two_layer_modes import Modes as Modes
from ._two_layer_modes import TwoLayerModes as TwoLayerModes
from ._two_layer_modes import two_layer_mode as two_layer_mode
from ._whitening import Whitening as Whitening
from ._whitening import whiten as whiten
