"""Malformed sources of images for every reader: python -m tests.data.malformed FOLDER SEED.

`malformed` makes one malformed source for each kind of reader. The command writes the sources of a
seed, which the message of a failed test names, to a folder where one can look at them.
"""

import itertools
import re
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxood import data
from jaxood.data import files, tfds_folders
from jaxood.data.images import Images
from tests.data.helpers import png, write_idx, write_tfds


class Case(NamedTuple):
    """A malformed source.

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
    """Write one malformed source of every kind under an empty folder."""
    for number, (kind, source) in enumerate(sources().items()):
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


class Source(NamedTuple):
    """A whole source of images.

    Attributes:
        files: contents of its files by name.
        broken: the name of the file that is mutated.
        open: opens it in its folder.
        right: its pixels, where the format has a checksum; for other formats None.
        right_alone: whether it is a folder of images, of which only the first is mutated.
    """

    files: dict[str, bytes]
    broken: str
    open: Callable[[Path], Images]
    right: np.ndarray | None
    right_alone: bool = False


@cache
def sources() -> dict[str, Source]:
    """Make a small whole source of every kind, by name."""
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    gray = rng.integers(0, 256, (4, 28, 28, 1), dtype=np.uint8)
    labels = np.arange(4)
    made = {}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        large = np.tile(colour, (1, 8, 16, 1))  # longer than the part that is read as the header
        np.save(root / "a.npy", large)
        np.savez(root / "b.npz", x_test=large, y_test=labels)
        np.savez_compressed(root / "c.npz", x_test=large, y_test=labels)
        checked: dict[str, np.ndarray | None] = {"a.npy": None, "b.npz": large, "c.npz": large}
        for name, right in checked.items():
            whole = {name: (root / name).read_bytes()}
            made[name] = Source(whole, name, partial(_open, name), right)

        kinds = ("images-idx3", "labels-idx1")
        for suffix, right, kind in itertools.product(("", ".gz"), (gray,), kinds):
            write_idx(root / f"idx{suffix}/t10k-images-idx3-ubyte{suffix}", gray[..., 0])
            write_idx(root / f"idx{suffix}/t10k-labels-idx1-ubyte{suffix}", labels.astype(np.uint8))
            name = f"idx{suffix} {kind}"
            whole = _contents(root / f"idx{suffix}")
            broken = f"t10k-{kind}-ubyte{suffix}"
            made[name] = Source(whole, broken, partial(_open, "."), right if suffix else None)

        for suffix, options in {
            ".png": {},
            ".jpg": {"format": "JPEG"},
            ".bmp": {"format": "BMP"},
            ".webp": {"format": "WEBP", "lossless": True},
        }.items():
            whole = {f"{i}{suffix}": png(image, **options) for i, image in enumerate(colour)}
            right = colour if suffix == ".png" else None
            made[suffix] = Source(whole, f"0{suffix}", partial(_open, "."), right, True)

        write_tfds(root / "mnist/3.0.1", {"test": (gray, labels)})
        whole = _contents(root / "mnist/3.0.1")
        for name in whole:
            made[f"TFDS {name}"] = Source(whole, name, _open_tfds, gray)
    return made


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
    """Write another size of four bytes near one of the ends, where headers and directories lie."""
    sizes = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**20, 65_535]
    size = int(rng.choice(sizes)).to_bytes(4, rng.choice(["big", "little"]))
    at = int(rng.integers(min(128, len(content))))
    at = at if rng.integers(2) else max(0, len(content) - 4 - at)
    return content[:at] + size + content[at + 4 :]


def _lie_with_checksum(rng, content):
    """Write another size, with a right checksum, into a PNG; another number into other files."""
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


if __name__ == "__main__":
    for made in malformed(Path(sys.argv[1]), int(sys.argv[2])):
        print(made.what)
