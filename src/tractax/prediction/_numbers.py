"""Write the numbers of a prediction to a file, completely or not at all."""

from pathlib import Path

import numpy as np

from ..core import whole_file
from ._predict import Forecast, Outcome


def save_numbers(path: str | Path, forecast: Forecast, outcome: Outcome) -> Path:
    """Writes a `.npz` file with times, loss, mode strengths and learning times, predicted and simulated.

    **Raises:**

    `ValueError` for another suffix, `OSError` for a place that cannot be written to.
    """
    path = Path(path)
    if path.suffix.lower() != ".npz":
        raise ValueError(f"`numbers` must end in .npz; got {str(path)!r}.")
    arrays = {"times": forecast.ts, "singular_values": forecast.reader.singular_values}
    if forecast.reading is not None:
        arrays |= {
            "predicted_strength": forecast.reading.strength,
            "predicted_loss": forecast.reading.loss,
            "predicted_learning_time": forecast.learning_times,
        }
    arrays |= {
        "simulated_strength": outcome.reading.strength,
        "simulated_loss": outcome.reading.loss,
        "simulated_learning_time": outcome.learning_times,
    }
    # An open file, since NumPy appends ".npz" to other names.
    with whole_file(path) as draft, draft.open("wb") as file:
        np.savez_compressed(file, **{name: np.asarray(array) for name, array in arrays.items()})
    return path
