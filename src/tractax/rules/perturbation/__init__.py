"""Rules that see the loss and never its gradient."""

from ._node_perturbation import NodePerturbation as NodePerturbation
from ._perturbation import AbstractPerturbation as AbstractPerturbation
from ._weight_perturbation import SPSA as SPSA
from ._weight_perturbation import WeightPerturbation as WeightPerturbation
