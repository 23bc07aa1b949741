"""Whether a training run is being traced as one member of an ensemble."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator

_INSIDE = contextvars.ContextVar("inside an ensemble", default=False)
_SIZES: contextvars.ContextVar[list[int] | None] = contextvars.ContextVar("sizes of trained states", default=None)


def inside_ensemble() -> bool:
    """Whether `train` is being traced for a member of an ensemble, where one failure must not stop the others."""
    return _INSIDE.get()


@contextlib.contextmanager
def as_member() -> Iterator[None]:
    """Marks what is traced in this block as a member of an ensemble."""
    token = _INSIDE.set(True)
    try:
        yield
    finally:
        _INSIDE.reset(token)


def note_state(size: int) -> None:
    """Tells `largest_state` how many numbers are being trained."""
    sizes = _SIZES.get()
    if sizes is not None:
        sizes.append(size)


@contextlib.contextmanager
def largest_state() -> Iterator[Callable[[], int]]:
    """How many numbers the largest network has that is trained in this block, once it has been traced; 0 for none."""
    sizes: list[int] = []
    token = _SIZES.set(sizes)
    try:
        yield lambda: max(sizes, default=0)
    finally:
        _SIZES.reset(token)
