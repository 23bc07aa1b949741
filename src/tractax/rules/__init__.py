"""Learning rules: how parameters move. One file per rule."""

from ._gradient_descent import GradientDescent as GradientDescent
from ._gradient_flow import GradientFlow as GradientFlow
