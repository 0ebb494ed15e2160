"""The NRM experiment from images to report."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from experiments import lab
from experiments.nrm import figures, tables
from experiments.nrm.claims import claims
from experiments.nrm.measured import fitted
from experiments.nrm.results import Results, overlap
from experiments.nrm.scored import LATENT, Key
from experiments.nrm.sets import Sets, load_sets
from experiments.nrm.settings import Study
from jaxood.report.record import Record
from jaxood.train import Trained

PAGE = Path(__file__).with_name("page.md")


def run(study: Study, flags: lab.Flags, out: Path, *, negativity: bool) -> Record:
    """Train, measure, and write the record and the report; go on with what is there.

    Args:
        study: the sets and the models.
        flags: flags of the command line.
        out: folder of the run.
        negativity: train one more model, without the negativity loss.

    Raises:
        DataError: without the trusted set, or without any OOD set.
        UsageError: if there are too few trusted images, or the folder holds another run.
    """
    run = lab.begin(flags, "nrm_cifar", out)
    sets = load_sets(study, seed=flags.seed, data_dir=flags.data_dir)
    names = {seed: f"nrm, seed {seed}" for seed in study.seeds}
    models, results = fitted(run, study, sets, names=names)
    without = None
    if negativity:
        _, without = fitted(run, without_negativity(study), sets, part="no_negativity")
    return _finish(run, results, without, models[study.seeds[0]], sets)


def without_negativity(study: Study) -> Study:
    """Return the study of its first model alone, trained without the negativity loss."""
    weights = study.recipe.loss_weights
    assert weights is not None
    recipe = dataclasses.replace(study.recipe, loss_weights=weights._replace(negativity=0))
    return dataclasses.replace(study, recipe=recipe, seeds=study.seeds[:1])


def _finish(
    run: lab.Run, results: Results, without: Results | None, model: Trained, sets: Sets
) -> Record:
    study, found = results.study, claims(results, without)
    layers: list[Key] = [*results.layer_keys(), *results.layer_keys("mean")]
    return run.finish(
        PAGE,
        headline=results.headline(),
        title="A classifier, read backwards",
        context={
            "study": study,
            "claims": found,
            "energy": results.energy(),
            "energies": tables.energies(results),
            "agreement": results.agreement(),
            "families": [_shared_areas(results, family) for family in results.families],
            "has_without": without is not None,
            "trained_on": len(sets.train.images),
            "top": figures.TOP,
            "table_1": tables.table_1(results),
            "papers": tables.auroc_table(results, tables.PAPERS, "AUROC of the paper's scores"),
            "beyond": tables.auroc_table(
                results, tables.BEYOND, "AUROC of scores beyond the paper"
            ),
            "quality": tables.quality_table(results, without),
        },
        figures=figures.drawings(results, model, without),
        results=results.rows([key for key in results.keys if key not in layers]),
        sweeps=results.rows(layers),
        extra={
            "quality": {seed: results.quality(seed)._asdict() for seed in study.seeds},
            "claims": [claim._asdict() for claim in found],
            "table_1": results.table_1(),
            "absent": sets.absent,
        },
    )


def _shared_areas(results: Results, family: list[str]) -> dict[str, float]:
    """By set, the area that its histogram shares with that of the last set, which has 1."""
    latent = {name: results.scores[results.study.seeds[0]][name][LATENT] for name in family}
    return {name: overlap(latent[name], latent[family[-1]]) for name in family}
