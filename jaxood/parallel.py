"""Data parallelism: one mesh axis, over the devices of one process or of many.

Computation follows data. Variables that `replicate` has put on a mesh are trained and scored on
all of its devices: `train.fit`, `train.population_statistics` and the scores look at where their
variables lie. Plain variables mean one device. The same seed gives the same numbers up to rounding,
however many devices there are.

Every process runs the same program on its own devices, and process 0 alone writes. What depends on
a clock or on files is decided there (`on_writer`): processes that disagree on what to compute wait
for each other for ever.

What they tell each other runs no code (`jaxood.messages`), but nobody is asked who he is: several
hosts belong on a network that is trusted.
"""

import contextlib
import os
import re
import signal
import socket
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxood import integrity, messages

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
        check_vma=False,  # it does not know the primitives of `jaxood.convolution`
    )
    return jax.jit(mapped, out_shardings=NamedSharding(mesh, P()))


# ------------------------------------------------------------------------------ many processes


def start(coordinator=None, processes=None, process_id=None):
    """Join the other processes; call it before any other use of JAX.

    Args:
        coordinator: ``host:port`` of process 0, an IPv6 address in brackets. Process 0 listens
            there and nowhere else: a name must mean the address by which the others reach it in
            process 0, too. Where that is no address of its own, such as behind a router, the
            environment variable JAX_COORDINATOR_BIND_ADDRESS says where to listen.
        processes: their number; 1 joins none.
        process_id: of this one, from 0. Without these three, JAX finds them on TPU pods, and in
            Slurm steps of several tasks and indexed jobs of Kubernetes, and listens on all
            addresses of process 0; elsewhere there is one process.

    Raises:
        ValueError: if only some are given, they contradict each other, or process 0 cannot listen
            on the address.
        RuntimeError: if a cluster was found and JAX cannot join it.
    """
    alone = processes == 1 and coordinator is None
    found = coordinator is None and processes is None and process_id is None
    if alone or jax.distributed.is_initialized():
        return
    listen_on = None
    if found:
        if not (_in_cluster() or _on_tpu()):
            return
    elif coordinator is None or processes is None or process_id is None:
        raise ValueError("give the coordinator, the number of processes and the process id")
    elif not re.fullmatch(r"([^:\[\]]+|\[[^\[\]]+\]):\d{1,5}", coordinator):
        raise ValueError(f"the coordinator is host:port, such as here:1234, not {coordinator}")
    elif not 0 <= process_id < processes:
        raise ValueError(f"process ids go from 0 to {processes - 1}, not {process_id}")
    elif process_id == 0:
        listen_on = os.environ.get("JAX_COORDINATOR_BIND_ADDRESS", coordinator)
        _check_own(listen_on)
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process_id,
            coordinator_bind_address=listen_on,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except Exception:
        if found and not _in_cluster():
            return  # a TPU of no pod, such as Colab's
        raise
    # JAX keeps SIGTERM for a preemption service that nobody asks here: let it end the process.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _check_own(address):
    """Listen for a moment: where it cannot, JAX 0.10 ends in a segmentation fault."""
    host, _, port = address.rpartition(":")
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(place)
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"process 0 cannot listen on {address} ({error}): give one of its own addresses and a "
            "free port"
        ) from error


def _in_cluster():
    """Whether this is one of several processes, as far as the environment says."""
    environ = os.environ
    hosts = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES") or ""
    return (
        int(environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1
        or {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= environ.keys()
        or "," in hosts
    )


def _on_tpu():
    """Whether this is a TPU's own machine, whose metadata server may know of a pod.

    JAX sets the first variable when it is imported there, the second where nobody is to be asked.
    """
    return os.environ.get("TPU_ML_PLATFORM") == "JAX" and "TPU_SKIP_MDS_QUERY" not in os.environ


def is_writer():
    """Whether this is process 0, the one that writes files and shows progress."""
    return jax.process_index() == 0


def on_writer(function, *args):
    """What ``function(*args)`` returns or raises in process 0, in every process.

    Args:
        function: run in process 0 alone. Of several processes, it returns what `messages.encode`
            takes, and an error arrives in the others as the nearest one in `messages.ERRORS`.
        *args: of it.

    Raises:
        messages.Malformed: if what arrives is no message.
    """
    if jax.process_count() == 1:
        return function(*args)
    message, failed = b"", None
    if is_writer():
        try:
            message = messages.encode(function(*args))
        except Exception as error:
            message, failed = messages.encode_error(error), error
    message = _broadcast(message)
    if failed is not None:
        raise failed
    return messages.decode(message)


@contextlib.contextmanager
def lock(directory):
    """Be the only run that writes to a folder: process 0 holds its `integrity.lock`.

    Args:
        directory: made if absent.

    Raises:
        integrity.Locked: if another run is at work there.
    """
    with contextlib.ExitStack() as held:

        def take():
            Path(directory).mkdir(parents=True, exist_ok=True)
            held.enter_context(integrity.lock(directory))

        on_writer(take)
        yield


def agree(value):
    """The value that process 0 has, in every process."""
    return on_writer(lambda: value)


def _broadcast(message):
    """The bytes that process 0 has, in every process."""
    # Whole pages: a program is compiled for every size.
    sizes = np.array(divmod(len(message), 4096), np.int32)
    pages, rest = map(int, multihost_utils.broadcast_one_to_all(sizes))
    if not (0 <= pages < LONGEST_MESSAGE // 4096 and 0 <= rest < 4096):
        raise messages.Malformed(
            f"process 0 announces a message of {pages} times 4096 bytes, which is not read: start "
            "all processes again, with one version of jaxood, on a network that you trust"
        )
    content = np.frombuffer(message.ljust(4096 * (pages + 1), b"\0"), np.uint8)
    content = multihost_utils.broadcast_one_to_all(content)
    return content.tobytes()[: 4096 * pages + rest]


def wait_for_all():
    """Return once every process has come here."""
    multihost_utils.sync_global_devices("jaxood")


def lost_another(error):
    """Whether an error says that another process is gone."""
    signs = ("Gloo", "NCCL", "coordination service", "distributed service", "DEADLINE_EXCEEDED")
    return jax.process_count() > 1 and any(sign in str(error) for sign in signs)
