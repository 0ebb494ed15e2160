"""Many images through one compiled program: batches of one shape, so that it compiles once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxood.parallel.devices import shard


def in_batches(
    program: Callable[..., Any],
    rows: Any,
    mesh: Mesh,
    *,
    batch_size: int,
    advance: Callable[[int], None] = lambda count: None,
) -> Any:
    """Evaluate a program on all rows of some arrays, a batch on each device at a time.

    The last batch is filled up with zeros, and what the program makes of them is taken off.

    Args:
        program: a pytree like ``rows``, dealt out to the devices, to a pytree of arrays with a
            leading axis of rows.
        rows: a pytree of arrays with a leading axis of n rows, n > 0, on the host or the device.
        mesh: a mesh of `jaxood.parallel.mesh`.
        batch_size: rows at a time and device.
        advance: a function that is told the number of batches after each call of the program.

    Returns:
        The program's results for all n rows, on the host.
    """
    n = len(jax.tree.leaves(rows)[0])
    at_once = batch_size * mesh.size
    results = []
    for start in range(0, n, at_once):
        count = min(at_once, n - start)
        part = jax.tree.map(lambda a, s=start: _padded(a[s : s + at_once], at_once), rows)
        result = program(shard(part, mesh))
        results.append(jax.tree.map(lambda a, k=count: np.asarray(a)[:k], result))
        advance(-(-count // batch_size))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *results)


def _padded(part: Any, size: int) -> Any:
    pad = jnp.pad if isinstance(part, jax.Array) else np.pad  # where the rows are
    return pad(part, [(0, size - len(part))] + [(0, 0)] * (part.ndim - 1))
