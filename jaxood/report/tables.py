"""Tables of a report."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from jaxood.report.labels import label
from jaxood.report.markdown import escape
from jaxood.report.numbers import format_cell, interval, number
from jaxood.report.record import BpdRow, ModelRow, ResultRow

Cell = str | float | None


@dataclass(frozen=True)
class Table:
    """A table of a report.

    Attributes:
        caption: one line above the table.
        columns: the heads of the columns.
        rows: the cells of each row: text, numbers, or None for an empty cell. In text, a line
            break sets the first line (the number that matters) off from the rest.

    Raises:
        ValueError: if a row has another number of cells than there are columns.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def __post_init__(self) -> None:
        if bad := [row for row in self.rows if len(row) != len(self.columns)]:
            raise ValueError(f"A row of {len(self.columns)} cells was expected, not {bad[0]!r}.")

    @property
    def numeric(self) -> list[bool]:
        """Tell for each column whether its cells are numbers, to be aligned on the right."""
        columns = [
            [format_cell(row[k]) for row in self.rows if row[k] not in (None, "")]
            for k in range(len(self.columns))
        ]
        return [bool(cells) and all(map(_NUMBER.match, cells)) for cells in columns]

    def _repr_markdown_(self) -> str:
        """Write the table in Markdown, for notebooks and for ``report.md``."""
        rule = ["---:" if numeric else ":---" for numeric in self.numeric]
        lines = [
            [escape(format_cell(cell).strip()) for cell in line]
            for line in (self.columns, *self.rows)
        ]
        rows = [f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:])]
        return "\n".join([f"**{escape(self.caption)}**", "", *rows])


def detection_table(
    rows: Sequence[ResultRow],
    *,
    caption: str,
    column: Callable[[ResultRow], str] | None = None,
    titles: Mapping[str, str] | None = None,
) -> Table:
    """Arrange results as one line for each OOD set and one column for each score, or setting.

    Args:
        rows: results; the order of first appearance is kept for lines and columns.
        caption: caption of the table.
        column: head of the column in which a row stands; by default the `label` of its score.
        titles: titles of OOD sets by name, where `label` does not give them.

    Returns:
        A table with cells ``AUROC [low, high] (paper x.xx)``. Columns for the model and the
        trusted set lead where there are several of them.

    Raises:
        ValueError: if two rows would share a cell.
    """
    head_of = column or (lambda row: label(row.score, row.params))
    heads = list(dict.fromkeys(map(head_of, rows)))
    several_models = len({row.model for row in rows}) > 1
    several_trusted = len({row.in_dist for row in rows}) > 1
    lines: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in rows:
        line = lines.setdefault((row.model, row.in_dist, row.ood), {})
        head = head_of(row)
        if head in line:
            raise ValueError(f"Two rows hold {row.score} of {row.model} on {row.ood}; pass one.")
        line[head] = interval(row.auroc, row.auroc_ci, paper=row.paper)
    leading = ["model"] * several_models + ["trained on"] * several_trusted
    return Table(
        caption,
        [*leading, "OOD set", *heads],
        [
            [label(model)] * several_models
            + [label(in_dist)] * several_trusted
            + [(titles or {}).get(ood) or label(ood), *(line.get(head) for head in heads)]
            for (model, in_dist, ood), line in lines.items()
        ],
    )


def bpd_table(
    rows: Sequence[BpdRow],
    *,
    caption: str,
    paper: Mapping[tuple[str, str, str], float] | None = None,
    titles: Mapping[str, str] | None = None,
) -> Table:
    """Arrange mean likelihoods as the BatchNorm paper's Table 1 does.

    Args:
        rows: mean likelihoods in bits per dimension.
        caption: caption of the table.
        paper: the paper's own bits per dimension by (model, dataset, mode), if there are any.
        titles: titles of data sets by name, where `label` does not give them.

    Returns:
        A table of data set, BatchNorm mode, bits per dimension with its standard error, and
        the difference from evaluation mode. A column for the model leads where there are several.
    """
    paper = paper or {}
    several_models = len({row.model for row in rows}) > 1
    evaluation = {(row.model, row.dataset): row.bpd for row in rows if row.mode == "evaluation"}
    heads = ["evaluated on", "BatchNorm mode", "bits/dim", "difference"] + ["paper"] * bool(paper)

    def cells(row: BpdRow) -> list[str | None]:
        base = evaluation.get((row.model, row.dataset))
        delta = None
        if row.mode != "evaluation" and row.bpd is not None and base is not None:
            delta = number(row.bpd - base, 2, signed=True)
        bpd = number(row.bpd, 2) + (f" ± {number(row.stderr, 2)}" if row.stderr else "")
        reported = number(paper.get((row.model, row.dataset, row.mode)), 2)
        return [
            *[label(row.model)] * several_models,
            *[(titles or {}).get(row.dataset) or label(row.dataset), row.mode, bpd, delta],
            *[reported] * bool(paper),
        ]

    return Table(caption, ["model"] * several_models + heads, [cells(row) for row in rows])


def models_table(models: Sequence[ModelRow]) -> Table:
    """Arrange trained models, one a line."""
    return Table(
        "Models",
        ["model", "trained on", "parameters", "steps", "training (s)"],
        [
            [label(row.name), label(row.in_dist), row.parameters, row.steps, row.train_seconds]
            for row in models
        ],
    )


_NUMBER = re.compile(r"[-−+]?\.?\d|–$")
