"""The catalogue: experiments of the literature, each with its claim and its check."""

from ._registry import catalogue as catalogue
from ._registry import get as get
from ._system import AbstractRunSystem as AbstractRunSystem
from ._system import AbstractSystem as AbstractSystem
from ._system import Citation as Citation
from ._system import Exponent as Exponent
from ._system import Run as Run
from ._system import Signature as Signature
from ._system import Tolerance as Tolerance
from ._verify import Verification as Verification
from ._verify import verify as verify
