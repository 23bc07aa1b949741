"""Two nonlinear layers: one file per theory, in the order of the documentation."""

from ._modular_addition_modes import ModularAdditionLotterySystem, ModularAdditionModesSystem, ModularAdditionScaleSystem
from ._orthogonal_relu import OrthogonalReLUSystem
from ._symmetric_relu import SymmetricReLUSystem

SYSTEMS = (
    OrthogonalReLUSystem(),
    SymmetricReLUSystem(),
    ModularAdditionModesSystem(),
    ModularAdditionScaleSystem(),
    ModularAdditionLotterySystem(),
)
