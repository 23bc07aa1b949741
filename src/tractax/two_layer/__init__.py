"""Two nonlinear layers: rectifier networks whose training is solved, on finite data and on Gaussian inputs."""

from ._arc_cosine import arc_cosine as arc_cosine
from ._arc_cosine import arc_cosine_gradient as arc_cosine_gradient
from ._base import Layers as Layers
from ._gaussian_relu_task import GaussianReLUTask as GaussianReLUTask
from ._initialise import balanced_units as balanced_units
from ._network import LeakyReLU as LeakyReLU
from ._network import TwoLayerNetwork as TwoLayerNetwork
from ._neuron_splitting import add_silent_units as add_silent_units
from ._neuron_splitting import effective_width as effective_width
from ._neuron_splitting import merge_units as merge_units
from ._neuron_splitting import split_unit as split_unit
from ._orthogonal_relu_flow import Fields as Fields
from ._orthogonal_relu_flow import OrthogonalReLUFlow as OrthogonalReLUFlow
from ._orthogonal_saddles import OrthogonalSaddles as OrthogonalSaddles
from ._pattern_fixed_relu import PatternFixedReLU as PatternFixedReLU
from ._rank_one_relu import RankOneReLU as RankOneReLU
from ._relu_unit_flow import PolarUnit as PolarUnit
from ._relu_unit_flow import ReLUUnitFlow as ReLUUnitFlow
from ._symmetric_data import antipodal_network as antipodal_network
from ._symmetric_data import mirrored_task as mirrored_task
from ._symmetric_relu import SymmetricReLU as SymmetricReLU
