"""Finished runs of the BatchNorm test, whose models judge other images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import lab
from experiments.batch_norm.settings import Study
from jaxood import data


class FinishedRun(NamedTuple):
    """A run that has finished its training.

    Attributes:
        folder: folder of the run.
        study: the model, the images that it trusts, and the OOD sets of the run.
        seed: seed of the training.
        preset: preset of the run.
    """

    folder: Path
    study: Study
    seed: int
    preset: str

    @property
    def directory(self) -> Path:
        """The folder of the model."""
        return self.folder / "model"

    def images(self, split: str, data_dir: Path | None) -> tuple[np.ndarray, np.ndarray | None]:
        """Load the images, and the labels if there are any, that the model trusts.

        Args:
            split: ``"train"`` for the images that the model was trained on, or ``"test"``.
            data_dir: folder of data sets.
        """
        return data.load(self.study.in_dist, split, data_dir)


def finished_run(folder: Path, experiments: Mapping[str, Any]) -> FinishedRun:
    """Find out what a finished run has trained.

    Args:
        folder: folder of the run.
        experiments: by name, modules with ``Config`` and ``study_of``.

    Raises:
        UsageError: if the folder holds no run of these experiments, or one that has not finished
            its training.
    """
    try:
        settings = lab.read_settings(folder)
        module = experiments[settings.pop("experiment")]
        flags = module.Config(**settings)
        run = FinishedRun(folder, module.study_of(flags), flags.seed, flags.preset)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise lab.UsageError(
            f"--run {folder} is not the folder of a run of {', '.join(experiments)}: give one"
        ) from error
    if not (run.directory / "finished").is_dir():
        raise lab.UsageError(f"--run {folder} has not finished its training: let it finish first")
    return run
