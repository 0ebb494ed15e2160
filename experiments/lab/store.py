"""The arrays that a run has computed so far, in one file with a digest of them."""

import io
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxood import integrity, parallel
from jaxood.integrity import write_file


def identity(images: Mapping[str, np.ndarray] | None = None, **models: Any) -> dict[str, str]:
    """Compute the digests that `Scores.expect` takes.

    Args:
        images: sets of images by name.
        **models: variables of models by name.
    """
    parts = {f"images of {name}": integrity.digest(x) for name, x in (images or {}).items()}
    return parts | {name: integrity.digest(variables) for name, variables in models.items()}


class Scores:
    """Arrays by name in one file ``scores.npz``; an array that is there is not computed again.

    Process 0 reads and writes the file, and all processes have its arrays. The file also holds a
    digest of the arrays, and their identity: digests of what they were computed from.
    """

    def __init__(self, path: Path, identity: Mapping[str, str] | None = None) -> None:
        """Open a file, or start empty if there is none.

        Args:
            path: path of the file.
            identity: as for `expect`.

        Raises:
            integrity.Damaged: if the file is not as it was written.
            integrity.Changed: as by `expect`.
        """
        self.path = path
        self.arrays: dict[str, np.ndarray]
        kept: dict[str, str]
        self.arrays, kept = parallel.on_writer(_load_arrays, path)
        self.identity = kept
        self.expect(identity or {})

    def expect(self, identity: Mapping[str, str]) -> None:
        """Declare what the arrays are computed from; the file keeps it with them.

        Args:
            identity: by name, digests of models and images, as by `identity`. Names that the file
                does not have yet are added.

        Raises:
            integrity.Changed: if the arrays that are there were computed from something else.
        """
        kept = self.identity
        if self.arrays:
            known = identity.keys() & kept.keys() if kept else identity.keys()
            integrity.check_same(
                {name: kept[name] for name in known if name in kept},
                {name: identity[name] for name in known},
                str(self.path),
                "delete it to score again, or choose another folder",
            )
        self.identity = kept | dict(identity)

    def get(self, name: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the array ``name``; if it is new, compute it and write it to the file."""
        if name not in self.arrays:
            self.put({name: compute()})
        return self.arrays[name]

    def put(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep arrays, and write the file."""
        self.arrays |= arrays
        if not parallel.is_writer():
            return
        content = self.arrays | {_IDENTITY: np.array(json.dumps(self.identity))}
        content[_DIGEST] = np.array(integrity.digest(content))
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **content)  # pyright: ignore[reportArgumentType]
        write_file(self.path, buffer.getvalue())

    def timed(self, name: str, compute: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
        """Return the array ``name``, as by `get`, and the seconds that its computation took."""
        start = time.monotonic()
        values = self.get(name, compute)
        seconds = self.get(f"seconds/{name}", lambda: np.array(time.monotonic() - start))
        return values, float(seconds)


_DIGEST, _IDENTITY = "digest", "identity"


def _load_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read the arrays of a file and their identity."""
    if not path.exists():
        return {}, {}
    content = path.read_bytes()
    again = "delete it, and the same command scores again"
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = dict(file)
        written = str(arrays.pop(_DIGEST))
        intact = integrity.digest(arrays) == written
        identity = json.loads(str(arrays.pop(_IDENTITY)))
    except Exception as error:  # a damaged archive raises many types of errors
        raise integrity.Damaged(f"{path} cannot be read as it was written: {again}") from error
    if not intact:
        raise integrity.Damaged(f"{path} does not fit the digest in it: {again}")
    return arrays, identity
