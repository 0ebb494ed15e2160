"""Tables of a report, and how numbers stand in them."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxood.report.labels import label
from jaxood.report.record import BpdRow, ModelRow, ResultRow


@dataclass(frozen=True)
class Table:
    """A table of a report.

    Attributes:
        caption: one line above the table.
        columns: column heads.
        rows: cells: text, numbers, or None for an empty cell. In text, a line break sets the
            first line (the number that matters) off from the rest.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | float | None]]

    def __post_init__(self):
        if bad := [row for row in self.rows if len(row) != len(self.columns)]:
            raise ValueError(f"A row of {len(self.columns)} cells was expected, not {bad[0]!r}.")

    @property
    def numeric(self) -> list[bool]:
        """For each column, whether its cells are numbers, to be aligned on the right."""
        columns = [
            [format_cell(row[k]) for row in self.rows if row[k] not in (None, "")]
            for k in range(len(self.columns))
        ]
        return [bool(cells) and all(map(_NUMBER.match, cells)) for cells in columns]

    def _repr_markdown_(self) -> str:
        """What a notebook shows."""
        rule = ["---:" if numeric else ":---" for numeric in self.numeric]
        lines = [map(markdown_cell, line) for line in (self.columns, *self.rows)]
        rows = [f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:])]
        return "\n".join([f"**{markdown_cell(self.caption)}**", "", *rows])


def detection_table(rows: Sequence[ResultRow], *, caption: str) -> Table:
    """Arranges results as one line per OOD set and one column per score.

    Args:
        rows: results; the order of first appearance is kept for lines and columns.
        caption: caption of the table.

    Returns:
        A table with cells ``AUROC [low, high] (paper x.xx)``. Columns for the model and the
        trusted set lead where there are several of them.

    Raises:
        ValueError: if two rows would share a cell.
    """
    scores = list(dict.fromkeys(row.score for row in rows))
    several_models = len({row.model for row in rows}) > 1
    several_trusted = len({row.in_dist for row in rows}) > 1
    lines: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in rows:
        line = lines.setdefault((row.model, row.in_dist, row.ood), {})
        if row.score in line:
            raise ValueError(f"Two rows hold {row.score} of {row.model} on {row.ood}; pass one.")
        line[row.score] = _detection_cell(row)
    heads = ["model"] * several_models + ["trained on"] * several_trusted
    return Table(
        caption,
        [*heads, "OOD set", *map(label, scores)],
        [
            [label(model)] * several_models
            + [label(in_dist)] * several_trusted
            + [label(ood), *(line.get(score) for score in scores)]
            for (model, in_dist, ood), line in lines.items()
        ],
    )


def bpd_table(
    rows: Sequence[BpdRow],
    *,
    caption: str,
    paper: Mapping[tuple[str, str, str], float] | None = None,
) -> Table:
    """Arranges mean likelihoods as the BatchNorm paper's Table 1 does.

    Args:
        rows: mean likelihoods in bits per dimension.
        caption: caption of the table.
        paper: the paper's own bits per dimension by (model, dataset, mode), if there are any.

    Returns:
        A table of data set, BatchNorm mode, bits per dimension with its standard error, and Δ,
        the difference from evaluation mode. A column for the model leads where there are several.
    """
    paper = paper or {}
    several_models = len({row.model for row in rows}) > 1
    evaluation = {(row.model, row.dataset): row.bpd for row in rows if row.mode == "evaluation"}
    heads = ["evaluated on", "BatchNorm mode", "bits/dim", "Δ"] + ["paper"] * bool(paper)

    def cells(row: BpdRow) -> list[str | None]:
        base = evaluation.get((row.model, row.dataset))
        delta = None
        if row.mode != "evaluation" and row.bpd is not None and base is not None:
            delta = f"{row.bpd - base:+.2f}".replace("-", "−")
        reported = paper.get((row.model, row.dataset, row.mode))
        bpd = _decimals(row.bpd, 2) + (f" ± {_decimals(row.stderr, 2)}" if row.stderr else "")
        return [
            *[label(row.model)] * several_models,
            *[label(row.dataset), row.mode, bpd, delta],
            *[_decimals(reported, 2)] * bool(paper),
        ]

    return Table(caption, ["model"] * several_models + heads, [cells(row) for row in rows])


def format_cell(value: str | float | None) -> str:
    """A cell of a table as text: four significant digits, thousands set apart, – for no number."""
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    if isinstance(value, int | np.integer):
        return f"{value:,}".replace("-", "−")
    if not math.isfinite(value):
        return "–"
    text = f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return text.replace("-", "−")


_NUMBER = re.compile(r"[-−+]?\.?\d|–$")


def _decimals(value: float | None, digits: int) -> str:
    return format_cell(None) if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _detection_cell(row: ResultRow) -> str:
    low, high = (_decimals(end, 3) for end in row.auroc_ci)
    reported = "" if row.paper is None else f"\n(paper {row.paper:.2f})"
    return f"{_decimals(row.auroc, 3)}\n[{low}, {high}]{reported}"


def models_table(models: Sequence[ModelRow]) -> Table:
    return Table(
        "Models",
        ["model", "trained on", "parameters", "steps", "training (s)"],
        [
            [label(row.name), label(row.in_dist), row.parameters, row.steps, row.train_seconds]
            for row in models
        ],
    )


def markdown_cell(value: str | float | None) -> str:
    text = " ".join(format_cell(value).split())
    return re.sub(r"([\\`*|<&])|(?<=\])(?=\()", r"\\\1", text)
