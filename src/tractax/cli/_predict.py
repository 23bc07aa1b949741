"""`tractax predict`."""

import os
from pathlib import Path
from typing import Annotated, Literal

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import tyro

from ..deep_linear import LinearTask
from ..plotting import new_figure, save
from ..prediction import (
    DataSet,
    Forecast,
    Outcome,
    draw,
    forecast,
    initialise,
    load_data,
    load_digits,
    save_numbers,
    simulate,
)


def predict(
    data: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="DATA")] = None,
    /,
    targets: str | None = None,
    labels: Literal["auto", "classes", "values"] = "auto",
    whiten: bool = True,
    center: bool = True,
    start: Literal["balanced", "aligned", "lambda"] = "balanced",
    lam: float = 0.0,
    depth: int = 2,
    width: int | None = None,
    init_scale: float | None = None,
    horizon: float | None = None,
    seed: int = 0,
    figure: str | None = None,
    numbers: str | None = None,
) -> None:
    """Predict the training of a deep linear network on a data set, then train it and compare.

    Without DATA, the UCI handwritten digits. Writes a figure and the numbers.

    Args:
        data: A .npz, .npy or .csv file, one example a row. Default: the UCI handwritten digits.
        targets: Where the targets are: a file, an array of the .npz file, or columns (names or numbers, comma-separated).
        labels: Turn a column of labels into classes (one-hot), take it as values, or decide by looking at it.
        whiten: Whiten the inputs. Without, there is no closed form, and the reduced equations are compared instead.
        center: Subtract the means of inputs and targets.
        start: Initial weights: balanced and random, aligned with the task, or lambda-balanced.
        lam: The lambda of a lambda-balanced start.
        depth: Layers of weights.
        width: Hidden units per layer. Default: the smaller of the numbers of inputs and outputs.
        init_scale: Size of the initial weights. Default: 0.001; beyond two layers, 0.001 ** (1 / depth).
        horizon: Train until this time. Default: half as long again as the predicted learning times.
        seed: Draws the initial weights.
        figure: Where the figure goes (.png, .pdf, .svg). Default: tractax-NAME.png.
        numbers: Where the numbers go (.npz). Default: tractax-NAME.npz.
    """
    dataset = load_digits() if data is None else load_data(data, targets, labels)
    figure_path = _writable(figure or f"tractax-{dataset.name}.png", (".png", ".pdf", ".svg"), "figure")
    numbers_path = _writable(numbers or f"tractax-{dataset.name}.npz", (".npz",), "numbers")
    task = LinearTask.from_data(
        jnp.asarray(dataset.inputs), jnp.asarray(dataset.targets), whiten_inputs=whiten, center=center
    )
    _print_data(dataset, task)
    model = initialise(
        task, start=start, depth=depth, width=width, init_scale=init_scale, lam=lam, key=jax.random.key(seed)
    )
    size = np.linalg.norm(np.asarray(model.product), ord=2)
    print(f"network  {' - '.join(map(str, model.sizes))}, {start} start (map of size {size:.1g}), gradient flow")
    if not whiten:
        print("theory   inputs that are not whitened have no closed form")
    predicted = forecast(model, task, start=start, horizon=horizon)
    print(f"theory   {predicted.theory}")
    for assumption in predicted.assumptions:
        print(f"         {assumption}")
    print(f"training until t = {float(predicted.ts[-1]):.4g} (learning rate × steps), now simulated:")
    outcome = simulate(predicted, progress_meter=diffrax.TqdmProgressMeter())
    _print_table(predicted, outcome)
    picture = new_figure(11.0, 4.2)
    draw(picture, predicted, outcome, dataset.name)
    save(picture, figure_path)
    save_numbers(numbers_path, predicted, outcome)
    print(f"figure   {figure_path}\nnumbers  {numbers_path}")


def _writable(path: str, suffixes: tuple[str, ...], what: str) -> Path:
    """The path, if a file of this kind can be written there: found out before the work, not after it."""
    target = Path(path)
    if target.suffix.lower() not in suffixes:
        raise ValueError(f"`--{what}` must end in {' or '.join(suffixes)}; got {path!r}.")
    if not target.parent.is_dir() or not os.access(target.parent, os.W_OK) or target.is_dir():
        raise ValueError(f"`--{what}` must be a file in a folder that can be written to; got {path!r}.")
    return target


def _print_data(dataset: DataSet, task: LinearTask) -> None:
    examples, n_in = dataset.inputs.shape
    kind = f"{len(dataset.classes)} classes" if dataset.classes else f"{dataset.targets.shape[1]} target(s)"
    print(f"data     {dataset.name}: {examples} examples, {n_in} inputs, {kind}")
    for note in dataset.notes:
        print(f"         {note}")
    if task.whitened and task.optimum.shape[1] < n_in:
        print(f"         Whitened inputs: {task.optimum.shape[1]} directions vary.")


def _print_table(predicted: Forecast, outcome: Outcome) -> None:
    """Learning times, predicted and simulated, and the largest errors."""
    s = np.asarray(predicted.reader.singular_values)
    simulated = np.asarray(outcome.learning_times)
    theory = np.full(s.shape, np.nan) if predicted.learning_times is None else np.asarray(predicted.learning_times)
    print("\n  mode  singular value  predicted time  simulated time  relative error")
    shown = np.flatnonzero(s > 1e-10 * s[0])
    for i in shown[:30]:
        error = abs(simulated[i] - theory[i]) / theory[i]
        print(f"  {i + 1:4d}  {s[i]:14.6g}  {_cell(theory[i])}  {_cell(simulated[i])}  {_cell(error, '.1e')}")
    if shown.size > 30:
        print(f"  … and {shown.size - 30} weaker modes, in the file of numbers")
    if outcome.error is not None:
        print(
            "\nlargest error between theory and simulation, at any time: "
            f"modes {float(outcome.error.strength):.1e}, loss {float(outcome.error.loss):.1e} (relative)"
        )
    steps = int(outcome.trajectory.stats["num_steps"])
    print(
        f"loss     {outcome.reading.loss[0]:.4g} → {outcome.reading.loss[-1]:.4g}, best linear map "
        f"{float(predicted.task.floor):.4g} ({steps} adaptive steps)"
    )


def _cell(value: float, form: str = ".6g") -> str:
    return f"{'—' if np.isnan(value) else format(value, form):>14}"
