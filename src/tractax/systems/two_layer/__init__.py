"""Two nonlinear layers: one file per theory, in the order of the documentation."""

from ._gaussian_relu_teacher import GaussianReLUTeacherSystem
from ._neuron_splitting import NeuronSplittingSystem
from ._orthogonal_relu import OrthogonalReLUSystem
from ._symmetric_relu import SymmetricReLUSystem

SYSTEMS = (OrthogonalReLUSystem(), SymmetricReLUSystem(), NeuronSplittingSystem(), GaussianReLUTeacherSystem())
