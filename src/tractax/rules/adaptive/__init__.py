"""Rules that divide by the size of past gradients: RMSProp, Adam and its variants."""

from ._adam_flow import AdamFlow as AdamFlow
from ._diffgrad import DiffGradState as DiffGradState
from ._diffgrad import diffgrad as diffgrad
from ._lanton import LantonState as LantonState
from ._lanton import lanton as lanton
from ._scalar_rmsprop import ScalarRMSPropState as ScalarRMSPropState
from ._scalar_rmsprop import scalar_rmsprop as scalar_rmsprop
from ._spam import SpamState as SpamState
from ._spam import spam as spam
