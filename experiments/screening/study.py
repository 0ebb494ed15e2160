"""A screening from a finished run to its report."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import lab
from experiments.batch_norm.settings import R2
from experiments.screening import report
from experiments.screening.report import Screening
from experiments.screening.runs import FinishedRun, finished_run
from experiments.screening.settings import Config
from jaxood import data, detector, scores, stream
from jaxood.data import DataError
from jaxood.integrity import IntegrityError
from jaxood.report import label
from jaxood.train import Trained

PAGE = Path(__file__).with_name("page.md")


def screen(flags: Config, experiments: Mapping[str, Any]) -> stream.Summary:
    """Judge images with the model of a finished run, and write the report.

    Args:
        flags: flags of the command line.
        experiments: by name, the experiments whose models can screen.

    Returns:
        The results, summed up.

    Raises:
        UsageError: if the flags do not fit each other, the run or the images.
        DataError: if the images cannot be read.
    """
    lab.start(flags)
    check(flags)
    lender = finished_run(flags.run, experiments)
    trusted, _ = lender.images("train", flags.data_dir)
    images = data.open(flags.images, flags.split, flags.data_dir)
    if images.shape[1:] != trusted.shape[1:]:
        raise lab.UsageError(
            f"images of {flags.images} are {images.shape[1:]}, but the model of {flags.run} was "
            f"trained on {trusted.shape[1:]}: give images of that shape"
        )
    out = flags.out or Path("runs/screen")
    run = lab.begin(flags, "screen", out, number_of_images=len(images))
    trained = run.train(
        lender.study.recipe,
        trusted,
        name=lender.study.recipe.model,
        in_dist=lender.study.in_dist,
        seed=lender.seed,
        directory=lender.directory,
    )
    if images.skipped:
        print(f"{len(images.skipped)} files are not read: {report.listed(images.skipped)}")
    try:
        judge = calibrated(flags, lender, trained, trusted)
        stream.judge(
            judge,
            images,
            out / "scores.csv",
            set_size=flags.set_size,
            false_positive_rate=flags.false_positive_rate,
            seed=flags.seed,
            show_progress=True,
        )
    except (DataError, IntegrityError):
        raise
    except ValueError as error:
        raise lab.UsageError(str(error)) from error
    found = stream.summary(out / "scores.csv", suspects=report.SUSPECTS)
    screening = Screening(flags, lender.study.in_dist, judge, images, found, out / "scores.csv")
    run.finish(
        PAGE,
        headline=screening.headline,
        title=f"Screening {screening.title}",
        context=screening.context,
        figures=screening.figures,
        extra=screening.extra,
        preset=lender.preset,
    )
    print(f"scores: {out / 'scores.csv'}")
    return found


def check(flags: Config) -> None:
    """Check the flags that tyro cannot check.

    Raises:
        UsageError: if a count is less than 1, or several processes are to share the run.
    """
    if min(flags.set_size or 1, flags.calibration or 1, flags.draws) < 1:
        raise lab.UsageError("--set-size, --calibration and --draws are counts: give at least 1")
    if jax.process_count() > 1:
        raise lab.UsageError(
            "screening runs in one process, on all of its devices: give each process images and "
            "an --out of its own, with --processes 1"
        )


def calibrated(
    flags: Config, lender: FinishedRun, trained: Trained, trusted: np.ndarray
) -> detector.Detector:
    """Build the score that was asked for, and calibrate it on held-out trusted images.

    Args:
        flags: flags of the command line.
        lender: the run that has trained the model.
        trained: its model.
        trusted: the images that the model was trained on.

    Raises:
        ValueError: if the images are too few for a set or for the false-positive rate.
    """
    held_out, _ = lender.images("test", flags.data_dir)
    rng = np.random.default_rng(flags.seed)
    set_size = (flags.set_size or 64) if flags.score == "batch_norm_delta" else None
    wanted = flags.calibration or (40 * set_size if set_size else 1000)
    held_out = rng.permutation(held_out)[:wanted]
    print(f"calibrating on {len(held_out)} images: {label(lender.study.in_dist)}", flush=True)
    build = functools.partial(
        getattr(scores, flags.score),
        trained.model,
        trained.variables,
        seed=flags.seed,
        draws=flags.draws,
    )
    if flags.score == "batch_norm_delta":
        score = build(trusted, r2=R2, batch_size=lender.study.sizes.batch_size)
    elif flags.score == "typicality":
        score = build(rng.permutation(trusted)[: len(held_out)])
    else:
        score = build()
    made = detector.fit(score, held_out, set_size=set_size, seed=flags.seed, show_progress=True)
    detector.check_rate(made, flags.false_positive_rate)
    return made
