"""What all experiments share: flags, the platform, the run folder, errors a person can act on."""

import contextlib
import dataclasses
import json
import os
import platform
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import jax
import tyro

from jaxood import data, integrity, parallel
from jaxood.data import DataError
from jaxood.integrity import Damaged, IntegrityError, write_file
from jaxood.parallel import messages
from jaxood.train import Diverged, Unsuitable


@messages.carried
class UsageError(ValueError):
    """What was asked for cannot be done here; the message says what to do instead."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flags:
    """Flags common to all experiments."""

    platform: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """Where to run. An accelerator that is asked for and absent is an error; auto takes the best
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
    """Which of them this is, from 0. Process 0 writes."""


# Where a run happens is not what it computes: these may change when a run is resumed.
_NOT_SETTINGS = (
    "platform",
    "data_dir",
    "out",
    "trusted_run",
    "devices",
    "coordinator",
    "processes",
    "process_id",
)


def run(main: Callable, config_type: type, description: str | None):
    """Parse the command line, run ``main(config)``, and end on one clear sentence if it cannot."""
    config = tyro.cli(config_type, description=description)
    try:
        main(config)
        parallel.wait_for_all()
    except (UsageError, DataError, Diverged, Unsuitable, IntegrityError) as error:
        _exit(f"error: {error}")
    except KeyboardInterrupt:
        _exit("\nstopped: the same command goes on from the last checkpoint")
    except Exception as error:
        if not jax.distributed.is_initialized():
            raise
        if not parallel.lost_another(error):
            traceback.print_exc()
            _exit("error: this process failed, and the others will end")
        _exit(
            "error: another process of this run ended, or cannot be reached. Start all of them "
            f"again: they go on from the last checkpoint. ({error})"
        )
    finally:
        while _locks:
            _locks.popitem()[1].close()
    _last_words.take_back()


def _exit(message: str):
    if not jax.distributed.is_initialized():
        sys.exit(message)
    # At a regular exit JAX would wait for the other processes, and they wait for this one.
    print(message, file=sys.stderr, flush=True)
    _last_words.take_back()
    os._exit(1)


class _LastWords:
    """A sentence that a shell says if this process dies without one.

    JAX aborts a process when it hears that another is gone, and no handler of Python's runs then;
    the shell sees that its input ends.
    """

    words = (
        "error: this process ended in the middle of its work: another process of this run is "
        "gone, or it was killed. Start all of them again: they go on from the last checkpoint."
    )
    shell: subprocess.Popen | None = None

    def leave(self):
        self.shell = subprocess.Popen(
            ["sh", "-c", 'read -r _ || echo "$0" >&2', self.words],
            stdin=subprocess.PIPE,
            start_new_session=True,  # a signal to the whole group is for this process
        )

    def take_back(self):
        if self.shell is not None:
            self.shell.communicate(b"\n")
            self.shell = None


_last_words = _LastWords()


def start(flags: Flags):
    """Find the devices and the other processes; call it before any other use of JAX.

    Raises:
        UsageError: if something that was asked for is not there.
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
    use_platform(flags.platform)
    try:
        parallel.mesh(flags.devices)
    except ValueError as error:
        raise UsageError(f"--devices {flags.devices}: {error}") from error
    if jax.process_count() > 1:
        _last_words.leave()
    if not parallel.is_writer():
        sys.stdout = open(os.devnull, "w")


def use_platform(name: str):
    """Make JAX run on ``name``.

    Raises:
        UsageError: if there is no such accelerator.
    """
    if name == "auto":
        return
    jax.config.update("jax_platforms", name)
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


_locks: dict[Path, contextlib.ExitStack] = {}
"""On the folders of this process's runs, until `run` ends, or the process does."""


@contextlib.contextmanager
def _locked(out: Path):
    """Lock the folder of a run; where an error follows, another run may have it at once."""
    with contextlib.ExitStack() as lock:
        if out.resolve() not in _locks:
            lock.enter_context(integrity.lock(out))
        yield
        _locks.setdefault(out.resolve(), lock.pop_all())


