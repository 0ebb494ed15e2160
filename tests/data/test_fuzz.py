"""Malformed inputs over every reader: right pixels, or one `DataError`, soon and in little memory.

`malformed(folder, seed)` makes one malformed source a kind of reader. A failure names the seed and
the kind; `python tests/test_fuzz.py FOLDER SEED` leaves those sources in a folder to look at.
"""

import itertools
import re
import resource
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from jaxood import data
from jaxood.data import files, tfds_folders
from jaxood.data.images import DataError, Images
from tests.data.test_data import write_tfds
from tests.data.test_files import png, write_idx

SEEDS = 90
SECONDS = 5
BYTES = 2**30


class Case(NamedTuple):
    """A source that is malformed.

    Attributes:
        what: its seed, kind and mutation.
        open: opens it.
        right: its pixels, where the format has a checksum; for other formats None.
        alone: whether it is a folder of images, the first of which is malformed alone.
    """

    what: str
    open: Callable[[], Images]
    right: np.ndarray | None
    alone: bool


def malformed(folder: Path, seed: int) -> Iterator[Case]:
    """One malformed source of every kind, written under an empty folder."""
    for number, (kind, source) in enumerate(_sources().items()):
        rng = np.random.default_rng([seed, number])
        place = folder / kind
        for name, content in source.files.items():
            path = place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name == source.broken:
                mutation = _MUTATIONS[rng.integers(len(_MUTATIONS))]
                content = mutation(rng, content)
                what = f"seed {seed}, {kind}: {mutation.__name__.strip('_')}"
            path.write_bytes(content)
        yield Case(what, partial(source.open, place), source.right, source.right_alone)


# ------------------------------------------------------------------------------- whole sources


class _Source(NamedTuple):
    files: dict[str, bytes]
    broken: str
    open: Callable[[Path], Images]
    right: np.ndarray | None
    right_alone: bool = False


@cache
def _sources() -> dict[str, _Source]:
    """Small whole sources; each is read before it is broken."""
    import tempfile

    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    gray = rng.integers(0, 256, (4, 28, 28, 1), dtype=np.uint8)
    labels = np.arange(4)
    sources = {}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        large = np.tile(colour, (1, 8, 16, 1))  # more than is read for the header
        np.save(root / "a.npy", large)
        np.savez(root / "b.npz", x_test=large, y_test=labels)
        np.savez_compressed(root / "c.npz", x_test=large, y_test=labels)
        checked: dict[str, np.ndarray | None] = {"a.npy": None, "b.npz": large, "c.npz": large}
        for name, right in checked.items():
            whole = {name: (root / name).read_bytes()}
            sources[name] = _Source(whole, name, partial(_open, name), right)

        kinds = ("images-idx3", "labels-idx1")
        for suffix, right, kind in itertools.product(("", ".gz"), (gray,), kinds):
            write_idx(root / f"idx{suffix}/t10k-images-idx3-ubyte{suffix}", gray[..., 0])
            write_idx(root / f"idx{suffix}/t10k-labels-idx1-ubyte{suffix}", labels.astype(np.uint8))
            name = f"idx{suffix} {kind}"
            whole = _contents(root / f"idx{suffix}")
            broken = f"t10k-{kind}-ubyte{suffix}"
            sources[name] = _Source(whole, broken, partial(_open, "."), right if suffix else None)

        for suffix, options in {
            ".png": {},
            ".jpg": {"format": "JPEG"},
            ".bmp": {"format": "BMP"},
            ".webp": {"format": "WEBP", "lossless": True},
        }.items():
            whole = {f"{i}{suffix}": png(image, **options) for i, image in enumerate(colour)}
            right = colour if suffix == ".png" else None
            sources[suffix] = _Source(whole, f"0{suffix}", partial(_open, "."), right, True)

        write_tfds(root / "mnist/3.0.1", {"test": (gray, labels)})
        whole = _contents(root / "mnist/3.0.1")
        for name in whole:
            sources[f"TFDS {name}"] = _Source(whole, name, _open_tfds, gray)
    return sources


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _open(name: str, place: Path) -> Images:
    return files.open_images(place / name, "test")


def _open_tfds(place: Path) -> Images:
    return tfds_folders.open_tfds(place, "mnist", data.DATASETS["mnist"], "test")


# ------------------------------------------------------------------------------------ mutations


def _flipped_bits(rng, content):
    broken = np.frombuffer(content, np.uint8).copy()
    for at in rng.integers(len(broken), size=rng.integers(1, 4)):
        broken[at] ^= 1 << rng.integers(8)
    return broken.tobytes()


def _flipped_bit_near_an_end(rng, content):
    broken = bytearray(content)
    at = int(rng.integers(min(128, len(broken))))
    broken[at if rng.integers(2) else -1 - at] ^= 1 << int(rng.integers(8))
    return bytes(broken)


def _cut_off(rng, content):
    return content[: rng.integers(len(content))]


