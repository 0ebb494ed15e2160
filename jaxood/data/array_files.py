"""Arrays of images in files: ``.npz``, ``.npy``, and idx as MNIST's, which are read row by row.

The sizes in a header are compared with the size of the file before memory is allocated. A file with
checksums (``.npz``, gzipped idx) is read through once when it is opened, so that damage is noticed
before the first image is used. A plain ``.npy`` or idx file has none: damage that keeps its header
and length cannot be noticed.
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
"""Number of bytes that are read at a time; a decompressor needs as much memory again."""

_MOST_IN_MEMORY = 2**28
"""Largest size of an array in Fortran order, and of one that is compressed more than 200-fold."""


class _Array(NamedTuple):
    """The header of an array.

    Attributes:
        dtype: type of the elements.
        shape: shape as the header has it: numbers of any sign and size.
        fortran: True if the first index runs fastest.
        start: position in the file at which the elements begin.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    fortran: bool
    start: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def open_npy(path: Path, shape: Shape | None, limit: int | None) -> Images:
    """Open the array of a ``.npy`` file; arguments as for `jaxood.data.files.open_images`."""
    with _reading(path) as resources:
        file = resources.enter_context(open_regular(path))
        array = _npy_header(file, path)
        check_shape(array.dtype, array.shape, path, shape)
        _check_size(array, _size(file))
        return _open_array(file, array, None, path, shape, limit, resources, True)


def open_npz(path: Path, split: str, shape: Shape | None, limit: int | None) -> Images:
    """Open a split of a ``.npz`` file; arguments as for `jaxood.data.files.open_images`."""
    with _reading(path) as resources:
        file = resources.enter_context(open_regular(path))
        if not zipfile.is_zipfile(file):
            raise DataError(
                f"{path}: this is neither a folder nor a whole .npz file; write it with numpy.savez"
            )
        archive = resources.enter_context(zipfile.ZipFile(file))
        x, y = _names_of(archive, split, path)
        member = resources.enter_context(archive.open(f"{x}.npy"))
        array = _npy_header(member, path)
        n, *_ = check_shape(array.dtype, array.shape, path, shape)
        info = archive.getinfo(f"{x}.npy")
        labels = _npz_labels(archive, f"{y}.npy", n, path) if y else None
        _check_member(archive, info, array)
        if info.compress_type == zipfile.ZIP_STORED:  # its bytes lie in the file as they are
            file.seek(info.header_offset + 26)
            header = 30 + sum(struct.unpack("<HH", file.read(4)))
            array = array._replace(start=info.header_offset + header + array.start)
            return _open_array(file, array, labels, path, shape, limit, resources, True)
        return _open_array(member, array, labels, path, shape, limit, resources, False)


def find_idx(folder: Path, split: str, kind: str) -> Path | None:
    """Find the idx file of a split's images (``images-idx3``) or labels (``labels-idx1``)."""
    stem = f"{'t10k' if split == 'test' else split}-{kind}-ubyte"
    return next((p for p in (folder / f"{stem}.gz", folder / stem) if p.is_file()), None)


def open_idx(
    path: Path, labels_path: Path | None, shape: Shape | None, limit: int | None
) -> Images:
    """Open the images of an idx file, and the labels of another.

    Args:
        path: the file of images.
        labels_path: the file of labels, or None.
        shape: as for `jaxood.data.files.open_images`.
        limit: as for `jaxood.data.files.open_images`.
    """
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
    """Read the header of a ``.npy`` file, and refuse objects, whose reading would run code."""
    head = io.BytesIO(file.read(2**14))  # NumPy's own limit is 10,000 characters
    version = np.lib.format.read_magic(head)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(head)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(head)
    else:
        raise ValueError(f"version {version} of the format does not hold images")
    if dtype.hasobject:
        raise DataError(
            f"{path}: this file holds pickled Python objects, which may run code and are never "
            "read; store plain uint8 arrays with numpy.savez"
        )
    return _Array(dtype, shape, fortran, head.tell())