def open_run(out: Path, experiment: str, config: Flags, **found) -> Path:
    """Make the run folder, or find in it the same run to resume; process 0 does.

    No other process can open it until this one ends, or `run` does.

    Args:
        out: the folder.
        experiment: name of the experiment.
        config: its settings.
        **found: what else must be the same when it resumes, such as a number of images.

    Returns:
        ``out``.

    Raises:
        UsageError: if the folder holds another configuration, or files of something else.
        integrity.Damaged: if its ``config.json`` cannot be read.
        integrity.Locked: if another run is at work in it.
    """
    return parallel.on_writer(_open_run, out, experiment, config, found)


def _open_run(out: Path, experiment: str, config: Flags, found: dict) -> Path:
    text = json.dumps(settings(experiment, config) | found, indent=2, default=str) + "\n"
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file: choose a new folder")
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        file = out / "config.json"
        if not file.exists():
            # A run that was killed at once may have left a part of this file.
            if any(not p.name.startswith(".config.json.") for p in out.iterdir()):
                raise UsageError(
                    f"--out {out} holds something that is not a run: choose a new folder"
                )
            write_file(file, text.encode())
            return out
        old, new = read_settings(out), json.loads(text)
        changed = [k for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k)]
        if changed:
            what = ", ".join(f"{k} = {old.get(k)} (now {new.get(k)})" for k in changed)
            raise UsageError(f"--out {out} holds another run, with {what}: choose another folder")
        return out


def read_settings(run: Path) -> dict:
    """The settings of a run, from its ``config.json``.

    Args:
        run: its folder.

    Raises:
        OSError: if there is no such file.
        integrity.Damaged: if it holds no settings.
    """
    file = run / "config.json"
    try:
        found = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{file} is not valid JSON: choose another folder") from error
    if not isinstance(found, dict):
        raise Damaged(f"{file} does not hold the settings of a run: choose another folder")
    return found


def settings(experiment: str, config: Flags) -> dict:
    """What a run's ``config.json`` holds: all that says what it computes."""
    return {"experiment": experiment} | {
        k: v for k, v in dataclasses.asdict(config).items() if k not in _NOT_SETTINGS
    }


def finished_part(run: Path, flag: str, wanted: Mapping, part: str) -> Path:
    """The folder of what a finished run has trained, for another experiment to use.

    Args:
        run: its folder.
        flag: that named it.
        wanted: settings that it must have, its experiment among them.
        part: name of the folder in it.

    Raises:
        UsageError: if the run has other settings, or has not finished.
    """
    try:
        found = read_settings(run)
    except (OSError, Damaged) as error:
        raise UsageError(
            f"{flag} {run} has no config.json that can be read: give the folder of a finished run "
            f"of {wanted['experiment']}"
        ) from error
    if other := [k for k, value in wanted.items() if found.get(k) != value]:
        what = ", ".join(f"{k} = {found.get(k)} (here {wanted[k]})" for k in other)
        raise UsageError(f"{flag} {run} is another run, with {what}: give one that fits")
    if not (run / part / "finished").is_dir():
        raise UsageError(f"{flag} {run} has not finished its training: let it finish first")
    return run / part


def environment(devices: int | None = None) -> dict:
    """What a results record says about where it was made, on so many devices a process."""
    used = parallel.mesh(devices).devices
    return {
        "jaxood": version("jaxood"),
        "jax": jax.__version__,
        "flax": version("flax"),
        "python": platform.python_version(),
        "devices": f"{used.size} x {used[0].device_kind}",
    }


def load_ood(names: Sequence[str], *, trusted: str, shape: tuple[int, ...], data_dir):
    """Images and labels of the OOD sets that are to be had, and why the others are not, by name.

    Args:
        names: of the sets.
        trusted: name of the trusted set.
        shape: ``(h, w, c)`` of its images.
        data_dir: where to look.

    Raises:
        DataError: if none is to be had, or one is damaged.
        UsageError: if images have another shape.
    """
    found, absent = {}, {}
    for name in names:
        try:
            images, labels = data.load(name, "test", data_dir)
        except data.AbsentError as error:
            print(f"left out: {error}", flush=True)
            absent[name] = str(error)
            continue
        if images.shape[1:] != shape:
            raise UsageError(
                f"images of {name} are {images.shape[1:]}, those of {trusted} {shape}: give sets "
                "of one shape"
            )
        found[name] = images, labels
    if not found:
        raise data.DataError(f"no OOD set is to be had: {'; '.join(absent.values())}")
    return found, absent
