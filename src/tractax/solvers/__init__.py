"""Integrators that diffrax lacks: stabilised explicit methods for stiff gradient flow."""

from ..core import METHODS as METHODS
from ._automatic import Automatic as Automatic
from ._rkc2 import RKC2 as RKC2
from ._spectral_radius import spectral_radius as spectral_radius
from ._stabilised import AbstractStabilisedSolver as AbstractStabilisedSolver
from ._stabilised import StabilisedState as StabilisedState
from .rkc4 import RKC4 as RKC4
