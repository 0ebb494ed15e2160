"""Digests and locks, by which damage, changed inputs and second writers are noticed.

Whatever is resumed or read back keeps a digest of the inputs it was made from. If they do not fit,
it is refused with the reason, and nothing that is there is changed.
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
    """A file or folder cannot be used as it is; the message says what to do."""


class Damaged(IntegrityError):
    """The bytes that are read are not those that were written."""


class Changed(IntegrityError):
    """Some work is resumed with other images, another model or other settings."""


class Locked(IntegrityError):
    """Another process writes to the same place."""


def digest(tree: Any) -> str:
    """Compute a digest of all arrays in a pytree, with their names, dtypes and shapes.

    Args:
        tree: pytree of arrays or numbers; typed random keys are not allowed.

    Returns:
        32 hexadecimal digits (BLAKE2b, 128 bits). Equal trees have equal digests on all machines
        of one byte order. A single changed bit gives another digest.
    """
    state = hashlib.blake2b(digest_size=16)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        kind = f"{jax.tree_util.keystr(path)} {array.dtype.name} {np.shape(leaf)}\n"
        state.update(kind.encode())
        state.update(array.reshape(-1).view(np.uint8).data)
    return state.hexdigest()


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], what: str, remedy: str) -> None:
    """Compare the digests and settings that some work began with to those it is resumed with.

    Args:
        before: digests and settings by name, as they were kept.
        now: the present ones.
        what: the work, as the subject of the message.
        remedy: what to do, as a clause of the message.

    Raises:
        Changed: if values differ or are missing; the message names them.
    """
    names = [n for n in sorted({*before, *now}) if before.get(n) != now.get(n)]
    if names:
        changes = ", ".join(f"{n} ({before.get(n)}, now {now.get(n)})" for n in names)
        raise Changed(f"{what} was begun with other values of {changes}: {remedy}")


@contextmanager
def lock(path: str | os.PathLike[str]) -> Iterator[None]:
    """Hold a lock on a file or folder, so that only one process writes to it.

    The lock ends with the process, however it ends.

    Args:
        path: an existing file or folder. Nothing is added to it.

    Raises:
        Locked: if the lock is held, by another process or elsewhere in this one.
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
                raise  # these three errors mean a file system without locks
        yield
    finally:
        os.close(descriptor)


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file as a whole or not at all; its folder is made if absent."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
