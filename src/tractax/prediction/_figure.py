"""The figure of a prediction: loss and modes, theory as lines, simulation as markers."""

from typing import Any

import numpy as np

from ..plotting import overlay
from ._predict import Forecast, Outcome


def draw(figure: Any, forecast: Forecast, outcome: Outcome, name: str) -> None:
    """Draws modes and loss over time on an empty figure.

    **Arguments:**

    - `figure`: an empty `matplotlib.figure.Figure`.
    - `forecast`, `outcome`: what was predicted and what happened.
    - `name`: of the data set, for the title.
    """
    s = np.asarray(forecast.reader.singular_values)
    shown = np.flatnonzero(s > 1e-2 * s[0])[:10]
    predicted = None if forecast.reading is None else np.asarray(forecast.reading.strength)[:, shown]
    simulated = np.asarray(outcome.reading.strength)[:, shown]
    left, right = figure.subplots(1, 2)
    overlay(left, forecast.ts, predicted, simulated, [f"mode {i + 1}, s = {s[i]:.3g}" for i in shown])
    if forecast.learning_times is not None:
        times = np.asarray(forecast.learning_times)[shown]
        left.plot(times, s[shown] / 2, "|", color="0.2", ms=12, label="predicted learning time")
        left.legend(fontsize=7)
    left.set(xlabel="time (learning rate × steps)", ylabel="mode strength", title=f"{name}: modes")
    loss = None if forecast.reading is None else np.asarray(forecast.reading.loss)[:, None]
    overlay(right, forecast.ts, loss, np.asarray(outcome.reading.loss)[:, None], ["loss"])
    floor = float(forecast.task.floor)
    right.axhline(floor, color="0.7", ls=":", lw=1, zorder=0)
    right.annotate("best linear map", (0.0, floor), ha="left", va="bottom", fontsize=8, color="0.4")
    right.set(xlabel="time (learning rate × steps)", ylabel="loss", title=f"{name}: loss")
