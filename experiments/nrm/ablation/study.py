"""The recipe of the NRM and variants of it, compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments import lab
from experiments.nrm.measured import fitted
from experiments.nrm.results import Results
from experiments.nrm.scored import LATENT, LATENT_MEAN, PROFILE, SWITCHES, Key
from experiments.nrm.sets import load_sets
from experiments.nrm.settings import Study
from experiments.nrm.tables import quality_cells
from jaxood.report import Table, label, number
from jaxood.report.record import Record
from jaxood.train import Recipe

PAGE = Path(__file__).with_name("page.md")
KEYS = (LATENT, LATENT_MEAN, PROFILE, SWITCHES)


def variants(recipe: Recipe) -> dict[str, Recipe]:
    """Return the recipe, and what becomes of it with one thing changed, by title."""
    w = recipe.loss_weights
    assert w is not None

    def change(**changes: Any) -> Recipe:
        return dataclasses.replace(recipe, **changes)

    def weigh(**weights: float) -> Recipe:
        return change(loss_weights=w._replace(**weights))

    def options(**options: Any) -> dict[str, Any]:
        return {**recipe.options, **options}

    return {
        "the recipe": recipe,
        "cross-entropy alone": weigh(reconstruction=0, negativity=0, path=0),
        "no common template": change(options=options(template=0.0)),
        "no common template, temperature 30": change(
            options=options(template=0.0), temperature=30.0
        ),
        f"reconstruction {w.reconstruction / 3:.2g}": weigh(reconstruction=w.reconstruction / 3),
        f"reconstruction {w.reconstruction * 3:g}": weigh(reconstruction=w.reconstruction * 3),
        "no negativity loss": weigh(negativity=0),
        "no path normalization": weigh(path=0),
        f"path normalization {w.path / 10:.2g}": weigh(path=w.path / 10),
        f"path normalization {w.path * 3:g}": weigh(path=w.path * 3),
        "latent term 1": weigh(latent=1),
        "Adam at 2e-3": change(optimizer="adam", learning_rate=2e-3),
        "Muon at 0.05": change(learning_rate=0.05),
        "BatchNorm": change(options=options(batch_norm=True)),
        "all_conv_13 instead": change(model="all_conv_13"),
        "convpool_cnn_c instead": change(model="convpool_cnn_c"),
        "a tenth of the labels": change(labelled=0.1),
    }


def run(study: Study, flags: lab.Flags, out: Path, chosen: tuple[str, ...] | None) -> Record:
    """Train every variant, measure it, and write the record and the report.

    Args:
        study: the sets, and the recipe to vary.
        flags: flags of the command line.
        out: folder of the run.
        chosen: titles of variants; all of them for None.

    Raises:
        DataError: without the trusted set, or without any OOD set.
        UsageError: if there are too few trusted images, or the folder holds another run.
    """
    run = lab.begin(flags, "nrm_ablation", out)
    sets = load_sets(study, seed=flags.seed, data_dir=flags.data_dir)
    found = {}
    for k, (title, recipe) in enumerate(variants(study.recipe).items()):
        if chosen is None or title in chosen:
            print(f"variant: {title}", flush=True)
            changed = dataclasses.replace(study, recipe=recipe)
            _, found[title] = fitted(run, changed, sets, part=f"variant_{k}")
    return _finish(run, study, found, sets.absent)


def _finish(
    run: lab.Run, study: Study, found: Mapping[str, Results], absent: Mapping[str, str]
) -> Record:
    seed = study.seeds[0]
    quality = {title: results.quality(seed) for title, results in found.items()}
    return run.finish(
        PAGE,
        headline=None,
        title="Why the NRM is trained as it is",
        context={
            "study": study,
            "best": max(quality, key=lambda title: quality[title].accuracy),
            "quality": Table(
                "On trusted images",
                [
                    "variant",
                    "accuracy",
                    "error a pixel",
                    "h below zero",
                    "spread",
                    "share of the logit",
                    "correlation with |x|²",
                ],
                [
                    [title, *quality_cells(q), number(found[title].energy().correlation, 2)]
                    for title, q in quality.items()
                ],
            ),
            "aurocs": [_auroc_table(found, key) for key in KEYS],
        },
        figures={},
        sweeps=[
            dataclasses.replace(row, params={**row.params, "variant": title})
            for title, results in found.items()
            for row in results.rows(KEYS)
        ],
        extra={
            "quality": {title: q._asdict() for title, q in quality.items()},
            "absent": absent,
        },
    )


def _auroc_table(found: Mapping[str, Results], key: Key) -> Table:
    names = next(iter(found.values())).judged
    return Table(
        f"AUROC of {key.label}",
        ["variant", *map(label, names)],
        [
            [title, *(number(results.auroc(name, key)[0], 2) for name in names)]
            for title, results in found.items()
        ],
    )
