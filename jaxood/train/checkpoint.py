"""Checkpoints of any pytree of arrays: the only file that imports orbax.

A checkpoint is a folder named by its step: ``arrays``, as orbax writes them, and ``digests.json``,
a digest of each of its files. They are compared before anything is read of the arrays.

Of several processes the first writes and reads, and tells the others what it read: the folder need
not be shared.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.options import MultiprocessingOptions

from jaxood import integrity, parallel
from jaxood.parallel import messages


@messages.carried
class Unreadable(integrity.Damaged):
    """A checkpoint is damaged, or of another model."""


def save(directory, step, tree):
    """Write ``tree`` as the newest checkpoint; the one before goes once this one is whole.

    A process that is killed while it writes leaves the previous checkpoint as the newest.

    Args:
        directory: made if absent. One process may write to it at a time.
        step: int, larger than any step saved there.
        tree: pytree of arrays, whole on every device.

    Raises:
        ValueError: if a step saved there is as large.
        OSError: if the folder cannot be written to.
    """
    parallel.on_writer(_save, directory, step, tree)


def _save(directory, step, tree):
    directory = Path(directory).absolute()
    before, unfinished = _steps(directory), directory / "unfinished"
    if any(old >= step for old in before):
        raise ValueError(f"{directory} holds step {max(before)}: step {step} does not follow it")
    if unfinished.exists():  # what a killed process left
        shutil.rmtree(unfinished)
    # Orbax gives scalars a format of their own, and reads them back as Python numbers.
    arrays = parallel.local(tree)
    with _orbax() as writer:
        writer.save(unfinished / "arrays", ocp.args.PyTreeSave(arrays))
    digests = json.dumps(_digests(unfinished / "arrays"), indent=1)
    (unfinished / "digests.json").write_text(digests)
    os.rename(unfinished, directory / str(step))
    for old in before:
        shutil.rmtree(directory / str(old))


def restore(directory, like):
    """Read the newest whole checkpoint.

    Args:
        directory: that `save` wrote to.
        like: pytree of arrays or `jax.ShapeDtypeStruct` of the saved structure.

    Returns:
        The pytree, on one device, or ``None`` where there is no checkpoint.

    Raises:
        Unreadable: if the checkpoint holds other arrays than ``like``, or one of its files is not,
            to the bit, what was written.
    """
    leaves = parallel.on_writer(_restore, directory, like)
    if leaves is None:
        return None
    return jax.tree.unflatten(jax.tree.structure(like), map(jnp.asarray, leaves))


def _restore(directory, like):
    steps = _steps(directory)
    if not steps:
        return None
    folder = Path(directory).absolute() / str(max(steps))
    advice = "delete the folder to train anew, or use another"
    _check_digests(folder, advice)
    # Orbax casts and reshapes in silence; without a type to cast to, it gives what was saved.
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


def _orbax():
    # Synchronous: the arrays are small, and the training loop donates their buffers.
    alone = MultiprocessingOptions(primary_host=0, active_processes={0})
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _steps(directory):
    """The steps of the whole checkpoints in a folder."""
    return [int(p.name) for p in Path(directory).glob("*") if p.name.isdecimal()]


def _digests(folder):
    """A digest of each file below a folder, by its place there."""
    digests = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not file.name.startswith("."):
            with open(file, "rb") as content:
                state = hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=16))
            digests[file.relative_to(folder).as_posix()] = state.hexdigest()
    return digests


def _check_digests(folder, advice):
    try:
        written = {} | json.loads((folder / "digests.json").read_text())
        found = _digests(folder / "arrays")
    except (OSError, ValueError, TypeError) as error:
        raise Unreadable(
            f"the checkpoint {folder} is not whole, for its digests are not to be had "
            f"({type(error).__name__}): {advice}"
        ) from error
    if damaged := sorted(n for n in {*written, *found} if written.get(n) != found.get(n)):
        raise Unreadable(
            f"the checkpoint {folder} is damaged: {', '.join(damaged)} is not what was written; "
            f"{advice}"
        )


def _check_same_kind(saved, wanted):
    if (saved.shape, saved.dtype) != (wanted.shape, wanted.dtype):
        raise TypeError(f"{saved.dtype}{saved.shape}, not {wanted.dtype}{wanted.shape}")
