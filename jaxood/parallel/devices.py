"""The devices of all processes as one mesh axis, and arrays on them."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXIS = "data"
"""Name of the mesh axis."""

HEARTBEAT_SECONDS = 30
"""A process that was not heard of for so long is dead, and the others end."""

LONGEST_MESSAGE = 2**32
"""Bytes; what claims to be longer is not waited for."""


# --------------------------------------------------------------------------- devices and arrays


def mesh(devices=None):
    """A mesh over the devices of all processes.

    Args:
        devices: number of devices of each process; by default all it has.

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


def mesh_of(tree):
    """The mesh that a pytree was put on by `replicate`; else one of a single device."""
    shardings = [leaf.sharding for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
    for sharding in shardings:
        if isinstance(sharding, NamedSharding) and sharding.mesh.axis_names == (AXIS,):
            return sharding.mesh
    devices = shardings[0].device_set if shardings else jnp.zeros(()).devices()
    return Mesh(np.array([*devices][:1]), (AXIS,))


def replicate(tree, mesh):
    """Put a whole pytree of arrays on every device; the values of all processes must be equal."""
    sharding = NamedSharding(mesh, P())

    def put(leaf):
        if isinstance(leaf, jax.Array) and (leaf.sharding == sharding or jax.process_count() == 1):
            return jax.device_put(leaf, sharding)  # from where it lies
        return _put(np.shape(leaf), sharding, lambda index: np.asarray(leaf)[index])

    return jax.tree.map(put, tree)


def shard(tree, mesh):
    """Deal the rows of a pytree of arrays out to the devices, in order.

    A process reads only the rows of its own devices.

    Args:
        tree: arrays with a leading axis of n rows, or what can be sliced like one.
        mesh: of `mesh`.

    Returns:
        The pytree, with rows of zeros behind the others up to a multiple of the devices.
    """

    def put(rows):
        total = -(-len(rows) // mesh.size) * mesh.size
        if isinstance(rows, jax.Array) and len(rows) == total and jax.process_count() == 1:
            return jax.device_put(rows, NamedSharding(mesh, P(AXIS)))  # from where it lies

        def own(index):
            start, stop, _ = index[0].indices(total)
            part = np.asarray(rows[start:stop])
            missing = stop - start - len(part)
            return np.pad(part, [(0, missing)] + [(0, 0)] * (part.ndim - 1)) if missing else part

        return _put((total, *rows.shape[1:]), NamedSharding(mesh, P(AXIS)), own)

    return jax.tree.map(put, tree)


def local(tree):
    """A pytree of whole arrays on the host: what one process alone goes on with."""
    return jax.tree.map(np.asarray, tree)


def _put(shape, sharding, read):
    # Not jax.device_put: of several processes it wants proof that all hold the same.
    def canonical(index):
        part = read(index)
        return part.astype(jax.dtypes.canonicalize_dtype(part.dtype), copy=False)

    return jax.make_array_from_callback(shape, sharding, canonical)


def split_rows(tree, mesh):
    """Inside a compiled program: have the rows of arrays divided among the devices.

    XLA then divides what is computed of them; sums over rows stay global, such as BatchNorm's.
    """
    return lax.with_sharding_constraint(tree, NamedSharding(mesh, P(AXIS)))


def whole(tree, mesh):
    """Inside a compiled program: have arrays whole on every device."""
    return lax.with_sharding_constraint(tree, NamedSharding(mesh, P()))


def map_rows(function, mesh, rows):
    """Compile a function that runs on every device with its own rows, and none of the others'.

    Args:
        function: of pytrees of arrays, to one with a leading axis of rows.
        mesh: of `mesh`.
        rows: for each argument, whether its rows are dealt out to the devices; the others are
            whole on each. Give it what `shard` returned, or a multiple of the devices.

    Returns:
        The function; its result is whole on every device.
    """
    specs = tuple(P(AXIS) if dealt else P() for dealt in rows)
    mapped = jax.shard_map(
        function,
        mesh=mesh,
        in_specs=specs,
        out_specs=P(AXIS),
        check_vma=False,  # it does not know the primitives of `jaxood.nn.convolution`
    )
    return jax.jit(mapped, out_shardings=NamedSharding(mesh, P()))
