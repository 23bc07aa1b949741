"""Teacher and student: one file per theory, in the order of the documentation."""

from ._curl_descent import CurlDescentSystem, CurlThresholdSystem
from ._single_index import OnlineSingleIndexSystem, SingleIndexSystem
from ._soft_committee import SoftCommitteeSystem

SYSTEMS = (
    SoftCommitteeSystem(),
    CurlDescentSystem(),
    CurlThresholdSystem(),
    SingleIndexSystem(),
    OnlineSingleIndexSystem(),
)
