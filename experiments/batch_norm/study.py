"""The BatchNorm test from images to report; an experiment says on what, and how much of it."""

import dataclasses
from pathlib import Path

import jax
import numpy as np

from experiments.batch_norm import report as batch_norm_report
from experiments.batch_norm.results import Results, contamination_rows
from experiments.batch_norm.settings import CONTAMINATION, R2, RATIOS, Study
from experiments.lab.common import Flags, UsageError, environment, load_ood, open_run, start
from experiments.lab.recipes import Trained, trained
from experiments.lab.store import Scores, identity
from jaxood import data, parallel, scores
from jaxood.report import record
from jaxood.report.labels import label
from jaxood.train import Recipe


def run(study: Study, flags: Flags, out: Path) -> record.Record:
    """Train, score, and write the record and the report into ``out``; resume what is there."""
    start(flags)
    open_run(out, study.experiment, flags)
    images, sets, absent = _load(study, flags)
    study = dataclasses.replace(study, ood=tuple(name for name in study.ood if name in sets))
    fit = trained(
        study.recipe,
        study.in_dist,
        images,
        seed=flags.seed,
        devices=flags.devices,
        directory=out / "model",
    )
    store = Scores(out / "scores.npz", identity(sets, model=fit.variables))
    log_probs, seconds = _score(study, flags, fit, images, sets, store)
    mixed = _contaminate(study, flags, fit, images, sets, store)
    samples = _sample(flags, fit, store)
    models, members = [fit.row], {}
    if study.ensemble is not None:
        row, members = _ensemble(study, study.ensemble, flags, images, sets, out, store)
        models.append(row)
    results = Results(study, images.shape[1:], log_probs, members)
    rows = results.rows(seconds)
    made = record.Record(
        experiment=study.experiment,
        seed=flags.seed,
        preset=study.preset,
        environment=environment(flags.devices),
        models=models,
        bpd=results.bpd_rows(),
        results=rows,
        sweeps=results.sweep_rows() + contamination_rows(study, mixed),
        extra={"calibration": results.calibration(), "absent": absent},
    )
    if parallel.is_writer():
        batch_norm_report.draw(study, results, rows, samples, sets, fit.losses, out / "figures")
        page = batch_norm_report.write(study, results, made, out)
        print(f"{results.headline()}\nreport: {page}")
    return made


# ----------------------------------------------------------------------------------- the stages


def _load(study: Study, flags: Flags):
    """Trusted training images; by name all sets to score; and which OOD sets are not to be had.

    Raises:
        DataError: without the trusted set, or without any OOD set.
    """
    n, rng = study.sizes.images, np.random.default_rng(flags.seed)
    trusted, _ = data.load(study.in_dist, "train", flags.data_dir)
    held_out, _ = data.load(study.in_dist, "test", flags.data_dir)
    cuts = np.cumsum([n, n, study.sizes.null_images])
    if len(held_out) < cuts[-1]:
        raise UsageError(
            f"{study.in_dist} has {len(held_out)} test images, but test, control and calibration "
            f"need {cuts[-1]}: score fewer images"
        )
    test, control, null, _ = np.split(rng.permutation(held_out), cuts)
    sets = {study.in_dist: test, study.control: control, study.null: null}
    found, absent = load_ood(
        study.ood, trusted=study.in_dist, shape=trusted.shape[1:], data_dir=flags.data_dir
    )
    sets |= {name: rng.permutation(images)[:n] for name, (images, _) in found.items()}
    return trusted, sets, absent


def _score(study: Study, flags: Flags, fit: Trained, trusted, sets, store: Scores):
    """Log-likelihoods ``{set: (draws, ratios, n)}`` in nats and seconds by set.

    Each set is scored among itself, as it would arrive: also the control and the calibration
    images. Images of one set share companions, so their scores move together; trusted images that
    were scored in one pool with the calibration images would look better than they do in use.
    """
    log_probs, seconds = {}, {}
    for i, (name, images) in enumerate(sets.items()):

        def compute(i=i, name=name, images=images):
            print(f"scoring {len(images)} images: {label(name)}", flush=True)
            return scores.mixed_log_prob(
                fit.model,
                fit.variables,
                images,
                trusted,
                RATIOS,
                key=jax.random.fold_in(jax.random.key(flags.seed), i),
                batch_size=study.sizes.batch_size,
                draws=study.sizes.draws,
                show_progress=True,
            )

        log_probs[name], seconds[name] = store.timed(f"log_prob/{name}", compute)
    return log_probs, seconds


def _ensemble(study: Study, recipe: Recipe, flags: Flags, trusted, sets, out: Path, store: Scores):
    """Row of an ensemble, and its evaluation-mode log-likelihoods ``{set: (members, n)}``."""
    fit = trained(
        recipe,
        study.in_dist,
        trusted,
        seed=flags.seed,
        devices=flags.devices,
        directory=out / "ensemble",
    )
    store.expect(identity(ensemble=fit.variables))
    members = {}
    for name, images in sets.items():

        def compute(name=name, images=images):
            print(f"scoring {len(images)} images: {label(name)}, by the ensemble", flush=True)
            return scores.log_prob(
                fit.model,
                fit.variables,
                images,
                key=jax.random.key(flags.seed),
                draws=study.sizes.draws,
                show_progress=True,
            )

        members[name] = store.get(f"ensemble/{name}", compute)
    name = f"{fit.row.name}, {recipe.members} members for WAIC"
    return dataclasses.replace(fit.row, name=name), members


def _sample(flags: Flags, fit: Trained, store: Scores):
    def compute(temperature):
        sample = jax.jit(fit.model.sample, static_argnums=2)
        return np.asarray(
            sample(fit.variables, jax.random.key(flags.seed), 16, temperature=temperature)
        )

    return {
        f"samples, temperature {t}": store.get(f"samples/{t}", lambda t=t: compute(t))
        for t in (0.7, 1.0)
    }


def _delta(study: Study, flags: Flags, fit: Trained, images, trusted, r1):
    return scores.batch_norm_delta(
        fit.model,
        fit.variables,
        trusted,
        r1=r1,
        r2=R2,
        seed=flags.seed,
        batch_size=study.sizes.batch_size,
        draws=study.sizes.draws,
    )(images)


def _contaminate(study: Study, flags: Flags, fit: Trained, trusted, sets, store: Scores):
    """Delta (r1 -> 0) in test sets that hold both: ``{(set, share): (trusted, ood)}``."""
    n, mixed = study.sizes.images, {}
    for name in study.ood:
        for share in CONTAMINATION:
            count = round(share * n)
            images = np.concatenate([sets[study.in_dist][: n - count], sets[name][:count]])

            def compute(name=name, share=share, images=images):
                print(f"scoring {len(images)} images: {share:.0%} {label(name)}", flush=True)
                return _delta(study, flags, fit, images, trusted, 0)

            values = store.get(f"delta/{name}/{share}", compute)
            mixed[name, share] = values[: n - count], values[n - count :]
    return mixed
