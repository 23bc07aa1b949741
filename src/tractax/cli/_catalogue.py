"""`tractax list`, `tractax verify`, `tractax plot`."""

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Annotated, Any

import tyro

from ..core import whole_file
from ..plotting import new_figure, save
from ..systems import AbstractSystem, Verification, catalogue, get
from ..systems import verify as verify_system


def list_systems(family: str | None = None) -> None:
    """List the catalogue: name, family, kind, paper.

    Args:
        family: Only this family.
    """
    systems = catalogue(family)
    rows = [("NAME", "FAMILY", "KIND", "PAPER", "WHAT")]
    rows += [(s.name, s.family, s.kind, str(s.citation), s.summary) for s in systems]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) + "  " + row[-1])


def verify(
    names: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="NAME")] = (),
    /,
    family: str | None = None,
    json_file: Annotated[str | None, tyro.conf.arg(name="json", metavar="FILE")] = None,
) -> None:
    """Run the checks of the catalogue. Exit code 1 if any fails.

    Args:
        names: Systems to check. Default: all.
        family: Only systems of this family.
        json_file: Also write the results to this file.
    """
    chosen = tuple(get(name) for name in names) if names else catalogue(family)
    if names and family is not None:
        allowed = {system.name for system in catalogue(family)}
        strangers = [name for name in names if name not in allowed]
        if strangers:
            raise ValueError(f"`NAME` must belong to family {family!r}; {', '.join(strangers)} does not.")
    if json_file is not None and (Path(json_file).is_dir() or not Path(json_file).resolve().parent.is_dir()):
        raise ValueError(f"`--json` must be a file in an existing folder; got {json_file!r}.")
    results = []
    width = max(len(system.name) for system in chosen)
    for i, system in enumerate(chosen, 1):
        result = _checked(system, f"[{i}/{len(chosen)}] {system.name:<{width}}  checking …")
        results.append(result)
        print(f"[{i}/{len(chosen)}] {system.name:<{width}}  {_verdict(result)}", flush=True)
        # What has been checked survives an interruption.
        if json_file is not None:
            _write_json(Path(json_file), results)
    failed = [result.name for result in results if not result.passed]
    print(f"{len(results) - len(failed)} of {len(results)} passed" + (f"; failed: {', '.join(failed)}" if failed else ""))
    if failed:
        sys.exit(1)


def plot(
    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")],
    /,
    output: Annotated[str | None, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = None,
) -> None:
    """Draw a system's headline figure, theory over simulation.

    Args:
        name: The system.
        output: Where the figure goes (.png, .pdf, .svg). Default: NAME.png.
    """
    system = get(name)
    path = Path(output or f"{name}.png")
    if not path.resolve().parent.is_dir():
        raise ValueError(f"`--output` must be a file in an existing folder; got {str(path)!r}.")
    figure = new_figure()
    if path.suffix.removeprefix(".").lower() not in figure.canvas.get_supported_filetypes():
        raise ValueError(f"`--output` must end in .png, .pdf, .svg or another image format; got {str(path)!r}.")
    system.draw(figure)
    print(save(figure, path))


def _checked(system: AbstractSystem, waiting: str) -> Verification:
    """The result, with a line of progress meanwhile where a person is looking."""
    if sys.stdout.isatty():
        print(waiting, end="\r", flush=True)
    return verify_system(system)


def _verdict(result: Verification) -> str:
    interval = "" if result.interval is None else f" in [{result.interval[0]:.3g}, {result.interval[1]:.3g}]"
    return (
        f"{'pass' if result.passed else 'FAIL'}  {result.kind:<10}  {result.quantity}: "
        f"claimed {result.claimed:.3g}, measured {result.measured:.3g}{interval}  ({result.seconds:.1f} s)"
    )


def _write_json(path: Path, results: list[Verification]) -> None:
    """Complete or not at all. JSON knows no NaN: such a measurement is written as null."""

    def clean(value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    objects = [{key: clean(value) for key, value in dataclasses.asdict(result).items()} for result in results]
    with whole_file(path) as draft:
        draft.write_text(json.dumps(objects, indent=2) + "\n")
