"""Checkpoints of any pytree of arrays: the only file that imports orbax."""

from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp


def _manager(directory):
    # Synchronous: the arrays are small, and the training loop donates their buffers.
    options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
    return ocp.CheckpointManager(Path(directory).absolute(), options=options)


def save(directory, step, tree):
    """Write ``tree`` as the newest checkpoint; the one before goes once this one is whole.

    A process that is killed while it writes leaves the previous checkpoint as the newest.

    Args:
        directory: made if absent.
        step: int, larger than any step saved there.
        tree: pytree of arrays.
    """
    with _manager(directory) as manager:
        # Orbax gives scalars a format of their own, and reads them back as Python numbers.
        arrays = jax.tree.map(np.asarray, tree)
        manager.save(step, args=ocp.args.StandardSave(arrays))


def restore(directory, like):
    """Read the newest whole checkpoint.

    Args:
        directory: that `save` wrote to.
        like: pytree of arrays or `jax.ShapeDtypeStruct` of the saved structure.

    Returns:
        The pytree, or ``None`` where there is no checkpoint.

    Raises:
        ValueError: if the checkpoint holds other arrays than ``like``, or is damaged.
    """
    if not Path(directory).is_dir():
        return None
    with _manager(directory) as manager:
        step = manager.latest_step()
        if step is None:
            return None
        like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), like)
        try:
            return manager.restore(step, args=ocp.args.StandardRestore(like))
        except Exception as error:  # orbax raises a different type for each kind of mismatch
            raise ValueError(
                f"the checkpoint {Path(directory) / str(step)} cannot be read as this model "
                f"({type(error).__name__}): delete the folder to train anew, or use another"
            ) from error
