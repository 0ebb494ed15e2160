"""The flags that all experiments share, and the devices and processes that they ask for."""

import contextlib
import dataclasses
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import jax

from experiments.lab.last_words import LAST_WORDS
from jaxood import parallel
from jaxood.nn import native
from jaxood.parallel import messages


@messages.carried
class UsageError(ValueError):
    """The command line asks for something that cannot be done; the message says what to do."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flags:
    """Flags common to all experiments."""

    platform: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """The platform. An accelerator that is asked for and absent is an error; auto takes the best
    that JAX finds."""
    data_dir: Path | None = None
    """Folder of data sets (prepared by TFDS, or your own files). By default the environment
    variable JAXOOD_DATA_DIR, then TFDS's own folder."""
    out: Path | None = None
    """Folder for everything this run writes, by default runs/<experiment>-…. A run that is
    started again with the same folder resumes."""
    seed: int = 0
    """Seed of the initial parameters, the order of the images and all noise."""
    devices: int | None = None
    """Devices that a process trains and scores on, by default all of the platform's. On the CPU,
    this many are simulated."""
    coordinator: str | None = None
    """host:port of process 0, where several processes share a run; give --processes and
    --process-id too, and the same flags to all. On TPU pods, Slurm and Kubernetes all three are
    found by themselves."""
    processes: int | None = None
    """Number of processes that share this run; 1 runs alone wherever it is."""
    process_id: int | None = None
    """Number of this process, from 0. Process 0 writes."""


def start(flags: Flags) -> None:
    """Find the devices and the other processes; a second call changes nothing.

    It comes before any other use of JAX. Processes other than process 0 print nothing from then on.

    Raises:
        UsageError: if the platform, the devices or the processes that were asked for are not there.
    """
    if flags.platform != "auto":
        jax.config.update("jax_platforms", flags.platform)
    if flags.devices is not None:
        with contextlib.suppress(RuntimeError):  # where JAX runs, it has the devices it has
            jax.config.update("jax_num_cpu_devices", flags.devices)
    try:
        parallel.start(flags.coordinator, flags.processes, flags.process_id)
    except (ValueError, RuntimeError) as error:
        raise UsageError(f"the processes cannot share a run: {error}") from error
    _check_platform(flags.platform)
    try:
        parallel.mesh(flags.devices)
    except ValueError as error:
        raise UsageError(f"--devices {flags.devices}: {error}") from error
    if jax.process_count() > 1:
        LAST_WORDS.leave()
    if not parallel.is_writer():
        sys.stdout = open(os.devnull, "w")


def _check_platform(name: str) -> None:
    """Check that JAX runs on a platform that was asked for.

    Raises:
        UsageError: if there is no such accelerator.
    """
    if name == "auto":
        return
    try:
        jax.devices()
    except RuntimeError as error:
        jax.config.update("jax_platforms", "cpu")
        extra = {"gpu": "jax[cuda12]", "tpu": "jax[tpu]"}[name]
        raise UsageError(
            f"--platform {name}: JAX finds no {name.upper()} here, only "
            f"{', '.join(sorted({d.platform for d in jax.devices()}))}. Install its plugin "
            f"(pip install '{extra}') on a machine that has one, or use --platform cpu."
        ) from error


def environment(devices: int | None = None) -> dict[str, str]:
    """Return versions and devices, as a results record keeps them.

    Args:
        devices: number of devices that each process uses; all by default.
    """
    used = parallel.mesh(devices).devices
    return {
        "jaxood": version("jaxood"),
        "jax": jax.__version__,
        "flax": version("flax"),
        "python": platform.python_version(),
        "devices": f"{used.size} x {used[0].device_kind}",
        "native code": native.instructions() or "none" if used[0].platform == "cpu" else "not used",
    }
