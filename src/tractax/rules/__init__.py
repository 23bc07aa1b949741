"""Learning rules: how parameters move. One file per rule."""

from ._curl_descent import CurlDescent as CurlDescent
from ._gradient_descent import GradientDescent as GradientDescent
from ._gradient_flow import GradientFlow as GradientFlow
