"""Tables of the NRM experiment."""

from __future__ import annotations

from collections.abc import Mapping

from experiments.nrm.paper import RECONSTRUCTION, TABLE_1
from experiments.nrm.results import Quality, Results
from experiments.nrm.scored import (
    CLASS_CENTRED,
    LATENT,
    LATENT_MEAN,
    NEG_LOG_PROB,
    NEG_LOG_PROB_MEAN,
    PER_ENERGY,
    PROFILE,
    SWITCHES,
    TWO_SIDED,
    WAIC,
    Key,
)
from jaxood.report import Table, interval, label, number, percent

PAPERS = {key: key.label for key in (LATENT, LATENT_MEAN, NEG_LOG_PROB, NEG_LOG_PROB_MEAN)}
BEYOND = {
    TWO_SIDED: "two-sided",
    CLASS_CENTRED: "class-centred",
    PER_ENERGY: "per energy",
    WAIC: "WAIC",
    PROFILE: "profile",
    SWITCHES: "switches",
}


def auroc_table(results: Results, heads: Mapping[Key, str], caption: str) -> Table:
    """Arrange AUROCs, a line a set and a column a score, as far as there is the score.

    Args:
        results: results of the models.
        heads: heads of the columns, by score.
        caption: caption of the table.
    """
    keys = [key for key in heads if key in results.keys]

    def cell(name: str, key: Key) -> str:
        mean, low, high = results.auroc(name, key)
        return interval(mean, (low, high))

    return Table(
        caption,
        ["set", *(heads[key] for key in keys)],
        [[label(name), *(cell(name, key) for key in keys)] for name in results.judged],
    )


def table_1(results: Results) -> Table:
    """Arrange the paper's Table 1, its numbers in parentheses."""

    def cell(name: str, column: int, mean: float, spread: float) -> str:
        paper = TABLE_1.get(name)
        reported = "" if paper is None else f"\n(paper {number(paper[column], 2)})"
        return f"{number(mean)} ± {number(spread)}{reported}"

    return Table(
        "Means, and standard deviations over images (paper, Table 1; its scale is not stated)",
        ["set", "log p(x)", "log p(z*|y*)", f"− reconstruction loss, layer {results.study.layer}"],
        [
            [label(name), *(cell(name, k, *both) for k, both in enumerate(cells))]
            for name, cells in results.table_1().items()
        ],
    )


def energies(results: Results) -> Table:
    """Arrange the mean energy of the images of each set."""
    measured = results.measurements[results.study.seeds[0]]
    names = results.present((results.study.in_dist, *results.study.ood))
    return Table(
        "Mean energy |x|² of an image",
        ["set", "energy"],
        [[label(name), number(measured[name].energy.mean(), 0)] for name in names],
    )


def quality_table(results: Results, without: Results | None) -> Table:
    """Arrange the work of each model on trusted test images, a line a model."""
    lines = {f"seed {seed}": results.quality(seed) for seed in results.study.seeds}
    if without is not None:
        seed = without.study.seeds[0]
        lines[f"seed {seed}, no negativity loss"] = without.quality(seed)
    return Table(
        "On trusted test images (Table 1 implies a mean squared error of "
        f"{number(RECONSTRUCTION)})",
        [
            "model",
            "accuracy",
            "error a pixel",
            "from a wrong class",
            "h below zero",
            "spread of log p(z*|y*)",
            "its share of the logit",
        ],
        [
            [name, *quality_cells(q)[:2], number(q.wrong_label, 4), *quality_cells(q)[2:]]
            for name, q in lines.items()
        ],
    )


def quality_cells(quality: Quality) -> list[str]:
    """Write accuracy, error a pixel, share of h below zero, spread, and share of the logit."""
    return [
        percent(quality.accuracy, 1),
        number(quality.reconstruction, 4),
        percent(quality.negative),
        percent(quality.spread),
        percent(quality.share, 1),
    ]
