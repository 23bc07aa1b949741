"""Mirror descent."""

from ._mirror_descent import MirrorDescent as MirrorDescent
from ._mirror_flow import MirrorFlow as MirrorFlow
from ._mirror_potential import AbstractMirrorPotential as AbstractMirrorPotential
from ._mirror_potential import Entropy as Entropy
from ._mirror_potential import HyperbolicEntropy as HyperbolicEntropy
