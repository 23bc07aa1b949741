"""Two nonlinear layers: one file per theory, in the order of the documentation."""

from ._convex_relu import ConvexReLUSystem
from ._gaussian_relu_teacher import GaussianReLUTeacherSystem
from ._interpolating_minimum import InterpolatingMinimumSystem
from ._jacobian_penalty import JacobianPenaltySystem
from ._kink_plateaus import KinkPlateausSystem
from ._li2_energy import Li2EnergySystem
from ._modular_addition_logits import ModularAdditionLogitsSystem, ModularAdditionReLUSystem
from ._modular_addition_modes import ModularAdditionLotterySystem, ModularAdditionModesSystem, ModularAdditionScaleSystem
from ._neuron_splitting import NeuronSplittingSystem
from ._orthogonal_plateaus import OrthogonalPlateausSystem
from ._orthogonal_relu import OrthogonalReLUSystem
from ._polynomial_grokking import GrokkingGapSystem, PolynomialGrokkingSystem
from ._product_descent import CatapultSystem, ProductDescentSystem
from ._softmax_collapse import SoftmaxCollapseSystem
from ._symmetric_relu import SymmetricReLUSystem

SYSTEMS = (
    OrthogonalReLUSystem(),
    SymmetricReLUSystem(),
    ModularAdditionModesSystem(),
    ModularAdditionScaleSystem(),
    ModularAdditionLotterySystem(),
    ModularAdditionLogitsSystem(),
    ModularAdditionReLUSystem(),
    Li2EnergySystem(),
    PolynomialGrokkingSystem(),
    GrokkingGapSystem(),
    NeuronSplittingSystem(),
    OrthogonalPlateausSystem(),
    KinkPlateausSystem(),
    GaussianReLUTeacherSystem(),
    ConvexReLUSystem(),
    ProductDescentSystem(),
    CatapultSystem(),
    InterpolatingMinimumSystem(),
    SoftmaxCollapseSystem(),
    JacobianPenaltySystem(),
)
