"""The BatchNorm test from images to report; an experiment says on what, and how much of it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from experiments import lab
from experiments.batch_norm import paper
from experiments.batch_norm.figures import drawings
from experiments.batch_norm.results import Results
from experiments.batch_norm.settings import CONTAMINATION, R1, R2, RATIOS, Study
from jaxood import data, metrics, report, scores
from jaxood.density import bits_per_dim
from jaxood.report import label
from jaxood.report.record import Record
from jaxood.train import Recipe, Trained

PAGE = Path(__file__).with_name("page.md")
MAIN_SCORES = ("neg_log_prob", "t_perm", "waic", "batch_norm_delta")
"""Scores of the paper's Table 2."""


class Images(NamedTuple):
    """The images of a study.

    Attributes:
        trusted: the training images, uint8 ``(n, h, w, c)``.
        sets: images to score by set: trusted test, control and calibration images, OOD images.
        absent: OOD sets that are not there, and why.
    """

    trusted: np.ndarray
    sets: dict[str, np.ndarray]
    absent: dict[str, str]


def run(study: Study, flags: lab.Flags, out: Path) -> Record:
    """Train, score, and write the record and the report; go on with what is there.

    Args:
        study: the sets, the model, and how much of them.
        flags: flags of the command line.
        out: folder of the run.

    Raises:
        DataError: without the trusted set, or without any OOD set.
        UsageError: if there are too few trusted images, or the folder holds another run.
    """
    run = lab.begin(flags, study.experiment, out)
    images = load(study, flags)
    study = dataclasses.replace(study, ood=tuple(name for name in study.ood if name in images.sets))
    trained = run.train(
        study.recipe, images.trusted, name=study.recipe.model, in_dist=study.in_dist
    )
    run.store.expect(lab.identity(images.sets, model=trained.variables))
    log_probs, seconds = _log_probs(run, study, images, trained)
    mixed = _mixed(run, study, images, trained)
    samples = _samples(run, trained)
    members = {}
    if study.ensemble is not None:
        members = _members(run, study, study.ensemble, images)
    results = Results(
        model=study.recipe.model,
        in_dist=study.in_dist,
        null=study.null,
        ood=(*study.ood, study.control),
        image_shape=images.trusted.shape[1:],
        sizes=study.sizes,
        ratios=RATIOS,
        log_probs=log_probs,
        seconds=seconds,
        members=members,
        study=study,
        mixed=mixed,
    )
    losses = bits_per_dim(-trained.losses, results.image_shape)
    return _finish(run, results, images, samples, losses)


# ----------------------------------------------------------------------------------- the stages


def load(study: Study, flags: lab.Flags) -> Images:
    """Load the images of a study, as many of them as are scored.

    Raises:
        DataError: without the trusted set, or without any OOD set.
        UsageError: if there are too few trusted images.
    """
    n, rng = study.sizes.images, np.random.default_rng(flags.seed)
    trusted, _ = data.load(study.in_dist, "train", flags.data_dir)
    held_out, _ = data.load(study.in_dist, "test", flags.data_dir)
    cuts = np.cumsum([n, n, study.sizes.null_images])
    if len(held_out) < cuts[-1]:
        raise lab.UsageError(
            f"{study.in_dist} has {len(held_out)} test images, but test, control and calibration "
            f"need {cuts[-1]}: score fewer images"
        )
    test, control, null, _ = np.split(rng.permutation(held_out), cuts)
    sets = {study.in_dist: test, study.control: control, study.null: null}
    found, absent = lab.load_ood(
        study.ood, trusted=study.in_dist, shape=trusted.shape[1:], data_dir=flags.data_dir
    )
    sets |= {name: rng.permutation(images)[:n] for name, (images, _) in found.items()}
    return Images(trusted, sets, absent)


