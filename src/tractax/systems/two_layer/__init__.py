"""Two nonlinear layers: one file per theory, in the order of the documentation."""

from ._orthogonal_relu import OrthogonalReLUSystem

SYSTEMS = (OrthogonalReLUSystem(),)
