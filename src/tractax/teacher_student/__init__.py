"""Teacher and student: reduced descriptions that become exact as the dimension grows."""

from ._committee import SoftCommittee as SoftCommittee
from ._committee import committees as committees
from ._committee_task import CommitteeTask as CommitteeTask
from ._curl_scalar import CurlDescentScalar as CurlDescentScalar
from ._curl_scalar import ScalarWeights as ScalarWeights
from ._curl_stability import curl_invariants as curl_invariants
from ._curl_stability import curl_stability_matrix as curl_stability_matrix
from ._curl_stability import flipped_edge as flipped_edge
from ._curl_stability import hidden_flip_threshold as hidden_flip_threshold
from ._curl_stability import readout_flip_threshold as readout_flip_threshold
from ._online_sgd import OnlineSGD as OnlineSGD
from ._plateau import noise_floor as noise_floor
from ._plateau import symmetric_plateau as symmetric_plateau
from ._soft_committee_flow import Overlaps as Overlaps
from ._soft_committee_flow import SoftCommitteeFlow as SoftCommitteeFlow
from ._two_layer_linear import TwoLayerLinear as TwoLayerLinear
from ._two_layer_linear import VectorTask as VectorTask