def _log_probs(
    run: lab.Run, study: Study, images: Images, trained: Trained
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Compute log-likelihoods ``{set: (draws, ratios, n)}`` in nats, and the seconds of each set.

    Each set is scored among itself, as it would arrive: also the control and the calibration
    images. Images of one set share companions, so their scores move together; trusted images that
    were scored in one pool with the calibration images would look better than they do in use.
    """
    log_probs, seconds = {}, {}
    for i, (name, batch) in enumerate(images.sets.items()):

        def compute(i: int = i, name: str = name, batch: np.ndarray = batch) -> np.ndarray:
            print(f"scoring {len(batch)} images: {label(name)}", flush=True)
            return scores.mixed_log_prob(
                trained.model,
                trained.variables,
                batch,
                images.trusted,
                RATIOS,
                key=jax.random.fold_in(jax.random.key(run.flags.seed), i),
                batch_size=study.sizes.batch_size,
                draws=study.sizes.draws,
                show_progress=True,
            )

        log_probs[name], seconds[name] = run.store.timed(f"log_prob/{name}", compute)
    return log_probs, seconds


def _mixed(
    run: lab.Run, study: Study, images: Images, trained: Trained
) -> dict[tuple[str, float], tuple[np.ndarray, np.ndarray]]:
    """Compute Δ (r1 -> 0) in test sets that hold both: ``{(set, share): (trusted, ood)}``."""
    n, mixed = study.sizes.images, {}
    for name in study.ood:
        for share in CONTAMINATION:
            count = round(share * n)
            batch = np.concatenate(
                [images.sets[study.in_dist][: n - count], images.sets[name][:count]]
            )

            def compute(
                name: str = name, share: float = share, batch: np.ndarray = batch
            ) -> np.ndarray:
                print(f"scoring {len(batch)} images: {share:.0%} {label(name)}", flush=True)
                draws = scores.mixed_log_prob(
                    trained.model,
                    trained.variables,
                    batch,
                    images.trusted,
                    (0, R2),
                    key=jax.random.key(run.flags.seed),
                    batch_size=study.sizes.batch_size,
                    draws=study.sizes.draws,
                    show_progress=True,
                )
                return scores.statistics.delta(draws[:, 0], draws[:, 1]).mean

            values = run.store.get(f"delta/{name}/{share}", compute)
            mixed[name, share] = values[: n - count], values[n - count :]
    return mixed


def _samples(run: lab.Run, trained: Trained) -> dict[str, np.ndarray]:
    """Draw samples of the model at two temperatures, by title."""

    def compute(temperature: float) -> np.ndarray:
        sample = jax.jit(trained.model.sample, static_argnums=2)
        key = jax.random.key(run.flags.seed)
        return np.asarray(sample(trained.variables, key, 16, temperature=temperature))

    return {
        f"samples, temperature {t}": run.store.get(f"samples/{t}", lambda t=t: compute(t))
        for t in (0.7, 1.0)
    }


def _members(run: lab.Run, study: Study, recipe: Recipe, images: Images) -> dict[str, np.ndarray]:
    """Train an ensemble and compute its log-likelihoods ``{set: (members, n)}`` in nats."""
    trained = run.train(
        recipe,
        images.trusted,
        name=f"{recipe.model}, {recipe.members} members for WAIC",
        in_dist=study.in_dist,
        part="ensemble",
    )
    run.store.expect(lab.identity(ensemble=trained.variables))
    members = {}
    for name, batch in images.sets.items():

        def compute(name: str = name, batch: np.ndarray = batch) -> np.ndarray:
            print(f"scoring {len(batch)} images: {label(name)}, by the ensemble", flush=True)
            return scores.log_prob(
                trained.model,
                trained.variables,
                batch,
                key=jax.random.key(run.flags.seed),
                draws=study.sizes.draws,
                show_progress=True,
            )

        members[name] = run.store.get(f"ensemble/{name}", compute)
    return members


def mean_brightness(sets: Mapping[str, np.ndarray], results: Results) -> dict[str, float]:
    """Compute the AUROC of a control that needs no model, by set.

    The score is the distance of an image's mean from that of the calibration set.
    """
    null = sets[results.null].mean()

    def distance(name: str) -> np.ndarray:
        return np.abs(sets[name].mean((1, 2, 3)) - null)

    trusted = distance(results.in_dist)
    return {name: metrics.auroc(trusted, distance(name)) for name in results.ood}


def _finish(
    run: lab.Run,
    results: Results,
    images: Images,
    samples: dict[str, np.ndarray],
    losses: np.ndarray,
) -> Record:
    study, rows = results.study, results.rows
    context = {
        "study": study,
        "results": results,
        "has_paper": any(row.paper is not None for row in rows),
        "r1": R1,
        "r2": R2,
        "delta_stderr": results.delta_stderr,
        "main": report.detection_table(
            [row for row in rows if row.score in MAIN_SCORES], caption="AUROC (paper, Table 2)"
        ),
        "others": report.detection_table(
            [row for row in rows if row.score not in MAIN_SCORES],
            caption="AUROC of two more scores",
        ),
        "bpd": report.bpd_table(
            results.bpd_rows,
            caption="Mean bits per dimension in the two modes (paper, Table 1)",
            paper=paper.bpd(results.in_dist, results.model),
        ),
        "sweep": report.detection_table(
            results.sweep_rows,
            caption="AUROC of Δ with r1 → 0 against r2 (paper, Table 5)",
            column=lambda row: f"r2 = {row.params['r2']}",
        ),
        "mixed": report.detection_table(
            results.mixed_rows,
            caption=f"AUROC of Δ (r1 → 0, r2 = {R2}) inside one set, by its share of OOD images",
            column=lambda row: f"{report.percent(row.params['contamination'])} OOD",
        ),
    }
    return run.finish(
        PAGE,
        headline=results.headline(),
        title=study.title,
        context=context,
        figures=drawings(results, images.sets, samples, losses),
        results=rows,
        bpd=results.bpd_rows,
        sweeps=results.sweep_rows + results.mixed_rows,
        extra={
            "calibration": results.calibration(),
            "mean_brightness": mean_brightness(images.sets, results),
            "absent": images.absent,
        },
    )
