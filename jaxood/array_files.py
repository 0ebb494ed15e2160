"""Arrays of images in files: `.npz`, `.npy`, and idx as MNIST's, read row by row.

`jaxood.files` finds them and says which names they may have.
"""

from __future__ import annotations

import gzip
import io
import weakref
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from jaxood.images import (
    DataError,
    Images,
    Loaded,
    MissingSplit,
    Shape,
    check_images,
    check_shape,
    in_memory,
    why,
)

_AT_ONCE = 2**20
"""Bytes read at a time: a decompressor holds as many beside them."""


def open_npz(path: Path, split: str, shape: Shape | None, limit: int | None) -> Images:
    """A split of a `.npz` file; arguments as of `jaxood.files.open_images`."""
    if not zipfile.is_zipfile(path):
        raise DataError(
            f"{path}: neither a folder nor a whole .npz file; write it (again) with numpy.savez"
        )
    pairs = [(f"x_{split}", f"y_{split}"), ("images", "labels"), ("x", "y"), ("arr_0", "arr_1")]
    try:
        with np.load(path, allow_pickle=False) as arrays:
            splits = [key for key in arrays if key.startswith("x_")]
            if splits:
                pairs = pairs[:1]
            x, y = next((pair for pair in pairs if pair[0] in arrays), (None, None))
            labels = arrays[y] if y in arrays else None
            have = ", ".join(arrays) or "nothing"
        if x is not None:
            with zipfile.ZipFile(path) as archive:  # its members hold the file open themselves
                member = archive.open(f"{x}.npy")
    except Exception as error:
        raise _not_an_array(path, error) from error
    if x is not None:
        return open_npy(member, labels, path, shape, limit)
    if splits:
        raise MissingSplit(path, split, splits, f"store those as x_{split} and y_{split}")
    raise DataError(f"{path}: no images; it holds {have}: name them x_{split} and y_{split}")


def open_npy(
    file: Any,
    labels: np.ndarray | None,
    path: Path,
    shape: Shape | None,
    limit: int | None,
) -> Images:
    """The array of an open `.npy` file; labels, path and the rest as of `_open_rows`."""
    try:
        header = {(1, 0): np.lib.format.read_array_header_1_0}
        header[2, 0] = np.lib.format.read_array_header_2_0
        found, fortran, dtype = header[np.lib.format.read_magic(file)](file)
        if dtype.hasobject:
            raise ValueError("Object arrays cannot be loaded when allow_pickle=False")
        if fortran:  # images do not lie one after another
            check_shape(dtype, found, path, shape)
            file.seek(0)
            with file:
                images = np.lib.format.read_array(file, allow_pickle=False)
            labels = None if labels is None else labels[:limit]
            return in_memory(images[:limit], labels, path, shape)
        return _open_rows(file, dtype, found, labels, path, shape, limit)
    except Exception as error:
        file.close()
        raise error if isinstance(error, DataError) else _not_an_array(path, error) from error


def _open_rows(
    file: Any,
    dtype: np.dtype,
    found: tuple[int, ...],
    labels: np.ndarray | None,
    path: Path,
    shape: Shape | None,
    limit: int | None,
) -> Images:
    """Images one after another in an open file, from its present position on.

    Args:
        file: Closed when the last reference to the images is gone.
        dtype: Of the array.
        found: Its shape.
        labels: All of them, or None.
        path: For messages.
        shape: As in `open_images`.
        limit: As in `open_images`.

    Raises:
        DataError: The array is not one of images, or labels do not fit; also from the reading.
    """
    n, height, width, channels = check_shape(dtype, found, path, shape)
    if labels is not None:  # checked before a long reading begins
        check_images(np.empty((n, 1, 1, 1), np.uint8), labels, path)
    offset, size = file.tell(), height * width * channels

    def rows(start: int, stop: int) -> Loaded:
        try:
            at = offset + start * size
            if file.tell() != at:  # a seek, even to where it is, ends the checksum of a zip member
                file.seek(at)
            images = np.empty((stop - start, height, width, channels), np.uint8)
            rest = images.data.cast("B")
            while rest:
                count = file.readinto(rest[:_AT_ONCE])
                if not count:
                    raise EOFError("it ends too early")
                rest = rest[count:]
            if stop == n:
                file.read(1)  # past the end, where checksums are compared
        except Exception as error:
            raise _not_an_array(path, error) from error
        return check_images(images, None if labels is None else labels[start:stop], path)

    weakref.finalize(rows, file.close)
    seekable = isinstance(file, io.BufferedReader)
    return Images((min(n, limit or n), height, width, channels), rows, random_access=seekable)


def _not_an_array(path: Path, error: Exception) -> DataError:
    if "allow_pickle" in str(error):
        return DataError(
            f"{path}: holds pickled Python objects, which may run code and are never read; "
            "store plain uint8 arrays with numpy.savez"
        )
    kind = "idx" if "-ubyte" in path.name else path.suffix
    remedy = "get it again" if kind == "idx" else "write it again"
    return DataError(f"{path}: damaged {kind} file ({why(error)}); {remedy}")


def find_idx(folder: Path, split: str, kind: str) -> Path | None:
    """The idx file of a split's images (`images-idx3`) or labels (`labels-idx1`)."""
    stem = f"{'t10k' if split == 'test' else split}-{kind}-ubyte"
    return next((p for p in (folder / f"{stem}.gz", folder / stem) if p.is_file()), None)


def _read_header(path: Path) -> tuple[Any, tuple[int, ...]]:
    """An open idx file behind its header, and the array's shape.

    The header is two zero bytes, the type (8: uint8), the rank, and big-endian sizes.
    """
    file = gzip.open(path) if path.suffix == ".gz" else path.open("rb")
    try:
        head = file.read(4)
        if head[:3] != b"\0\0\x08":
            raise ValueError("it does not start as an idx file of bytes")
        return file, tuple(np.frombuffer(file.read(4 * head[3]), ">i4", head[3]).tolist())
    except Exception as error:
        file.close()
        raise _not_an_array(path, error) from error


def read_idx(path: Path) -> np.ndarray:
    """The whole array of an idx file."""
    file, shape = _read_header(path)
    with file:
        try:
            return np.frombuffer(file.read(), np.uint8).reshape(shape)
        except Exception as error:
            raise _not_an_array(path, error) from error


def open_idx(
    path: Path, labels: np.ndarray | None, shape: Shape | None, limit: int | None
) -> Images:
    """Images of an idx file; labels, path and the rest as of `_open_rows`."""
    file, found = _read_header(path)
    try:
        return _open_rows(file, np.dtype(np.uint8), found, labels, path, shape, limit)
    except DataError:
        file.close()
        raise
