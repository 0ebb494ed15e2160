"""The devices of all processes as one mesh axis, and arrays on them."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxood import compilation

AXIS = "data"
"""Name of the mesh axis."""


def mesh(devices: int | None = None) -> Mesh:
    """Make a mesh over the devices of all processes.

    Args:
        devices: number of devices of each process; by default all that it has.

    Returns:
        A `jax.sharding.Mesh` with the one axis `AXIS`.

    Raises:
        ValueError: if a process has fewer devices.
    """
    found = [[d for d in jax.devices() if d.process_index == i] for i in range(jax.process_count())]
    fewest = min(map(len, found))
    if devices is not None and not 1 <= devices <= fewest:
        platform = jax.devices()[0].platform.upper()
        raise ValueError(f"{devices} devices are asked for, but there are 1 to {fewest} {platform}")
    # jax.sharding.Mesh has Auto axes: XLA divides the work. jax.make_mesh has Explicit ones.
    return Mesh(np.array([d for own in found for d in own[:devices]]), (AXIS,))


def mesh_of(tree: Any) -> Mesh:
    """Find the mesh that `replicate` put a pytree on; plain arrays have one of a single device."""
    shardings = [leaf.sharding for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
    for sharding in shardings:
        mesh = getattr(sharding, "mesh", None)
        if isinstance(mesh, Mesh) and mesh.axis_names == (AXIS,):
            return mesh
    devices = shardings[0].device_set if shardings else jnp.zeros(()).devices()
    return Mesh(np.array([*devices][:1]), (AXIS,))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Put a whole pytree of arrays on every device.

    Args:
        tree: arrays; all processes must give equal values.
        mesh: a mesh of `mesh`.

    Returns:
        The pytree, whole on every device.
    """
    sharding = NamedSharding(mesh, P())

    def put(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and (leaf.sharding == sharding or jax.process_count() == 1):
            return jax.device_put(leaf, sharding)  # from where it lies
        return _put(np.shape(leaf), sharding, lambda index: np.asarray(leaf)[index])

    return jax.tree.map(put, tree)


def shard(tree: Any, mesh: Mesh) -> Any:
    """Deal the rows of a pytree of arrays out to the devices, in order.

    A process reads only the rows of its own devices.

    Args:
        tree: arrays with a leading axis of n rows, or objects that can be sliced like one.
        mesh: a mesh of `mesh`.

    Returns:
        The pytree. Rows of zeros are appended up to a multiple of the number of devices.
    """

    def put(rows: Any) -> jax.Array:
        total = -(-len(rows) // mesh.size) * mesh.size
        if isinstance(rows, jax.Array) and len(rows) == total and jax.process_count() == 1:
            return jax.device_put(rows, NamedSharding(mesh, P(AXIS)))  # from where it lies

        def own(index: Any) -> np.ndarray:
            start, stop, _ = index[0].indices(total)
            part = np.asarray(rows[start:stop])
            missing = stop - start - len(part)
            return np.pad(part, [(0, missing)] + [(0, 0)] * (part.ndim - 1)) if missing else part

        return _put((total, *rows.shape[1:]), NamedSharding(mesh, P(AXIS)), own)

    return jax.tree.map(put, tree)


def local(tree: Any) -> Any:
    """Copy a pytree of whole arrays to the host, so that one process alone can go on with it."""
    return jax.tree.map(np.asarray, tree)


def _put(
    shape: tuple[int, ...], sharding: NamedSharding, read: Callable[[Any], np.ndarray]
) -> jax.Array:
    # jax.device_put would check, between processes, that all hold the same values.
    def canonical(index: Any) -> np.ndarray:
        part = read(index)
        return part.astype(jax.dtypes.canonicalize_dtype(part.dtype), copy=False)

    return jax.make_array_from_callback(shape, sharding, canonical)


def split_rows(tree: Any, mesh: Mesh) -> Any:
    """Divide the rows of arrays among the devices, inside a compiled program.

    XLA then divides what is computed from them. Sums over rows, such as those of BatchNorm, stay
    sums over the rows of all devices.
    """
    return lax.with_sharding_constraint(tree, NamedSharding(mesh, P(AXIS)))


def whole(tree: Any, mesh: Mesh) -> Any:
    """Make arrays whole on every device, inside a compiled program."""
    return lax.with_sharding_constraint(tree, NamedSharding(mesh, P()))


def map_rows(function: Callable[..., Any], mesh: Mesh, rows: Sequence[bool]) -> Callable[..., Any]:
    """Compile a function that each device evaluates on its own rows alone.

    Args:
        function: maps pytrees of arrays to a pytree of arrays with a leading axis of rows.
        mesh: a mesh of `mesh`.
        rows: for each argument, whether its rows are dealt out to the devices; other arguments are
            whole on every device. The number of rows must be a multiple of the number of devices,
            as after `shard`.

    Returns:
        The compiled function. Its result is whole on every device.
    """
    specs = tuple(P(AXIS) if dealt else P() for dealt in rows)
    mapped = jax.shard_map(
        function,
        mesh=mesh,
        in_specs=specs,
        out_specs=P(AXIS),
        check_vma=False,  # it does not know the primitives of `jaxood.nn.convolution`
    )
    options = compilation.sooner(mesh.devices.flat[0])
    return jax.jit(mapped, out_shardings=NamedSharding(mesh, P()), **options)
