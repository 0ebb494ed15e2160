"""Several processes that share one run: they find each other, and process 0 decides and writes."""

import contextlib
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxood import integrity
from jaxood.parallel import messages

HEARTBEAT_SECONDS = 30
"""Seconds without a sign of life after which a process is taken for dead, and the others end."""

LONGEST_MESSAGE = 2**32
"""Bytes of the longest message that is read."""

T = TypeVar("T")


def start(
    coordinator: str | None = None, processes: int | None = None, process_id: int | None = None
) -> None:
    """Join the other processes; call it before any other use of JAX.

    Without arguments JAX finds the other processes by itself on TPU pods, in Slurm steps of several
    tasks and in indexed jobs of Kubernetes, and process 0 listens on all of its addresses. Anywhere
    else there is one process.

    Args:
        coordinator: ``host:port`` of process 0, an IPv6 address in brackets. Process 0 listens on
            this address only, so a host name must resolve, on process 0 as elsewhere, to the
            address by which the others reach it. If that is not an address of its own machine, for
            example behind a router, set the environment variable JAX_COORDINATOR_BIND_ADDRESS to
            the address to listen on.
        processes: number of processes; 1 joins none.
        process_id: number of this process, from 0.

    Raises:
        ValueError: if only some of the three are given, if they contradict each other, or if
            process 0 cannot listen on the address.
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
    # JAX reserves SIGTERM for a preemption service that is not used here: let it end the process.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _check_own(address: str) -> None:
    """Check that this process can listen on an address; JAX 0.10 would crash where it cannot.

    Raises:
        ValueError: if it cannot.
    """
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


def _in_cluster() -> bool:
    """Tell whether the environment says that this is one of several processes."""
    environ = os.environ
    hosts = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES") or ""
    return (
        int(environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1
        or {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= environ.keys()
        or "," in hosts
    )


def _on_tpu() -> bool:
    """Tell whether this is the host of a TPU, whose metadata server may know of a pod.

    JAX sets the first variable when it is imported there, and the second where the metadata server
    must not be asked.
    """
    return os.environ.get("TPU_ML_PLATFORM") == "JAX" and "TPU_SKIP_MDS_QUERY" not in os.environ


def is_writer() -> bool:
    """Tell whether this is process 0, which writes files and shows progress."""
    return jax.process_index() == 0


def on_writer(function: Callable[..., T], *args: Any) -> T:
    """Call a function in process 0 alone, and return or raise its result in every process.

    Args:
        function: the function. With several processes, its result must be one that
            `messages.encode` takes, and an error arrives in the other processes as its nearest
            class in `messages.ERRORS`.
        *args: arguments of the function.

    Raises:
        messages.Malformed: if the bytes that arrive are not a message.
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
def lock(directory: Path | str) -> Iterator[None]:
    """Hold the lock of a folder in process 0, so that no other run writes to it.

    Args:
        directory: made if absent.

    Raises:
        integrity.Locked: if another run holds the lock.
    """
    with contextlib.ExitStack() as held:

        def take() -> None:
            Path(directory).mkdir(parents=True, exist_ok=True)
            held.enter_context(integrity.lock(directory))

        on_writer(take)
        yield


def agree(value: T) -> T:
    """Return, in every process, the value that process 0 gives."""
    return on_writer(lambda: value)


def _broadcast(message: bytes) -> bytes:
    """Return, in every process, the bytes that process 0 gives."""
    # Messages are sent in whole pages, since a program is compiled for every size.
    sizes = np.array(divmod(len(message), 4096), np.int32)
    pages, rest = map(int, multihost_utils.broadcast_one_to_all(sizes))
    if not (0 <= pages < LONGEST_MESSAGE // 4096 and 0 <= rest < 4096):
        raise messages.Malformed(
            f"process 0 announces a message of {pages} times 4096 bytes, which is too long: start "
            "all processes again, with one version of jaxood, on a network that you trust"
        )
    content = np.frombuffer(message.ljust(4096 * (pages + 1), b"\0"), np.uint8)
    content = multihost_utils.broadcast_one_to_all(content)
    return content.tobytes()[: 4096 * pages + rest]


def wait_for_all() -> None:
    """Wait until every process has called this function."""
    multihost_utils.sync_global_devices("jaxood")


def lost_another(error: Exception) -> bool:
    """Tell whether an error means that another process is gone."""
    signs = ("Gloo", "NCCL", "coordination service", "distributed service", "DEADLINE_EXCEEDED")
    return jax.process_count() > 1 and any(sign in str(error) for sign in signs)
