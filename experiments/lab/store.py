"""Keep what an experiment has computed so far: arrays in one file, with a digest of them."""

import io
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from jaxood import integrity, parallel
from jaxood.integrity import write_file


def identity(images: Mapping[str, np.ndarray] | None = None, **models) -> dict[str, str]:
    """Digests of sets of images by name, and of models' variables, for `Scores`."""
    parts = {f"images of {name}": integrity.digest(x) for name, x in (images or {}).items()}
    return parts | {name: integrity.digest(variables) for name, variables in models.items()}


class Scores:
    """Arrays by name in one ``scores.npz``: what was computed once is not computed again.

    Process 0 reads and writes the file; all have the arrays. The file holds a digest of them.
    """

    def __init__(self, path: Path, identity: Mapping[str, str] | None = None):
        """Open ``path``, or start empty where there is no such file.

        Args:
            path: of the file.
            identity: digests, by name, of what the arrays are computed from, such as the model
                and the images. The file keeps them; names that it does not have yet are added.

        Raises:
            integrity.Damaged: if the file is not what was written.
            integrity.Changed: if its arrays were computed from something else.
        """
        self.path = path
        self.arrays: dict[str, np.ndarray]
        kept: dict[str, str]
        self.arrays, kept = parallel.on_writer(_load_arrays, path)
        self.identity = kept
        self.expect(identity or {})

    def expect(self, identity: Mapping[str, str]):
        """Say what the arrays are computed from, as for the constructor.

        Raises:
            integrity.Changed: if they were computed from something else.
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
        """The array ``name``; computed, and written to disk with all others, if it is new."""
        if name not in self.arrays:
            self.put({name: compute()})
        return self.arrays[name]

    def put(self, arrays: Mapping[str, np.ndarray]):
        """Keep arrays, and write them to disk with all others."""
        self.arrays |= arrays
        if not parallel.is_writer():
            return
        content = self.arrays | {_IDENTITY: np.array(json.dumps(self.identity))}
        content[_DIGEST] = np.array(integrity.digest(content))
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **content)  # pyright: ignore[reportArgumentType]
        write_file(self.path, buffer.getvalue())

    def timed(self, name: str, compute: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
        """The array ``name``, as by `get`, and the seconds that it once took to compute."""
        start = time.monotonic()
        values = self.get(name, compute)
        seconds = self.get(f"seconds/{name}", lambda: np.array(time.monotonic() - start))
        return values, float(seconds)


_DIGEST, _IDENTITY = "digest", "identity"


def _load_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays in a file of `Scores`, and what they were computed from."""
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
    except Exception as error:  # an archive can be damaged in as many ways as it has bytes
        raise integrity.Damaged(f"{path} cannot be read as it was written: {again}") from error
    if not intact:
        raise integrity.Damaged(f"{path} does not fit the digest in it: {again}")
    return arrays, identity