def _trailing_bytes(rng, content):
    return content + (bytes(rng.integers(1, 100)) if rng.integers(2) else rng.bytes(30))


def _zeroed_range(rng, content):
    start = int(rng.integers(len(content)))
    return content[:start] + bytes(len(content[start : start + 40])) + content[start + 40 :]


def _random_range(rng, content):
    start = int(rng.integers(len(content)))
    return content[:start] + rng.bytes(len(content[start : start + 40])) + content[start + 40 :]


def _random_bytes(rng, content):
    keep = int(rng.choice([0, 4, 8, 16]))
    return content[:keep] + rng.bytes(int(rng.integers(2000)))


def _bytes_left_out(rng, content):
    start = int(rng.integers(len(content)))
    return content[:start] + content[start + int(rng.integers(1, 9)) :]


def _twice(rng, content):
    return content + content


def _lie_in_a_header(rng, content):
    """A size of four bytes at one of the ends, where headers and directories lie."""
    sizes = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**20, 65_535]
    size = int(rng.choice(sizes)).to_bytes(4, rng.choice(["big", "little"]))
    at = int(rng.integers(min(128, len(content))))
    at = at if rng.integers(2) else max(0, len(content) - 4 - at)
    return content[:at] + size + content[at + 4 :]


def _lie_with_checksum(rng, content):
    """Another size in the header of a PNG, under a right checksum; elsewhere another number."""
    number = str(rng.choice([-1, 0, 3, 10**12, 10**30])).encode()
    if content.startswith(b"\x89PNG"):
        at = int(rng.choice([16, 20]))
        size = int(rng.choice([0, 4, 9, 2**20, 2**31])).to_bytes(4, "big")
        header = content[12:at] + size + content[at + 4 : 29]
        return content[:12] + header + zlib.crc32(header).to_bytes(4, "big") + content[33:]
    found = list(re.finditer(rb"\d+", content))
    if not found:
        return content[::-1]
    one = found[int(rng.integers(len(found)))]
    return content[: one.start()] + number + content[one.end() :]


_MUTATIONS = [
    _flipped_bits,
    _flipped_bit_near_an_end,
    _cut_off,
    _trailing_bytes,
    _zeroed_range,
    _random_range,
    _random_bytes,
    _bytes_left_out,
    _twice,
    _lie_in_a_header,
    _lie_with_checksum,
]


# ----------------------------------------------------------------------------------- the tests


def _read(case: Case) -> str:
    """Read a source whole, and examine it: the outcome is "read" or "refused"."""
    try:
        images = case.open()
        pixels, labels = images.rows(0, len(images))
    except DataError as error:
        assert str(error).isprintable(), error
        if not case.alone:
            return "refused"
        images = case.open()
        readable, bad = images.examine(slice(0, len(images)))
        assert list(bad) == [0] and len(readable) == len(images) - 1
        assert case.right is None or np.array_equal(readable, case.right[1:])
        return "refused"
    assert pixels.dtype == np.uint8 and pixels.ndim == 4 and pixels.shape == images.shape
    assert labels is None or np.array_equal(labels, range(4)) or case.right is None
    assert case.right is None or np.array_equal(pixels, case.right)
    half = len(images) // 2
    np.testing.assert_array_equal(images[half : len(images)], pixels[half:])
    np.testing.assert_array_equal(images.examine(slice(0, len(images)))[0], pixels)
    return "read"


def test_whole_sources_are_read(tmp_path):
    for kind, source in _sources().items():
        for name, content in source.files.items():
            (tmp_path / kind / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / kind / name).write_bytes(content)
        case = Case(kind, partial(source.open, tmp_path / kind), source.right, source.right_alone)
        assert _read(case) == "read", kind


@pytest.mark.filterwarnings("default")  # a warning is neither an error nor a wrong pixel
def test_malformed_inputs_are_read_right_or_refused_soon_in_little_memory(tmp_path):
    outcomes = []
    peak = _peak_kilobytes()
    tracemalloc.start(1)
    try:
        for seed in range(SEEDS):
            for case in malformed(tmp_path / str(seed), seed):
                tracemalloc.reset_peak()
                start = time.perf_counter()
                try:
                    outcomes.append(_read(case))
                except Exception as error:
                    raise AssertionError(f"{case.what}: {error!r}") from error
                assert time.perf_counter() - start < SECONDS, case.what
                assert tracemalloc.get_traced_memory()[1] < BYTES, case.what
                assert _peak_kilobytes() - peak < BYTES // 1024, case.what
    finally:
        tracemalloc.stop()
    assert len(outcomes) > 1000
    assert min(outcomes.count("read"), outcomes.count("refused")) > 100


def _peak_kilobytes() -> int:
    """The most memory that this process had, also that of C libraries."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    for made in malformed(Path(sys.argv[1]), int(sys.argv[2])):
        print(made.what)
