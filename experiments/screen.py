"""Screen any number of images with a model that an experiment has trained.

Takes the model of a finished run (quickstart, bn_fashion_mnist or bn_cifar), calibrates it on
held-out trusted images, and judges every image of --images: a name such as svhn_cropped, a .npz or
.npy file, or a folder of images. Images are read set by set while the model works, so memory does
not grow with their number. scores.csv in --out grows as they are judged: position, file name,
score (higher = more OOD), p-value, and 1 where the image is reported. Stopped at any moment, the
same command goes on where it was. At the end report.html shows the most suspicious images.

Example: python -m experiments.quickstart, then
python -m experiments.screen --run runs/quickstart --images digits/rotated --score batch_norm_delta
"""

import dataclasses
import functools
import json
import time
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import jax
import numpy as np

from experiments import bn_cifar, bn_fashion_mnist, common, quickstart
from experiments.batch_norm_study import R2, Study
from experiments.common import UsageError
from experiments.recipes import Trained, trained
from jaxood import data, detector, figures, record, report, scores, stream
from jaxood.record import label

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
    image by itself, and hold the false-positive rate whatever else arrives. batch_norm_delta sees
    far more, but judges an image among its set (--set-size), for images that come from one place:
    among many OOD images, trusted ones move too and may be reported."""
    false_positive_rate: float = 0.05
    """Share of trusted images that may be reported, at most."""
    calibration: int = 1000
    """Held-out trusted images that the p-values are calibrated on, fewer where there are fewer."""
    set_size: int = 256
    """Images read, scored and written at a time; fewer than twice as many make a single set."""
    draws: int = 2
    """Noise draws an image; of batch_norm_delta, draws of companions too."""


def main(config: Config):
    """Screen."""
    common.start(config)
    if config.set_size < 1 or config.calibration < 1 or config.draws < 1:
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
    fit = trained(
        study.recipe,
        study.in_dist,
        trusted,
        seed=seed,
        devices=config.devices,
        directory=config.run / "model",
    )
    try:
        judge = calibrated(config, study, fit, trusted)
        start = time.monotonic()
        stream.judge(
            judge,
            images,
            out / "scores.csv",
            set_size=config.set_size,
            false_positive_rate=config.false_positive_rate,
            show_progress=True,
        )
    except data.DataError:
        raise
    except ValueError as error:
        raise UsageError(str(error)) from error
    seconds = time.monotonic() - start
    found = stream.summary(out / "scores.csv", suspects=SUSPECTS)
    page = _report(config, study, fit, judge, images, found, seconds, out)
    print(f"{_headline(config, found)}\nscores: {out / 'scores.csv'}\nreport: {page}")
    return found


def finished_run(run: Path) -> tuple[Study, int]:
    """What a finished run studied, and its seed.

    Raises:
        UsageError: if the folder holds no such run, or one that has not finished its training.
    """
    try:
        settings = json.loads((run / "config.json").read_text())
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


def calibrated(config: Config, study: Study, fit: Trained, trusted) -> detector.Detector:
    """The detector: the score that was asked for, and its null on held-out trusted images."""
    held_out, _ = data.load(study.in_dist, "test", config.data_dir)
    rng, key = np.random.default_rng(config.seed), jax.random.key(config.seed)
    held_out = rng.permutation(held_out)[: config.calibration]
    print(f"calibrating on {len(held_out)} images: {label(study.in_dist)}", flush=True)
    noise = {"key": key, "draws": config.draws}
    likelihood = functools.partial(scores.log_prob, fit.model, fit.variables, **noise)
    # The entropy is estimated on training images, as by Nalisnick et al.: a centre that the
    # calibration images had a part in would lie nearer to them than to fresh ones.
    centre = likelihood(rng.permutation(trusted)[: config.calibration])
    delta = functools.partial(
        scores.batch_norm_delta, fit.model, fit.variables,
        reference=jax.device_put(trusted),  # once, not for every set
        r1=0, r2=R2, batch_size=study.sizes.batch_size, **noise,
    )  # fmt: skip
    score = {
        "typicality": lambda x: scores.typicality(likelihood(x), centre),
        "neg_log_prob": lambda x: -likelihood(x),
        "batch_norm_delta": lambda x: delta(x).mean,
    }[config.score]
    made = detector.fit(score, held_out, set_size=config.set_size)
    detector.check_rate(made, config.false_positive_rate)
    return made


def _headline(config: Config, found: stream.Summary) -> str:
    share = found.reported / max(found.images, 1)
    text = (
        f"{found.reported:,} of {found.images:,} images are reported ({share:.1%}); of trusted "
        f"images at most {config.false_positive_rate:.1%} would be"
    )
    if found.known:
        text += f"; {found.known:,} more were calibrated on and cannot be judged"
    return text


def _report(config, study, fit, judge, images, found, seconds, out):
    title = config.images if Path(config.images).exists() else label(config.images)
    trusted = f"{label(study.in_dist)} (calibration)"
    sets = {trusted: judge.null} | ({title: found.scores} if found.images else {})
    figure = figures.score_histograms(sets, trusted, xlabel=f"{label(config.score)} (nats)")
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
            "false_positive_rate": config.false_positive_rate,
            "calibration": len(judge.null),
        },
    )
    return report.write(
        out,
        record=made,
        title=f"Screening {title}",
        summary=f"{_headline(config, found)}.",
        sections=[
            report.Section(
                "What was found",
                f"Every image's score, p-value and verdict is in `scores.csv`. The score is "
                f"{label(config.score)}, calibrated on {len(judge.null):,} held-out images of "
                f"{label(study.in_dist)}; images came in sets of {config.set_size}.",
                [
                    report.Table(
                        "The most suspicious images",
                        ["position", *(["file"] if images.names else []), "score", "p-value"],
                        [
                            [r.index, *([r.file] if images.names else []), r.score, r.p_value]
                            for r in found.suspects[:LISTED]
                        ],
                    )
                ],
                shown,
            )
        ],
    )


if __name__ == "__main__":
    common.run(main, Config, __doc__)
