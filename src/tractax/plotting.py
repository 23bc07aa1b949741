"""Figures: theory as lines, simulation as markers. Needs the extra `plot`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import ArrayLike

from .core import whole_file

STYLE = {"figure.dpi": 150, "savefig.dpi": 200}


def new_figure(width: float = 9.0, height: float = 3.6) -> Any:
    """An empty figure, in inches, that no window shows and no global state remembers.

    **Raises:**

    `ImportError` naming the extra to install, where matplotlib is missing.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('Figures need matplotlib: pip install "tractax[plot]".') from error
    with matplotlib.rc_context(STYLE):
        return Figure(figsize=(width, height), layout="constrained")


def overlay(
    axes: Any,
    ts: ArrayLike,
    theory: ArrayLike | None,
    simulation: ArrayLike,
    labels: Sequence[str],
    *,
    simulated_ts: ArrayLike | None = None,
    markers: int = 24,
) -> None:
    """Draws curves of theory as lines and of simulation as markers in the same colours.

    **Arguments:**

    - `axes`: matplotlib axes.
    - `ts`: times, shape `(times,)`.
    - `theory`, `simulation`: shape `(times, curves)`; `None` where there is no theory.
    - `labels`: one for each curve; at most ten are named in the legend.
    - `simulated_ts`: the times of the simulation, if they differ from `ts`.
    - `markers`: about how many markers a curve gets.
    """
    import matplotlib

    ts, simulation = np.asarray(ts), np.asarray(simulation)
    lines = None if theory is None else np.asarray(theory)
    marked = ts if simulated_ts is None else np.asarray(simulated_ts)
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, max(simulation.shape[1], 1)))
    every = max(1, marked.size // markers)
    for i, (colour, label) in enumerate(zip(colours, labels, strict=True)):
        if lines is not None:
            axes.plot(ts, lines[:, i], color=colour)
        axes.plot(marked[::every], simulation[::every, i], "o", color=colour, mfc="white", ms=4)
        if i < 10:
            axes.plot([], [], color=colour, label=label)
    if lines is not None:
        axes.plot([], [], color="0.3", label="theory")
    axes.plot([], [], "o", color="0.3", mfc="white", ms=4, label="simulation")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)


def save(figure: Any, path: str | Path) -> Path:
    """Writes a figure completely or not at all; the format follows the suffix.

    **Raises:**

    `ValueError` for a format that matplotlib cannot write, `OSError` for a place that cannot be written to.
    """
    import matplotlib

    path = Path(path)
    known = figure.canvas.get_supported_filetypes()
    suffix = path.suffix.removeprefix(".").lower()
    if suffix not in known:
        raise ValueError(f"`path` must end in one of {', '.join('.' + s for s in sorted(known))}; got {str(path)!r}.")
    _tidy(figure)
    with matplotlib.rc_context(STYLE), whole_file(path) as draft:
        figure.savefig(draft)
    return path


def _tidy(figure: Any) -> None:
    """Takes away the frames: axes are made after the figure, so that a style set with it does not reach them."""
    for axes in figure.axes:
        for side in ("top", "right"):
            if side in axes.spines:
                axes.spines[side].set_visible(False)
        if axes.get_legend() is not None:
            axes.get_legend().set_frame_on(False)
