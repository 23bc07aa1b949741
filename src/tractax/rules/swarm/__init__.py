"""Many learners at once: coupled ones, and swarms that seek a consensus."""

from ._consensus_flow import ConsensusFlow as ConsensusFlow
from ._consensus_hopping import ConsensusHopping as ConsensusHopping
from ._coupled_flow import CoupledFlow as CoupledFlow
