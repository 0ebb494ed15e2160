"""Arrays of images in files: `.npz`, `.npy`, and idx as MNIST's, read row by row.

`jaxood.data.files` finds them and says which names they may have. Sizes in headers are compared
with the file before memory is taken. A file with checksums (`.npz`, gzipped idx) is read through
once when it is opened, so that what is read later, in any order, is what was written; a plain
`.npy` or idx file has none, and damage that keeps its header and length cannot be noticed.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import struct
import weakref
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxood.data.images import (
    DataError,
    Images,
    Loaded,
    MissingSplit,
    Shape,
    check_images,
    check_labels,
    check_shape,
    in_memory,
    open_regular,
    why,
)

_AT_ONCE = 2**20
"""Bytes read at a time: a decompressor holds as many beside them."""

_MOST_IN_MEMORY = 2**28
"""Bytes of an array in Fortran order, and of one that may be compressed more than 200-fold."""


class _Array(NamedTuple):
    """A header describes an array.

    Attributes:
        dtype: Of the array.
        shape: As it is written, of any sign and size.
        fortran: Whether the first index runs fastest.
        start: Where in the file the elements begin.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    fortran: bool
    start: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def open_npy(path: Path, shape: Shape | None, limit: int | None) -> Images:
    """The array of a `.npy` file; arguments as of `jaxood.data.files.open_images`."""
    with _reading(path) as resources:
        file = resources.enter_context(open_regular(path))
        array = _npy_header(file, path)
        check_shape(array.dtype, array.shape, path, shape)
        _check_size(array, _size(file))
        return _open_array(file, array, None, path, shape, limit, resources, True)


def open_npz(path: Path, split: str, shape: Shape | None, limit: int | None) -> Images:
    """A split of a `.npz` file; arguments as of `jaxood.data.files.open_images`."""
    with _reading(path) as resources:
        file = resources.enter_context(open_regular(path))
        if not zipfile.is_zipfile(file):
            raise DataError(
                f"{path}: neither a folder nor a whole .npz file; write it (again) with numpy.savez"
            )
        archive = resources.enter_context(zipfile.ZipFile(file))
        x, y = _names_of(archive, split, path)
        member = resources.enter_context(archive.open(f"{x}.npy"))
        array = _npy_header(member, path)
        n, *_ = check_shape(array.dtype, array.shape, path, shape)
        info = archive.getinfo(f"{x}.npy")
        labels = _npz_labels(archive, f"{y}.npy", n, path) if y else None
        _check_member(archive, info, array)
        if info.compress_type == zipfile.ZIP_STORED:  # then it lies in the file as it is
            file.seek(info.header_offset + 26)
            header = 30 + sum(struct.unpack("<HH", file.read(4)))
            array = array._replace(start=info.header_offset + header + array.start)
            return _open_array(file, array, labels, path, shape, limit, resources, True)
        return _open_array(member, array, labels, path, shape, limit, resources, False)


def find_idx(folder: Path, split: str, kind: str) -> Path | None:
    """The idx file of a split's images (`images-idx3`) or labels (`labels-idx1`)."""
    stem = f"{'t10k' if split == 'test' else split}-{kind}-ubyte"
    return next((p for p in (folder / f"{stem}.gz", folder / stem) if p.is_file()), None)


def open_idx(
    path: Path, labels_path: Path | None, shape: Shape | None, limit: int | None
) -> Images:
    """Images of an idx file, and their labels; the rest as of `jaxood.data.files.open_images`."""
    with _reading(path) as resources:
        file, array, size = _open_idx(path, resources)
        n, *_ = check_shape(array.dtype, array.shape, path, shape)
        labels = _idx_labels(labels_path, n) if labels_path else None
        if size is not None:
            _check_size(array, size)
        else:
            _read_through(file, array.nbytes)
        return _open_array(file, array, labels, path, shape, limit, resources, size is not None)


# ------------------------------------------------------------------------- headers and their sizes


def _npy_header(file: Any, path: Path) -> _Array:
    head = io.BytesIO(file.read(2**14))  # NumPy's own limit is 10,000 characters
    version = np.lib.format.read_magic(head)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(head)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(head)
    else:
        raise ValueError(f"no image array is written in version {version} of the format")
    if dtype.hasobject:
        raise DataError(
            f"{path}: holds pickled Python objects, which may run code and are never read; "
            "store plain uint8 arrays with numpy.savez"
        )
    return _Array(dtype, shape, fortran, head.tell())


def _open_idx(path: Path, resources: ExitStack) -> tuple[Any, _Array, int | None]:
    """An idx file, open behind its header, and its size where it is not gzipped.

    The header is two zero bytes, the type (8: uint8), the rank, and big-endian sizes.
    """
    raw = resources.enter_context(open_regular(path))
    zipped = path.suffix == ".gz"
    file: Any = resources.enter_context(gzip.GzipFile(fileobj=raw)) if zipped else raw
    head = file.read(4)
    if head[:3] != b"\0\0\x08":
        raise ValueError("it does not start as an idx file of bytes")
    shape = tuple(np.frombuffer(file.read(4 * head[3]), ">i4", head[3]).tolist())
    array = _Array(np.dtype(np.uint8), shape, False, 4 + 4 * head[3])
    if zipped:
        _check_expansion(array.nbytes, _size(raw))
    return file, array, None if zipped else _size(raw)


