"""Result codes of a simulation."""

import diffrax
from jaxtyping import Array, Bool


class RESULTS(diffrax.RESULTS):  # pyright: ignore
    """How a simulation ended: diffrax's codes, and those that only training knows."""

    diverged = (
        "Training left the finite numbers. Likely causes: a learning rate above 2 / sharpness, a loss that is "
        "unbounded below, or non-finite data. Remedies: a smaller learning rate or time step, smaller initial "
        "weights, float64; pass `throw=False` to look at what was recorded before."
    )


def succeeded(result: RESULTS) -> Bool[Array, ""]:
    """Whether a run reached its last time, or stopped at an event as asked."""
    return (result == RESULTS.successful) | (result == RESULTS.event_occurred)
