"""Chunks of an ensemble on disk: each is there as soon as it is finished, or not at all."""

import json
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import diffrax
import jax
import numpy as np

from ..core import whole_file

_MANIFEST = "ensemble.json"


class Archive:
    """A folder with one `.npz` file for each finished chunk, and a manifest that says of which ensemble.

    **Arguments:**

    - `path`: the folder; made if it does not exist.
    - `configuration`: what the results depend on, by name. A folder of another configuration is refused.

    **Raises:**

    `ValueError` if the folder holds something else, naming what differs.
    """

    def __init__(self, path: str | Path, configuration: Mapping[str, Any]):
        self.folder = Path(path)
        manifest = self.folder / _MANIFEST
        wanted = json.loads(json.dumps(configuration))
        if not manifest.exists():
            if self.folder.exists() and not (self.folder.is_dir() and all(map(_is_draft, self.folder.iterdir()))):
                raise ValueError(f"`path` must be a new folder, or one that an ensemble was written to; got {path}.")
            self.folder.mkdir(parents=True, exist_ok=True)
            with whole_file(manifest) as draft:
                draft.write_text(json.dumps(wanted, indent=2) + "\n")
            return
        try:
            found = dict(json.loads(manifest.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(f"`path` holds a manifest that cannot be read: {manifest} ({error}).") from error
        changed = sorted(key for key in {*wanted, *found} if wanted.get(key) != found.get(key))
        if changed:
            details = "; ".join(f"{key}: {found.get(key)} on disk, {wanted.get(key)} now" for key in changed)
            raise ValueError(
                f"`path` holds the results of another ensemble, {path}: it differs in {', '.join(changed)} ({details}). "
                "Choose another folder, or delete this one."
            )

    def read(self, chunk: int) -> list[np.ndarray] | None:
        """The arrays of a finished chunk, or `None`."""
        try:
            with np.load(self._file(chunk), allow_pickle=False) as file:
                return [file[f"array_{i}"] for i in range(len(file.files))]
        except FileNotFoundError:
            return None
        except Exception as error:
            # What a damaged archive makes the readers of NumPy and of zip files raise is of many kinds.
            raise ValueError(
                f"`path` holds a chunk that cannot be read: {self._file(chunk)} ({error}). Delete it to compute it again."
            ) from error

    def write(self, chunk: int, arrays: list[np.ndarray]) -> None:
        """Stores a chunk."""
        with whole_file(self._file(chunk)) as draft, draft.open("wb") as file:
            np.savez(file, **{f"array_{i}": array for i, array in enumerate(arrays)})

    def _file(self, chunk: int) -> Path:
        return self.folder / f"chunk-{chunk:06d}.npz"


def _is_draft(file: Path) -> bool:
    """Whether a file is a manifest that a process which was killed, or is at work now, has begun to write."""
    return file.match(f".{Path(_MANIFEST).stem}.*")


def versions() -> dict[str, str]:
    """What the last bits of a result depend on beyond the program."""
    device = jax.devices()[0]
    return {"jax": jax.__version__, "diffrax": diffrax.__version__, "device": device.device_kind}


def digest(*parts: bytes) -> str:
    """A short fingerprint."""
    joined = sha256()
    for part in parts:
        joined.update(len(part).to_bytes(8, "little"))
        joined.update(part)
    return joined.hexdigest()[:16]


def fingerprint_of_program(text: str) -> str:
    """Of a lowered program, apart from addresses of host callbacks, which differ from process to process."""
    return digest(re.sub(r'backend_config = "\d+"|0x[0-9a-f]+(?=>)', "", text).encode())


def fingerprint_of_arrays(tree: Any) -> str:
    """Of the values of a PyTree of arrays and PRNG keys, and of its structure."""
    leaves, structure = jax.tree.flatten(jax.tree.map(_plain, tree))
    described = [f"{leaf.dtype}{leaf.shape}".encode() + np.ascontiguousarray(leaf).tobytes() for leaf in leaves]
    return digest(str(structure).encode(), *described)


def _plain(x: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(x) if jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
