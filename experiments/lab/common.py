"""The former names of `experiments.lab`, until every command has moved there."""

from pathlib import Path

from experiments.lab.command import main as run
from experiments.lab.flags import Flags, UsageError, environment, start
from experiments.lab.folder import finished_part, read_settings, settings
from experiments.lab.run import begin
from experiments.lab.sets import load_ood

__all__ = [
    "Flags",
    "UsageError",
    "environment",
    "finished_part",
    "load_ood",
    "open_run",
    "read_settings",
    "run",
    "settings",
    "start",
]


def open_run(out: Path, experiment: str, config: Flags, **found) -> Path:
    """Call `experiments.lab.begin`."""
    return begin(config, experiment, out, **found).out
