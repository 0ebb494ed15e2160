"""Glow, a VAE and a neural rendering model side by side, from images to report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import lab
from experiments.nrm.glow.figures import drawings
from experiments.nrm.glow.results import COLUMNS, Results
from experiments.nrm.measured import fitted
from experiments.nrm.scored import LATENT, NEG_LOG_PROB
from experiments.nrm.sets import Sets, load_sets
from experiments.nrm.settings import Study
from jaxood import scores
from jaxood.density import bits_per_dim
from jaxood.report import Table, label, number
from jaxood.report.record import Record
from jaxood.train import Recipe, Trained

PAGE = Path(__file__).with_name("page.md")
CHUNK = 100
"""Images in one call of a program."""


def run(
    study: Study, flags: lab.Flags, out: Path, *, glow: Recipe, vae: Recipe, nrm_folder: Path
) -> Record:
    """Train three models, score the sets, and write the record and the report.

    Args:
        study: the sets, and the neural rendering model.
        flags: flags of the command line.
        out: folder of the run.
        glow: the recipe of Glow.
        vae: the recipe of the VAE.
        nrm_folder: holds the folder of the neural rendering model, perhaps trained already.

    Raises:
        DataError: without the trusted set, or without any OOD set.
        UsageError: if there are too few trusted images, or the folder holds another run.
    """
    run = lab.begin(flags, "glow_cifar", out)
    sets = load_sets(study, seed=flags.seed, data_dir=flags.data_dir)
    models = {
        recipe.model: run.train(
            recipe, sets.train.images, name=recipe.model, in_dist=study.in_dist, part=recipe.model
        )
        for recipe in (glow, vae)
    }
    run.store.expect(lab.identity(**{name: model.variables for name, model in models.items()}))
    names = {seed: "nrm" for seed in study.seeds}
    _, measured = fitted(run, study, sets, names=names, folder=nrm_folder)
    by_set = measured.scores[study.seeds[0]]
    values = {
        name: _scored(run, models, name, sets.judged[name].images)
        | {"nrm_latent": by_set[name][LATENT], "nrm_neg_log_prob": by_set[name][NEG_LOG_PROB]}
        for name in measured.present((study.in_dist, study.train, *study.ood))
    }
    results = Results(study=study, values=values, image_shape=sets.shape)
    samples = run.store.get("samples", lambda: _samples(models["glow"], flags.seed))
    return _finish(run, results, models, samples, sets)


def _scored(
    run: lab.Run, models: Mapping[str, Trained], name: str, images: np.ndarray
) -> dict[str, np.ndarray]:
    """Score one set by Glow and the VAE, each score once."""

    def once(what: str, model: str, compute: Callable[..., np.ndarray]) -> np.ndarray:
        def announced() -> np.ndarray:
            print(f"scoring {len(images)} images: {label(name)}, {what}", flush=True)
            return compute(
                models[model].model,
                models[model].variables,
                images,
                key=jax.random.key(run.flags.seed),
                batch_size=min(CHUNK, len(images)),
                show_progress=True,
            )

        return run.store.get(f"{what}/{name}", announced)

    def neg_log_prob(*arguments: Any, **options: Any) -> np.ndarray:
        return -scores.log_prob(*arguments, **options)

    by_level = once("glow_log_pz", "glow", scores.glow_log_pz)
    return {
        "glow_neg_log_prob": once("glow_neg_log_prob", "glow", neg_log_prob),
        "vae_neg_log_prob": once("vae_neg_log_prob", "vae", neg_log_prob),
        "glow_neg_log_pz_last": -by_level[-1],
        "glow_neg_log_pz_all": -by_level.sum(0),
    }


def _samples(glow: Trained, seed: int, n: int = 16) -> np.ndarray:
    draw = jax.jit(lambda variables, key: glow.model.sample(variables, key, n, temperature=0.8))
    return np.asarray(draw(glow.variables, jax.random.key(seed)))


def _finish(
    run: lab.Run,
    results: Results,
    models: Mapping[str, Trained],
    samples: np.ndarray,
    sets: Sets,
) -> Record:
    found = results.claims()
    losses = {n: bits_per_dim(-model.losses, results.image_shape) for n, model in models.items()}
    return run.finish(
        PAGE,
        headline=results.headline(),
        title="Two likelihoods that prefer house numbers",
        context={
            "study": results.study,
            "claims": found,
            "images": len(results.values[results.study.in_dist]["nrm_latent"]),
            "trained_on": len(sets.train.images),
            "auroc": Table(
                "AUROC",
                ["set", *(column.head for column in COLUMNS.values())],
                [
                    [label(n), *(results.cell(n, score, inline=False) for score in COLUMNS)]
                    for n in results.judged
                ],
            ),
            "bpd": Table(
                "Bits per dimension",
                ["set", *map(label, models)],
                [
                    [label(n), *(number(results.bpd(n, m).mean(), 3) for m in models)]
                    for n in results.shown
                ],
            ),
        },
        figures=drawings(results, samples, losses),
        results=results.rows(),
        bpd=results.bpd_rows(),
        extra={"claims": [claim._asdict() for claim in found], "absent": sets.absent},
    )
