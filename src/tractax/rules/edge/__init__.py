"""The edge of stability: sharpness and central flows."""

from ._central_flow import CentralFlow as CentralFlow
from ._central_flow import Oscillation as Oscillation
from ._central_flow import RMSPropCentralFlow as RMSPropCentralFlow
from ._central_flow import RMSPropState as RMSPropState
from ._sharpening_valley import SharpeningValley as SharpeningValley
from ._sharpening_valley import SharpeningValleyFlow as SharpeningValleyFlow
from ._sharpening_valley import ValleyFloor as ValleyFloor
from ._sharpening_valley import ValleyPoint as ValleyPoint
from ._sharpness import sharpness as sharpness