def _open_idx(path: Path, resources: ExitStack) -> tuple[Any, _Array, int | None]:
    """Open an idx file and read its header; return also the file's size if it is not gzipped.

    The header is two zero bytes, the type (8 stands for uint8), the rank, and big-endian sizes.
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
    """Compare the size that the header claims with that of the file, which includes the header."""
    if size != array.start + array.nbytes:
        raise ValueError(
            f"an array of shape {array.shape} has {array.nbytes} bytes, but {size - array.start} "
            "follow the header"
        )


def _check_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, array: _Array) -> None:
    """Check the compression, size and checksum of an array in a ``.npz`` file."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("it is compressed with another method than NumPy's")
    _check_size(array, info.file_size)
    _check_expansion(info.file_size, info.compress_size)
    with archive.open(info) as member:  # opened again, as a seek may switch the checksum off
        _read_through(member, info.file_size)


def _check_expansion(size: int, compressed: int) -> None:
    """Refuse a large array that is compressed more than 200-fold: it could take hours to read."""
    if size > _MOST_IN_MEMORY and size > 200 * compressed:
        raise ValueError(
            f"{compressed} bytes that claim to expand to {size} are no photographs; if they are "
            "images nevertheless, store the array uncompressed"
        )


def _read_through(file: Any, size: int) -> None:
    """Read to the end, where checksums are compared; there must be ``size`` bytes left."""
    left = size
    while left >= 0 and (chunk := file.read(_AT_ONCE)):
        left -= len(chunk)
    if left:
        raise ValueError(f"it does not hold the {size} bytes that its header claims")


# ------------------------------------------------------------------------------ images and labels


def _names_of(archive: zipfile.ZipFile, split: str, path: Path) -> tuple[str, str | None]:
    """Find the names of the arrays that hold a split's images and labels."""
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
    raise DataError(
        f"{path}: this file has no images under a known name, it holds {have}; name the images "
        f"x_{split} and the labels y_{split}"
    )


def _npz_labels(archive: zipfile.ZipFile, name: str, n: int, path: Path) -> np.ndarray:
    """Read and check the labels of n images."""
    with archive.open(name) as file:
        array = _npy_header(file, path)
        check_labels(array.dtype, array.shape, n, path)
        _check_member(archive, archive.getinfo(name), array)
        file.seek(array.start)
        return np.frombuffer(file.read(array.nbytes), array.dtype)


def _idx_labels(path: Path, n: int) -> np.ndarray:
    """Read and check the labels of n images."""
    with _reading(path) as resources:
        file, array, _ = _open_idx(path, resources)
        check_labels(array.dtype, array.shape, n, path)
        elements = file.read(n + 1)  # gzip compares its checksum only at the end of the file
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
    """Make `Images` of an array whose header and labels are checked already.

    Args:
        file: the open file, which holds all of the array.
        array: the header of the array.
        labels: all labels, or None.
        path: path of the file for messages.
        shape: as for `jaxood.data.files.open_images`.
        limit: as for `jaxood.data.files.open_images`.
        resources: what is closed when the last reference to the images is gone, if they stay on
            disk.
        random_access: as for `Images`.
    """
    if array.fortran:  # an image's pixels do not lie together
        if array.nbytes > _MOST_IN_MEMORY:
            raise DataError(
                f"{path}: {array.nbytes} bytes in Fortran order cannot be read in parts; store "
                "numpy.ascontiguousarray of the images"
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
                    raise EOFError("the file has become shorter since it was opened")
                rest = rest[count:]
        return check_images(images, None if labels is None else labels[start:stop], path)

    weakref.finalize(rows, resources.pop_all().close)
    number = min(n, limit or n)
    return Images((number, height, width, channels), rows, random_access=random_access)


@contextmanager
def _reading(path: Path) -> Iterator[ExitStack]:
    """Close what was opened when an error occurs, and turn every error into a `DataError`."""
    with _noticing(path), ExitStack() as resources:
        yield resources


@contextmanager
def _noticing(path: Path) -> Iterator[None]:
    """Turn the errors that the readers of a file raise into a `DataError`."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # zipfile, gzip and NumPy raise many types
        kind = "idx" if "-ubyte" in path.name else path.suffix
        remedy = "get it again" if kind == "idx" else "write it again"
        raise DataError(f"{path}: damaged {kind} file ({why(error)}); {remedy}") from error
