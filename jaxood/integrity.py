"""Damage, other inputs and second writers are noticed: digests, locks and their errors.

Everything that resumes or is read back keeps a digest of what it was made from beside it. What does
not fit is refused with the reason, and nothing that is there is changed.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

try:
    import fcntl
except ImportError:  # Windows has no flock; there a second writer is not noticed
    fcntl = None


class IntegrityError(ValueError):
    """Something on the disk cannot be used as it is; the message says what to do."""


class Damaged(IntegrityError):
    """The bytes that are read are not those that were written."""


class Changed(IntegrityError):
    """Something that was begun is resumed with other images, another model or other settings."""


class Locked(IntegrityError):
    """Another process writes to the same place."""


def digest(tree: Any) -> str:
    """A digest of all arrays in a pytree, with their names, dtypes and shapes.

    Args:
        tree: a pytree of arrays or numbers. Typed random keys are not arrays.

    Returns:
        32 hexadecimal digits (BLAKE2b, 128 bits). Equal trees have equal digests on every machine
        of the same byte order; one changed bit gives another digest.
    """
    state = hashlib.blake2b(digest_size=16)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        kind = f"{jax.tree_util.keystr(path)} {array.dtype.name} {np.shape(leaf)}\n"
        state.update(kind.encode())
        state.update(array.reshape(-1).view(np.uint8).data)
    return state.hexdigest()


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], what: str, remedy: str) -> None:
    """Compare what a thing was begun with to what it is resumed with.

    Args:
        before: digests and settings by name, as they were kept.
        now: the present ones.
        what: the thing, as the subject of a sentence.
        remedy: what to do, as a clause.

    Raises:
        Changed: if a value differs or is missing; the message names the values that do.
    """
    names = [n for n in sorted({*before, *now}) if before.get(n) != now.get(n)]
    if names:
        changes = ", ".join(f"{n} ({before.get(n)}, now {now.get(n)})" for n in names)
        raise Changed(f"{what} was begun with other values of {changes}: {remedy}")


@contextmanager
def lock(path: str | os.PathLike[str]) -> Iterator[None]:
    """Be the only process that writes to a file or folder; the lock ends with the process.

    Args:
        path: an existing file or folder. Nothing is added to it.

    Raises:
        Locked: if another holder of the lock is at work, in this process or another.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(Path(path), os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise Locked(
                    f"another process writes to {path} at this moment: wait until it has ended, "
                    "or choose another place"
                ) from error
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL):
                raise  # those three: a file system without locks
        yield
    finally:
        os.close(descriptor)


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file as a whole or not at all, and makes its folder where that is absent."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
