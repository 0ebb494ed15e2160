"""Checkpoints of any pytree of arrays: the only file that imports orbax.

Of several processes the first writes and reads, and tells the others what it read: the folder need
not be shared.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.options import MultiprocessingOptions

from jaxood import parallel


class Unreadable(ValueError):
    """A checkpoint is damaged, or of another model."""


def _manager(directory):
    # Synchronous: the arrays are small, and the training loop donates their buffers.
    Path(directory).mkdir(parents=True, exist_ok=True)
    options = ocp.CheckpointManagerOptions(
        max_to_keep=1,
        enable_async_checkpointing=False,
        multiprocessing_options=MultiprocessingOptions(active_processes={0}),
        create=False,  # Orbax wants that of some processes alone
    )
    return ocp.CheckpointManager(Path(directory).absolute(), options=options)


def save(directory, step, tree):
    """Write ``tree`` as the newest checkpoint; the one before goes once this one is whole.

    A process that is killed while it writes leaves the previous checkpoint as the newest.

    Args:
        directory: made if absent.
        step: int, larger than any step saved there.
        tree: pytree of arrays, whole on every device.
    """
    parallel.on_writer(_save, directory, step, tree)


def _save(directory, step, tree):
    with _manager(directory) as manager:
        # Orbax gives scalars a format of their own, and reads them back as Python numbers.
        arrays = parallel.local(tree)
        manager.save(step, args=ocp.args.PyTreeSave(arrays))


def restore(directory, like):
    """Read the newest whole checkpoint.

    Args:
        directory: that `save` wrote to.
        like: pytree of arrays or `jax.ShapeDtypeStruct` of the saved structure.

    Returns:
        The pytree, on one device, or ``None`` where there is no checkpoint.

    Raises:
        Unreadable: if the checkpoint holds other arrays than ``like``, or files of it are cut
            short or missing.
    """
    tree = parallel.on_writer(_restore, directory, like)
    return None if tree is None else jax.tree.map(jnp.asarray, tree)


def _restore(directory, like):
    if not Path(directory).is_dir():
        return None
    with _manager(directory) as manager:
        step = manager.latest_step()
        if step is None:
            return None
        # Orbax casts and reshapes in silence; without a type to cast to, it gives what was saved.
        as_saved = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), like)
        try:
            tree = manager.restore(step, args=ocp.args.PyTreeRestore(like, as_saved))
            jax.tree.map(_check_same_kind, tree, like)
            return tree
        except Exception as error:  # orbax raises a different type for each kind of mismatch
            raise Unreadable(
                f"the checkpoint {Path(directory) / str(step)} cannot be read as this model "
                f"({type(error).__name__}): delete the folder to train anew, or use another"
            ) from error


def _check_same_kind(saved, wanted):
    if (saved.shape, saved.dtype) != (wanted.shape, wanted.dtype):
        raise TypeError(f"{saved.dtype}{saved.shape}, not {wanted.dtype}{wanted.shape}")
