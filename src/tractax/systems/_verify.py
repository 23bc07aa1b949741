"""Check a system's claim."""

import time
from dataclasses import dataclass
from typing import Any

from ..analysis import Scaling
from ..core import Kind
from ._registry import get
from ._system import AbstractSystem


@dataclass(frozen=True)
class Verification:
    """What was claimed and what was found.

    **Attributes:**

    - `name`, `family`, `kind`: of the system.
    - `quantity`: what `claimed` and `measured` are numbers of.
    - `claimed`: a tolerance, an exponent, or the least size of an effect.
    - `measured`: the error, exponent or size found.
    - `interval`: the confidence interval of a measured exponent, otherwise `None`.
    - `passed`: whether the claim holds.
    - `seconds`: how long the check took, compilation included.
    """

    name: str
    family: str
    kind: Kind
    quantity: str
    claimed: float
    measured: float
    interval: tuple[float, float] | None
    passed: bool
    seconds: float


def verify(system: AbstractSystem | str) -> Verification:
    """Runs the check of a system of the catalogue, given by name, or of one of your own.

    **Raises:**

    `ValueError` for a name that is not in the catalogue.
    """
    system = get(system) if isinstance(system, str) else system
    start = time.perf_counter()
    found: Any = system.measure()
    if isinstance(found, Scaling):
        measured, interval = float(found.exponent), (float(found.interval[0]), float(found.interval[1]))
    else:
        found = measured = float(found)
        interval = None
    passed = system.claim.passes(found)
    seconds = time.perf_counter() - start
    return Verification(
        system.name,
        system.family,
        system.kind,
        system.claim.quantity,
        system.claim.value,
        measured,
        interval,
        passed,
        seconds,
    )
