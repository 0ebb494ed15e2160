"""Screen any number of images with a model that an experiment has trained.

Takes the model of a finished run (quickstart, bn_fashion_mnist or bn_cifar), calibrates it on
held-out trusted images, and judges every image of --images: a name such as svhn_cropped, a .npz or
.npy file, or a folder of images. Images are read while the model works, so memory does not grow
with their number. scores.csv in --out grows as they are judged: position, file name, score (higher
= more OOD), p-value, and 1 where the image is reported. An image that cannot be read gets a line
with the reason. Stopped at any moment, the same command goes on where it was. At the end
report.html shows the most suspicious images.

Example: python -m experiments.quickstart, then
python -m experiments.screen --run runs/quickstart --images digits/rotated --score batch_norm_delta
--false-positive-rate 0.1
"""

import dataclasses
import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import jax
import numpy as np

from experiments import bn_cifar, bn_fashion_mnist, quickstart
from experiments.batch_norm.settings import R2, Study
from experiments.lab import common
from experiments.lab.common import UsageError
from experiments.lab.recipes import Trained, trained
from jaxood import data, detector, report, scores, stream
from jaxood.integrity import IntegrityError
from jaxood.report import figures, record
from jaxood.report.labels import label

RUNS: dict[str, ModuleType] = {
    "quickstart": quickstart,
    "bn_fashion_mnist": bn_fashion_mnist,
    "bn_cifar": bn_cifar,
}
"""Experiments whose models can screen."""
SUSPECTS = 32
"""Images in the report, at most."""
LISTED = 10
"""Of them in its table."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(common.Flags):
    """Flags of the screening."""

    run: Path
    """Folder of a finished run of quickstart, bn_fashion_mnist or bn_cifar."""
    images: str
    """What to screen: a name, a .npz or .npy file, or a folder of images, as large as it may be;
    then any transforms, as in digits/rotated."""
    split: str = "test"
    """Split of the images, where they have several."""
    score: Literal["typicality", "neg_log_prob", "batch_norm_delta"] = "typicality"
    """typicality: is the likelihood unusual, high or low? neg_log_prob: is it low? Both judge each
    image by itself, whatever else arrives. batch_norm_delta judges sets of images (--set-size),
    each as a whole: a set that holds OOD images is reported with the trusted images in it."""
    false_positive_rate: float = 0.05
    """Share of trusted images, or of sets of trusted images, that is reported on average over
    calibrations."""
    calibration: int | None = None
    """Held-out trusted images that the p-values are calibrated on, fewer where there are fewer; by
    default 1000, or 40 sets of them for batch_norm_delta."""
    set_size: int | None = None
    """Images in a set that batch_norm_delta judges, by default 64; the images are dealt to sets by
    a seeded shuffle. The other scores only read and write so many at a time, by default 1024."""
    draws: int = 2
    """Noise draws an image; of batch_norm_delta, draws of companions too."""


def main(config: Config):
    """Screen."""
    common.start(config)
    if min(config.set_size or 1, config.calibration or 1, config.draws) < 1:
        raise UsageError("--set-size, --calibration and --draws are counts: give at least 1")
    if jax.process_count() > 1:
        raise UsageError(
            "screening runs in one process, on all of its devices: give each process images and "
            "an --out of its own, with --processes 1"
        )
    study, seed = finished_run(config.run)
    trusted, _ = data.load(study.in_dist, "train", config.data_dir)
    images = data.open(config.images, config.split, config.data_dir)
    if images.shape[1:] != trusted.shape[1:]:
        raise UsageError(
            f"images of {config.images} are {images.shape[1:]}, but the model of {config.run} was "
            f"trained on {trusted.shape[1:]}: give images of that shape"
        )
    out = config.out or Path("runs/screen")
    common.open_run(out, "screen", config, number_of_images=len(images))
    fit = model_of(config.run, study, seed, trusted, config.devices)
    if images.skipped:
        print(f"{len(images.skipped)} files are not read: {_listed(images.skipped)}", flush=True)
    try:
        judge = calibrated(config, study, fit, trusted)
        start = time.monotonic()
        stream.judge(
            judge,
            images,
            out / "scores.csv",
            set_size=config.set_size,
            false_positive_rate=config.false_positive_rate,
            seed=config.seed,
            show_progress=True,
        )
    except (data.DataError, IntegrityError):
        raise
    except ValueError as error:
        raise UsageError(str(error)) from error
    seconds = time.monotonic() - start
    found = stream.summary(out / "scores.csv", suspects=SUSPECTS)
    page = _report(config, study, fit, judge, images, found, seconds, out)
    print(f"{_headline(config, judge, found)}\nscores: {out / 'scores.csv'}\nreport: {page}")
    return found


def finished_run(run: Path) -> tuple[Study, int]:
    """What a finished run studied, and its seed.

    Raises:
        UsageError: if the folder holds no such run, or one that has not finished its training.
    """
    try:
        settings = common.read_settings(run)
        module: Any = RUNS[settings.pop("experiment")]
        config = module.Config(**settings)
        study = module.study_of(config)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"--run {run} is not the folder of a run of {', '.join(RUNS)}: give one"
        ) from error
    if not (run / "model" / "finished").is_dir():
        raise UsageError(f"--run {run} has not finished its training: let it finish first")
    return study, config.seed


def model_of(run: Path, study: Study, seed: int, trusted, devices: int | None) -> Trained:
    """The model of a finished run; ``trusted`` must be the images that it was trained on."""
    return trained(
        study.recipe,
        study.in_dist,
        trusted,
        seed=seed,
        devices=devices,
        directory=run / "model",
    )


def calibrated(config: Config, study: Study, fit: Trained, trusted) -> detector.Detector:
    """The detector: the score that was asked for, and its null on held-out trusted images."""
    held_out, _ = data.load(study.in_dist, "test", config.data_dir)
    rng = np.random.default_rng(config.seed)
    set_size = (config.set_size or 64) if config.score == "batch_norm_delta" else None
    held_out = rng.permutation(held_out)[
        : config.calibration or (40 * set_size if set_size else 1000)
    ]
    print(f"calibrating on {len(held_out)} images: {label(study.in_dist)}", flush=True)
    noise = {"seed": config.seed, "draws": config.draws}
    # The entropy is estimated on training images, as by Nalisnick et al.: a centre that the
    # calibration images had a part in would lie nearer to them than to fresh ones.
    centre = rng.permutation(trusted)[: len(held_out)]
    model, variables, size = fit.model, fit.variables, study.sizes.batch_size
    score = {
        "typicality": lambda: scores.typicality(model, variables, centre, **noise),
        "neg_log_prob": lambda: scores.neg_log_prob(model, variables, **noise),
        "batch_norm_delta": lambda: scores.batch_norm_delta(
            model, variables, trusted, r2=R2, batch_size=size, **noise
        ),
    }[config.score]()
    made = detector.fit(score, held_out, set_size=set_size, seed=config.seed)
    detector.check_rate(made, config.false_positive_rate)
    return made


def _headline(config: Config, judge: detector.Detector, found: stream.Summary) -> str:
    low, high = detector.rate_interval(judge, config.false_positive_rate)
    expected = f"{config.false_positive_rate:.1%} ({low:.1%} to {high:.1%} with this calibration)"
    if judge.set_size is None:
        share = found.reported / max(found.images, 1)
        text = (
            f"{found.reported:,} of {found.images:,} images are reported ({share:.1%}); of trusted "
            f"images {expected} would be"
        )
    else:
        share = found.reported_sets / max(found.sets, 1)
        text = (
            f"{found.reported_sets:,} of {found.sets:,} sets of {judge.set_size} images are "
            f"reported ({share:.1%}); of sets of trusted images {expected} would be"
        )
    if found.known:
        text += f"; {found.known:,} more images were calibrated on and are not judged"
    if found.damaged:
        text += f"; {found.damaged:,} more could not be read"
    return text


def _listed(names: Sequence[str], most: int = 5) -> str:
    """The first names of a list."""
    shown = ", ".join(stream.escape(name) for name in names[:most])
    return shown + (", …" if len(names) > most else "")


def _means_of_sets(path: Path) -> np.ndarray:
    """The mean score of the images of each set that have their line in it."""
    judged = ((row.set, row.score) for row in stream.rows(path) if not row.reason)
    return np.array(
        [
            np.mean([score for _, score in of_set])
            for _, of_set in itertools.groupby(judged, key=lambda pair: pair[0])
        ]
    )


_PROMISES = {
    False: "Each image is judged by itself. The rate at which trusted images are reported is exact "
    "on average over calibrations; the bracket says what this one calibration may make of it.",
    True: "This score judges sets: the images were dealt to them by a shuffle, and all images of a "
    "set share its p-value. Nothing is promised for a trusted image in a set with OOD images: such "
    "a set is reported whole, and then its images want a look, the highest scores first.",
}


def _report(config, study, fit, judge, images, found, seconds, out):
    title = config.images if Path(config.images).exists() else label(config.images)
    trusted = f"{label(study.in_dist)} (calibration)"
    # The null of a detector of sets holds means of sets: only such can be compared with it.
    in_sets = judge.set_size is not None
    judged = _means_of_sets(out / "scores.csv") if in_sets else found.scores
    sets = {trusted: judge.null} | ({title: judged} if found.images else {})
    xlabel = f"{'mean of a set, ' * in_sets}{label(config.score)} (nats)"
    figure = figures.score_histograms(sets, trusted, xlabel=xlabel)
    figures.save(figure, out / "figures" / "scores.png")
    shown = [report.FigureFile("scores.png", f"The score over {title} and trusted images.")]
    if found.suspects:
        # Read in the order in which they lie: a compressed file is read from the front.
        pixels = {i: images[i : i + 1] for i in sorted(row.index for row in found.suspects)}
        figure = figures.image_grid(
            {"the most suspicious": np.concatenate([pixels[r.index] for r in found.suspects])},
            captions={"the most suspicious": [f"{row.index:,}" for row in found.suspects]},
        )
        figures.save(figure, out / "figures" / "suspects.png")
        shown.append(report.FigureFile("suspects.png", "The highest scores, with positions."))
    units = "images" if judge.set_size is None else f"sets of {judge.set_size} images"
    left_out = ""
    if images.skipped:
        left_out = f" {len(images.skipped)} files were not read: {_listed(images.skipped)}."
    with_files = ["file"] if images.names else []

    def cells(row: stream.Row, *values):
        return [row.index, *([stream.escape(row.file)] if images.names else []), *values]

    tables = [
        report.Table(
            "The most suspicious images",
            ["position", *with_files, "score", "p-value"],
            [cells(r, r.score, r.p_value) for r in found.suspects[:LISTED]],
        )
    ]
    if found.unread:
        tables.append(
            report.Table(
                "Images that could not be read",
                ["position", *with_files, "reason"],
                [cells(r, stream.escape(r.reason)) for r in found.unread[:LISTED]],
            )
        )
    made = record.Record(
        experiment="screen",
        seed=config.seed,
        preset=study.preset,
        environment=common.environment(config.devices),
        models=[fit.row],
        extra={
            "images": found.images,
            "reported": found.reported,
            "known": found.known,
            "damaged": found.damaged,
            "not read": len(images.skipped),
            "sets": found.sets,
            "reported_sets": found.reported_sets,
            "false_positive_rate": config.false_positive_rate,
            "calibration": len(judge.null),
        },
    )
    return report.write(
        out,
        record=made,
        title=f"Screening {title}",
        summary=f"{_headline(config, judge, found)}.",
        sections=[
            report.Section(
                "What was found",
                f"Every image's score, p-value and verdict is in `scores.csv`. The score is "
                f"{label(config.score)}, calibrated on {len(judge.null):,} held-out {units} of "
                f"{label(study.in_dist)}. {_PROMISES[judge.set_size is not None]}{left_out}",
                tables,
                shown,
            )
        ],
    )


if __name__ == "__main__":
    common.run(main, Config, __doc__)
