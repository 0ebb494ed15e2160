"""The folder of a run: its settings, its lock, and what another experiment may take from it."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.lab.flags import Flags, UsageError
from jaxood import integrity
from jaxood.integrity import Damaged, write_file

# These may change when a run is resumed: they say where it runs, and not what it computes.
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


def open_folder(out: Path, experiment: str, flags: Flags, found: Mapping[str, Any]) -> None:
    """Make the folder of a run, or check that it holds the same run, and lock it.

    No other process can open the folder until `close_folders` is called, or this process ends.

    Args:
        out: the folder.
        experiment: name of the experiment.
        flags: its flags.
        found: what else must be the same when the run is resumed, such as a number of images.

    Raises:
        UsageError: if the folder holds a run with other settings, or files of something else.
        integrity.Damaged: if its ``config.json`` cannot be read.
        integrity.Locked: if another process runs in it.
    """
    text = json.dumps(settings(experiment, flags) | dict(found), indent=2, default=str) + "\n"
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
            return
        old, new = read_settings(out), json.loads(text)
        changed = [k for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k)]
        if changed:
            what = ", ".join(f"{k} = {old.get(k)} (now {new.get(k)})" for k in changed)
            raise UsageError(f"--out {out} holds another run, with {what}: choose another folder")


_locks: dict[Path, contextlib.ExitStack] = {}
"""The locks that this process holds, by folder."""


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Lock a folder for as long as the process runs; after an error it is free at once."""
    with contextlib.ExitStack() as lock:
        if out.resolve() not in _locks:
            lock.enter_context(integrity.lock(out))
        yield
        _locks.setdefault(out.resolve(), lock.pop_all())


def close_folders() -> None:
    """Unlock all folders that this process has opened."""
    while _locks:
        _locks.popitem()[1].close()


def settings(experiment: str, flags: Flags) -> dict[str, Any]:
    """Return the settings that say what a run computes, as its ``config.json`` keeps them."""
    return {"experiment": experiment} | {
        k: v for k, v in dataclasses.asdict(flags).items() if k not in _NOT_SETTINGS
    }


def read_settings(run: Path) -> dict[str, Any]:
    """Read the settings of a run from the ``config.json`` in its folder.

    Args:
        run: the folder.

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


def finished_part(run: Path, flag: str, wanted: Mapping[str, Any], part: str) -> Path:
    """Find the model that a finished run has trained, for another experiment to use.

    Args:
        run: the folder of the run.
        flag: the flag that named it, for messages.
        wanted: settings that the run must have, its experiment among them.
        part: name of the model's folder in it.

    Returns:
        The model's folder.

    Raises:
        UsageError: if the run has other settings, or has not finished its training.
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
