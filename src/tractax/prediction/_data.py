"""Read a data set: inputs, and targets or class labels."""

import csv
import importlib.resources
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

Labels = Literal["auto", "classes", "values"]


@dataclass(frozen=True)
class DataSet:
    """A supervised data set.

    **Attributes:**

    - `name`: for titles and file names.
    - `inputs`: shape `(examples, in)`.
    - `targets`: shape `(examples, out)`; for classes, one column of zeros and ones for each.
    - `classes`: the names of the classes, or `None` for regression.
    - `notes`: what was done to the data, in sentences.
    """

    name: str
    inputs: Float[np.ndarray, "examples in"]
    targets: Float[np.ndarray, "examples out"]
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


def load_digits() -> DataSet:
    """The UCI handwritten digits (Alpaydin and Kaynak 1998, CC BY 4.0): 1797 images of 8 x 8 pixels, scaled to 0..1."""
    resource = importlib.resources.files("tractax.prediction") / "digits.npz"
    with resource.open("rb") as file, np.load(file) as arrays:
        return _data_set("digits", arrays["inputs"] / 16.0, arrays["labels"], "classes")


def load_data(path: str | Path, targets: str | None = None, labels: Labels = "auto") -> DataSet:
    """Reads a data set from a file.

    **Arguments:**

    - `path`: a `.npz`, `.npy` or `.csv` file, one example a row. A CSV file may start with a line of column names.
    - `targets`: where the targets are: another `.npy` or `.csv` file; the name of an array in a `.npz` file; or columns
      of the table itself, by name or by number from 0 (negative from the end), separated by commas. `None`: the array
      `targets`, `labels` or `y` of a `.npz` file, and the last column otherwise.
    - `labels`: `"classes"` turns a single column into one column of zeros and ones for each class, `"values"` leaves
      numbers alone, `"auto"` takes a single column of text for classes, and one of at most 50 different whole numbers, or
      of text and numbers, if each occurs twice or more on average.

    **Raises:**

    `ValueError` for a file that is missing, empty, unreadable or of another type, for targets that are not there or do
    not fit, for NaN and infinities, and for targets that are constant.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"`data` must be a file; there is none at {str(path)!r}.")
    if path.stat().st_size == 0:
        raise ValueError(f"`data` must hold examples; {str(path)!r} is empty.")
    if path.suffix.lower() == ".npz":
        inputs, target = _split_archive(path, targets)
    else:
        table, names = _read_table("data", path)
        inputs, target = _split_table(table, names, targets)
    return _data_set(path.stem, inputs, target, labels)


def _data_set(name: str, inputs: np.ndarray, targets: np.ndarray, labels: Labels) -> DataSet:
    x = _numbers("inputs", inputs)
    _check_kind("targets", targets)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"`inputs` must have shape (examples, in) without empty axes; got {x.shape}.")
    targets = targets[:, None] if targets.ndim == 1 else targets
    if targets.ndim != 2 or targets.shape[0] != x.shape[0] or targets.shape[1] == 0:
        raise ValueError(f"`targets` must have one row for each of the {x.shape[0]} inputs; got shape {targets.shape}.")
    if x.shape[0] < 2:
        raise ValueError(f"`data` must hold at least two examples; got {x.shape[0]}.")
    notes = []
    constant = int(np.sum(np.ptp(x, axis=0) == 0))
    if constant:
        notes.append(f"{constant} of {x.shape[1]} inputs are constant.")
    if labels == "classes" or (labels == "auto" and _looks_like_classes(targets)):
        y, classes = _one_hot(targets)
    else:
        y, classes = _numbers("targets", targets), None
    flat = np.flatnonzero(np.ptp(y, axis=0) == 0)
    if flat.size:
        raise ValueError(
            f"`targets` must vary; column {flat[0]} of {y.shape[1]} is constant"
            + (" (a single class)." if classes else ".")
        )
    return DataSet(name, x, y, classes, tuple(notes))


def _check_kind(name: str, x: np.ndarray) -> None:
    if x.dtype.kind not in "biufUS":
        raise ValueError(f"`{name}` must be real numbers, or text; got dtype {x.dtype}.")


def _numbers(name: str, x: np.ndarray) -> np.ndarray:
    _check_kind(name, x)
    try:
        numbers = x.astype(float)
    except ValueError:
        bad = np.argwhere(~_are_numbers(x))
        cell = str(x[tuple(bad[0])])
        found = f"{cell!r} is not" if cell else "there is an empty cell"
        raise ValueError(f"`{name}` must be numbers; {found} in {_place(bad)}.") from None
    bad = np.argwhere(~np.isfinite(numbers))
    if bad.size:
        raise ValueError(f"`{name}` must be finite; there is a NaN or an infinity in {_place(bad)}.")
    return numbers


def _place(bad: np.ndarray) -> str:
    where = ", ".join(f"{axis} {i}" for axis, i in zip(("row", "column"), bad[0], strict=False))
    return f"{where} ({len(bad)} in all)"


def _looks_like_classes(targets: np.ndarray) -> bool:
    if targets.shape[1] != 1:
        return False
    column = targets[:, 0]
    numbers = _are_numbers(column)
    if not numbers.any():
        return True
    different = np.unique(column)
    if numbers.all():
        different = np.unique(column.astype(float))
        if different.size > 50 or not np.all(np.isfinite(different)) or np.any(different != np.round(different)):
            return False
    return 2 * different.size <= column.size


def _one_hot(targets: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    if targets.shape[1] != 1:
        raise ValueError(f"`targets` must be one column of class labels; got {targets.shape[1]} columns.")
    column = targets[:, 0]
    # "1" and "1.0" are one class.
    if column.dtype.kind == "f" or (column.dtype.kind in "US" and _are_numbers(column).all()):
        column = _numbers("targets", column)
    elif column.dtype.kind in "US":
        missing = np.isin(np.char.lower(column.astype(str)), ("", "nan"))
        if missing.any():
            raise ValueError(
                f"`targets` must have a label in every row; there is none in {_place(np.argwhere(missing))}."
            )
    names, index = np.unique(column, return_inverse=True)
    return np.eye(names.size)[index.reshape(-1)], tuple(
        f"{name:.15g}" if column.dtype.kind == "f" else str(name) for name in names
    )


def _split_archive(path: Path, targets: str | None) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"`data` must be a readable .npz file; {str(path)!r} is not ({error}).") from error
    if targets is not None and targets not in arrays and Path(targets).is_file():
        target = None
    else:
        target = arrays.pop(_pick(arrays, "targets", targets, ("targets", "labels", "y", "Y")))
    inputs = arrays[_pick(arrays, "inputs", None, ("inputs", "data", "x", "X"))]
    return inputs, _read_targets(Path(str(targets)), inputs) if target is None else target


def _pick(arrays: dict[str, np.ndarray], what: str, asked: str | None, usual: tuple[str, ...]) -> str:
    if asked is not None:
        if asked not in arrays:
            raise ValueError(f"`{what}` must name an array of the file ({', '.join(arrays)}) or a file; got {asked!r}.")
        return asked
    found = [name for name in usual if name in arrays]
    if found:
        return found[0]
    if len(arrays) == 1:
        return next(iter(arrays))
    raise ValueError(
        f"`data` must hold {what} under one of the names {', '.join(usual)}; it holds {', '.join(arrays) or 'none'}."
    )


def _read_table(what: str, path: Path) -> tuple[np.ndarray, list[str] | None]:
    """A table of numbers or text, and its column names if it has any."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            table = np.load(path, allow_pickle=False)
        elif suffix == ".csv":
            table = np.array(_read_rows(path))
        else:
            raise ValueError("expected .npz, .npy or .csv")
    except (OSError, ValueError, EOFError, csv.Error) as error:
        raise ValueError(
            f"`{what}` must be a readable .npz, .npy or .csv file; {str(path)!r} is not ({error})."
        ) from error
    _check_kind(what, table)
    if suffix == ".csv" and not _are_numbers(table[0]).any() and len(table) > 1:
        return table[1:], [str(name) for name in table[0]]
    return (table[:, None] if table.ndim == 1 else table), None


