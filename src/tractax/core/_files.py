"""Write files completely or not at all."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A path beside `path` to write to, which takes its place when the block ends, and is removed if the block fails."""
    path = Path(path)
    # Processes on several hosts may share a folder, and the numbers of processes.
    draft = path.with_name(f".{path.stem}.{uuid.uuid4().hex}{path.suffix}")
    try:
        yield draft
        with draft.open("r+b") as file:
            # On the disk before it has its name, so that not even a loss of power leaves half of it.
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
