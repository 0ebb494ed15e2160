"""The laboratory of all experiments: flags, the folder of a run, stored scores, and the report."""

from experiments.lab.command import main
from experiments.lab.flags import Flags, UsageError, environment, start
from experiments.lab.folder import finished_part, read_settings, settings
from experiments.lab.run import Run, begin
from experiments.lab.sets import load_ood
from experiments.lab.store import Scores, identity

__all__ = [
    "Flags",
    "Run",
    "Scores",
    "UsageError",
    "begin",
    "environment",
    "finished_part",
    "identity",
    "load_ood",
    "main",
    "read_settings",
    "settings",
    "start",
]