def _read_rows(path: Path) -> list[list[str]]:
    """The rows of a CSV file that are not blank."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        cells = ([cell.strip() for cell in row] for row in csv.reader(file, skipinitialspace=True))
        rows = [row for row in cells if any(row)]
    if not rows:
        raise ValueError("it is blank")
    for i, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise ValueError(f"line {i} has {len(row)} cells, line 0 has {len(rows[0])}")
    return rows


def _read_targets(path: Path, inputs: np.ndarray) -> np.ndarray:
    target, names = _read_table("targets", path)
    if names is not None and (len(target) + 1,) == inputs.shape[:1]:
        # Not a line of names, but the first label.
        return np.vstack([names, target])
    return target


@np.vectorize(otypes=[bool])
def _are_numbers(cell: object) -> bool:
    try:
        float(cell)  # pyright: ignore
    except ValueError:
        return False
    return True


def _split_table(table: np.ndarray, names: list[str] | None, targets: str | None) -> tuple[np.ndarray, np.ndarray]:
    if table.ndim != 2:
        raise ValueError(f"`data` must be a table, one example a row; got shape {table.shape}.")
    if targets is not None and Path(targets).is_file():
        return table, _read_targets(Path(targets), table)
    width = table.shape[1]
    asked = "-1" if targets is None else targets
    cells = [asked] if names is not None and asked in names else [cell.strip() for cell in asked.split(",")]
    chosen = [_column(cell, names, width) for cell in cells]
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"`targets` must name every column once; got {targets!r}.")
    rest = [i for i in range(width) if i not in chosen]
    if not rest:
        hint = " Cells are separated by commas." if width == 1 else ""
        raise ValueError(f"`targets` must leave columns for the inputs; the table has {width} and all are targets.{hint}")
    return table[:, rest], table[:, chosen]


def _column(cell: str, names: list[str] | None, width: int) -> int:
    if names is not None and cell in names:
        if names.count(cell) > 1:
            raise ValueError(f"`targets` must name columns uniquely; {names.count(cell)} are called {cell!r}.")
        return names.index(cell)
    try:
        i = int(cell)
    except ValueError:
        known = f" (columns: {', '.join(names[:8])}{', …' if len(names) > 8 else ''})" if names else ""
        raise ValueError(f"`targets` must be a file or name columns of the table{known}; got {cell!r}.") from None
    if not -width <= i < width:
        raise ValueError(f"`targets` must be columns from 0 to {width - 1}; got {i}.")
    return i % width
