"""Checkpoints of any pytree of arrays. No other file imports orbax.

A checkpoint is a folder named by its step. It holds the folder ``arrays``, as orbax writes it, and
``digests.json``, a digest of each file in ``arrays``. The digests are compared before any array is
read.

Of several processes, process 0 writes and reads, and sends the others what it read: they need not
share a file system.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.options import MultiprocessingOptions

from jaxood import integrity, parallel
from jaxood.parallel import messages


@messages.carried
class Unreadable(integrity.Damaged):
    """A checkpoint is damaged, or was made by another model."""


def save(directory: Path | str, step: int, tree: Any) -> None:
    """Write ``tree`` as the newest checkpoint, then delete the one before.

    A process that is killed while it writes leaves the previous checkpoint as the newest.

    Args:
        directory: made if absent. One process may write to it at a time.
        step: larger than any step saved there.
        tree: pytree of arrays, whole on every device.

    Raises:
        ValueError: if a step saved there is not smaller.
        OSError: if the folder cannot be written to.
    """
    parallel.on_writer(_save, directory, step, tree)


def _save(directory: Path | str, step: int, tree: Any) -> None:
    directory = Path(directory).absolute()
    before, unfinished = _steps(directory), directory / "unfinished"
    if any(old >= step for old in before):
        raise ValueError(f"{directory} holds step {max(before)}: step {step} does not follow it")
    if unfinished.exists():  # a killed process left it
        shutil.rmtree(unfinished)
    # Orbax would write scalars of JAX in a format of its own, and read back Python numbers.
    arrays = parallel.local(tree)
    with _orbax() as writer:
        writer.save(unfinished / "arrays", ocp.args.PyTreeSave(arrays))
    digests = json.dumps(_digests(unfinished / "arrays"), indent=1)
    (unfinished / "digests.json").write_text(digests)
    os.rename(unfinished, directory / str(step))
    for old in before:
        shutil.rmtree(directory / str(old))


def restore(directory: Path | str, like: Any) -> Any:
    """Read the newest whole checkpoint.

    Args:
        directory: the folder that `save` wrote to.
        like: pytree of arrays or `jax.ShapeDtypeStruct` of the saved structure.

    Returns:
        The pytree, on one device, or None if there is no checkpoint.

    Raises:
        Unreadable: if the checkpoint holds other arrays than ``like``, or if any bit of its files
            is not as it was written.
    """
    leaves = parallel.on_writer(_restore, directory, like)
    if leaves is None:
        return None
    return jax.tree.unflatten(jax.tree.structure(like), map(jnp.asarray, leaves))


def _restore(directory: Path | str, like: Any) -> list[np.ndarray] | None:
    steps = _steps(directory)
    if not steps:
        return None
    folder = Path(directory).absolute() / str(max(steps))
    advice = "delete the folder to train anew, or use another"
    _check_digests(folder, advice)
    # Orbax casts and reshapes silently; without a type to cast to, it returns the saved arrays.
    as_saved = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), like)
    try:
        with _orbax() as reader:
            tree = reader.restore(folder / "arrays", ocp.args.PyTreeRestore(like, as_saved))
        jax.tree.map(_check_same_kind, tree, like)
    except Exception as error:  # orbax raises a different type for each kind of mismatch
        raise Unreadable(
            f"the checkpoint {folder} cannot be read as this model ({type(error).__name__}): "
            f"{advice}"
        ) from error
    return jax.tree.leaves(tree)


def _orbax() -> ocp.Checkpointer:
    # It writes synchronously: the arrays are small, and the training loop donates their buffers.
    alone = MultiprocessingOptions(primary_host=0, active_processes={0})
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _steps(directory: Path | str) -> list[int]:
    """List the steps of the whole checkpoints in a folder."""
    return [int(p.name) for p in Path(directory).glob("*") if p.name.isdecimal()]


def _digests(folder: Path) -> dict[str, str]:
    """Compute a digest of each file in a folder, by its relative path."""
    digests = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not file.name.startswith("."):
            with open(file, "rb") as content:
                state = hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=16))
            digests[file.relative_to(folder).as_posix()] = state.hexdigest()
    return digests


def _check_digests(folder: Path, advice: str) -> None:
    try:
        written = {} | json.loads((folder / "digests.json").read_text())
        found = _digests(folder / "arrays")
    except (OSError, ValueError, TypeError) as error:
        raise Unreadable(
            f"the checkpoint {folder} is not whole: its digests cannot be read "
            f"({type(error).__name__}); {advice}"
        ) from error
    if damaged := sorted(n for n in {*written, *found} if written.get(n) != found.get(n)):
        raise Unreadable(
            f"the checkpoint {folder} is damaged: {', '.join(damaged)} is not as it was written; "
            f"{advice}"
        )


def _check_same_kind(saved: Any, wanted: Any) -> None:
    if (saved.shape, saved.dtype) != (wanted.shape, wanted.dtype):
        raise TypeError(f"{saved.dtype}{saved.shape}, not {wanted.dtype}{wanted.shape}")