def _size(file: Any) -> int:
    return os.fstat(file.fileno()).st_size


def _check_size(array: _Array, size: int) -> None:
    """`size` is that of the file with the header."""
    if size != array.start + array.nbytes:
        raise ValueError(
            f"an array of shape {array.shape} has {array.nbytes} bytes, but behind the header are "
            f"{size - array.start}"
        )


def _check_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, array: _Array) -> None:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("it is compressed by another method than NumPy's")
    _check_size(array, info.file_size)
    _check_expansion(info.file_size, info.compress_size)
    with archive.open(info) as member:  # anew: a seek may end the comparison of checksums
        _read_through(member, info.file_size)


def _check_expansion(size: int, compressed: int) -> None:
    """A few bytes can be deflated from a thousand times as many: hours of reading, for nothing."""
    if size > _MOST_IN_MEMORY and size > 200 * compressed:
        raise ValueError(
            f"{compressed} bytes that claim to expand to {size} are no photographs; if this is "
            "meant, store the array uncompressed"
        )


def _read_through(file: Any, size: int) -> None:
    """Read what is left, which must be `size` bytes; at the end, checksums are compared."""
    left = size
    while left >= 0 and (chunk := file.read(_AT_ONCE)):
        left -= len(chunk)
    if left:
        raise ValueError(f"it does not hold the {size} bytes that its header says")


# ---------------------------------------------------------------------------- what they stand for


def _names_of(archive: zipfile.ZipFile, split: str, path: Path) -> tuple[str, str | None]:
    """Names of a split's images and labels."""
    arrays = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    pairs = [(f"x_{split}", f"y_{split}"), ("images", "labels"), ("x", "y"), ("arr_0", "arr_1")]
    if splits := [name for name in arrays if name.startswith("x_")]:
        pairs = pairs[:1]
    for x, y in pairs:
        if x in arrays:
            return x, y if y in arrays else None
    if splits:
        raise MissingSplit(path, split, splits, f"store those as x_{split} and y_{split}")
    have = ", ".join(arrays)[:500] or "nothing"
    raise DataError(f"{path}: no images; it holds {have}: name them x_{split} and y_{split}")


def _npz_labels(archive: zipfile.ZipFile, name: str, n: int, path: Path) -> np.ndarray:
    with archive.open(name) as file:
        array = _npy_header(file, path)
        check_labels(array.dtype, array.shape, n, path)
        _check_member(archive, archive.getinfo(name), array)
        file.seek(array.start)
        return np.frombuffer(file.read(array.nbytes), array.dtype)


def _idx_labels(path: Path, n: int) -> np.ndarray:
    with _reading(path) as resources:
        file, array, _ = _open_idx(path, resources)
        check_labels(array.dtype, array.shape, n, path)
        elements = file.read(n + 1)  # past the end, where gzip compares its checksum
        _check_size(array, array.start + len(elements))
        return np.frombuffer(elements, np.uint8)


def _open_array(
    file: Any,
    array: _Array,
    labels: np.ndarray | None,
    path: Path,
    shape: Shape | None,
    limit: int | None,
    resources: ExitStack,
    random_access: bool,
) -> Images:
    """Images of which everything is checked but the pixels.

    Args:
        file: Open; it holds all of the array.
        array: Its header.
        labels: All of them, or None.
        path: For messages.
        shape: As of `jaxood.data.files.open_images`.
        limit: As of `jaxood.data.files.open_images`.
        resources: Closed when the last reference to the images is gone, if they stay on disk.
        random_access: As of `Images`.
    """
    if array.fortran:  # images do not lie one after another
        if array.nbytes > _MOST_IN_MEMORY:
            raise DataError(
                f"{path}: {array.nbytes} bytes in Fortran order, which are not read in parts; "
                "store numpy.ascontiguousarray of the images"
            )
        file.seek(array.start)
        pixels = np.frombuffer(file.read(array.nbytes), np.uint8)
        images = pixels.reshape(array.shape, order="F")[:limit]
        return in_memory(images, None if labels is None else labels[:limit], path, shape)

    n, height, width, channels = check_shape(array.dtype, array.shape, path, shape)
    size = height * width * channels

    def rows(start: int, stop: int) -> Loaded:
        images = np.empty((stop - start, height, width, channels), np.uint8)
        with _noticing(path):
            file.seek(array.start + start * size)
            rest = images.data.cast("B")
            while rest:
                count = file.readinto(rest[:_AT_ONCE])
                if not count:
                    raise EOFError("it has become shorter since it was opened")
                rest = rest[count:]
        return check_images(images, None if labels is None else labels[start:stop], path)

    weakref.finalize(rows, resources.pop_all().close)
    number = min(n, limit or n)
    return Images((number, height, width, channels), rows, random_access=random_access)


@contextmanager
def _reading(path: Path) -> Iterator[ExitStack]:
    """Close what was opened for reading if that fails, and turn every error into a `DataError`."""
    with _noticing(path), ExitStack() as resources:
        yield resources


@contextmanager
def _noticing(path: Path) -> Iterator[None]:
    """Turn what the readers of a file raise into a `DataError`."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # zipfile, gzip and NumPy raise many types
        kind = "idx" if "-ubyte" in path.name else path.suffix
        remedy = "get it again" if kind == "idx" else "write it again"
        raise DataError(f"{path}: damaged {kind} file ({why(error)}); {remedy}") from error
