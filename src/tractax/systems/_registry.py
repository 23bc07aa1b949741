"""The catalogue."""

import difflib

from . import deep_linear, rules, teacher_student, transformers, two_layer
from ._system import AbstractSystem


def catalogue(family: str | None = None) -> tuple[AbstractSystem, ...]:
    """Every system, or those of one family, in the order of the documentation.

    **Raises:**

    `ValueError` for an unknown family.
    """
    families = (deep_linear, teacher_student, transformers, two_layer, rules)
    systems = tuple(system for family in families for system in family.SYSTEMS)
    if family is None:
        return systems
    names = sorted({system.family for system in systems})
    if family not in names:
        raise ValueError(f"`family` must be one of {', '.join(names)}; got {family!r}.")
    return tuple(system for system in systems if system.family == family)


def get(name: str) -> AbstractSystem:
    """The system of this name.

    **Raises:**

    `ValueError` for an unknown name, with the nearest known ones.
    """
    systems = {system.name: system for system in catalogue()}
    if name in systems:
        return systems[name]
    close = difflib.get_close_matches(name, systems, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "`tractax list` shows the names."
    raise ValueError(f"`name` must be a system of the catalogue; got {name!r}: {hint}")
