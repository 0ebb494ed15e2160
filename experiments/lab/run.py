"""One run of an experiment: its folder, its models, its stored scores, and its report."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from matplotlib.figure import Figure

from experiments.lab.flags import Flags, environment, start
from experiments.lab.folder import open_folder
from experiments.lab.store import Scores
from jaxood import parallel, report
from jaxood.report import figures as report_figures
from jaxood.report.labels import label
from jaxood.report.record import BpdRow, ModelRow, Record, ResultRow
from jaxood.train import Recipe, Trained

F = TypeVar("F", bound=Flags)


@dataclasses.dataclass
class Run(Generic[F]):
    """One run of an experiment.

    Attributes:
        experiment: name of the experiment.
        flags: what the command line asks for.
        out: folder of the run.
        models: a row of the results record for each model that was trained.
    """

    experiment: str
    flags: F
    out: Path
    models: list[ModelRow] = dataclasses.field(default_factory=list)

    @functools.cached_property
    def store(self) -> Scores:
        """The arrays that the run has computed so far, in ``scores.npz``."""
        return Scores(self.out / "scores.npz")

    def train(
        self,
        recipe: Recipe,
        images: np.ndarray,
        labels: np.ndarray | None = None,
        *,
        name: str | None,
        in_dist: str,
        part: str = "model",
        seed: int | None = None,
        directory: Path | None = None,
    ) -> Trained:
        """Train a model of the run, or go on with it, or load it where it is finished.

        Args:
            recipe: the model and its training.
            images: trusted images, uint8 ``(n, h, w, c)``.
            labels: labels of the images, int ``(n,)``; density models need none.
            name: name of the model in the results record; None leaves it out of the record.
            in_dist: name of the trusted images.
            part: name of the model's folder in that of the run.
            seed: seed of the training; the run's by default.
            directory: folder of the model, where that is not in the run's own folder.

        Returns:
            The model, as by `Recipe.train`.
        """
        directory = directory or self.out / part
        if not (directory / "finished").exists():
            print(f"training: {label(name or recipe.model)}", flush=True)
        trained = recipe.train(
            images,
            labels,
            seed=self.flags.seed if seed is None else seed,
            directory=directory,
            devices=self.flags.devices,
        )
        if name is not None:
            self.models.append(
                ModelRow(name, in_dist, trained.parameters, recipe.steps, trained.seconds)
            )
        return trained

    def finish(
        self,
        template: Path,
        *,
        headline: str | None,
        title: str,
        context: Mapping[str, Any],
        figures: Mapping[str, Callable[[], Figure]],
        results: Sequence[ResultRow] = (),
        bpd: Sequence[BpdRow] = (),
        sweeps: Sequence[ResultRow] = (),
        extra: Mapping[str, Any] | None = None,
        preset: str | None = None,
    ) -> Record:
        """Write the results record, the figures and the report, and print where the report is.

        Process 0 alone writes.

        Args:
            template: the study's page, as for `report.write`.
            headline: the result in a sentence or two, printed; None prints none.
            title: title of the report.
            context: names of the template, besides ``title`` and ``headline``.
            figures: by name, functions that draw the figures of the report.
            results: detection rows of the record.
            bpd: rows of bits per dimension.
            sweeps: rows of the record's sweeps.
            extra: other numbers of the record.
            preset: preset of the record; by default the flag ``--preset``.

        Returns:
            The record.
        """
        made = Record(
            experiment=self.experiment,
            seed=self.flags.seed,
            preset=preset or getattr(self.flags, "preset", ""),
            environment=environment(self.flags.devices),
            models=self.models,
            bpd=bpd,
            results=results,
            sweeps=sweeps,
            extra=extra or {},
        )
        if parallel.is_writer():
            for name, draw in figures.items():
                report_figures.save(draw(), self.out / "figures" / f"{name}.png")
            page = report.write(
                self.out,
                record=made,
                template=template,
                context={"title": title, "headline": headline, **context},
            )
            if headline is not None:
                print(headline)
            print(f"report: {page}")
        return made


def begin(flags: F, experiment: str, out: Path, **found: Any) -> Run[F]:
    """Begin a run, or resume it: find the devices, and open and lock its folder.

    Args:
        flags: what the command line asks for.
        experiment: name of the experiment.
        out: folder of the run, made if absent. No other process can open it until this one ends.
        **found: what else must be the same when the run is resumed, such as a number of images.

    Raises:
        UsageError: if the devices are not there, or the folder holds something else.
        integrity.Damaged: if its ``config.json`` cannot be read.
        integrity.Locked: if another process runs in it.
    """
    start(flags)
    parallel.on_writer(open_folder, out, experiment, flags, found)
    _keep_programs()
    return Run(experiment, flags, out)


def _keep_programs() -> None:
    """Keep compiled programs in the user's cache folder, so that the next run starts sooner.

    They are machine code, and so they never lie in the folder of a run, which may come from others.
    ``JAX_COMPILATION_CACHE_DIR`` names another folder, and ``JAX_ENABLE_COMPILATION_CACHE=false``
    keeps no program. JAX compiles anew what it cannot read.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxood"
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        compilation_cache.reset_cache()  # what was compiled before has settled where it lies
