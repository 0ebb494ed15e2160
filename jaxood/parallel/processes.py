"""Several processes that share one run: how they find each other, and what process 0 decides."""

import contextlib
import os
import re
import signal
import socket
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxood import integrity
from jaxood.parallel import messages

HEARTBEAT_SECONDS = 30
"""A process that was not heard of for so long is dead, and the others end."""

LONGEST_MESSAGE = 2**32
"""Bytes; what claims to be longer is not waited for."""


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
