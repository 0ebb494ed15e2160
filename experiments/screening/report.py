"""The report of a screening."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from experiments.screening.settings import Config
from jaxood import detector, stream
from jaxood.data.images import Images
from jaxood.detector import Detector
from jaxood.report import Table, figures, label, percent

SUSPECTS = 32
"""Number of images that the report shows, at most."""
LISTED = 10
"""Number of rows of its tables, at most."""


class Screening(NamedTuple):
    """A finished screening, and what its page says of it.

    Attributes:
        flags: flags of the command line.
        in_dist: name of the trusted images.
        judge: the detector.
        images: the images that were judged.
        found: the results, summed up.
        path: the file of results.
    """

    flags: Config
    in_dist: str
    judge: Detector
    images: Images
    found: stream.Summary
    path: Path

    @property
    def title(self) -> str:
        """The images as a person names them."""
        name = self.flags.images
        return name if Path(name).exists() else label(name)

    @property
    def headline(self) -> str:
        """The result in a sentence."""
        judge, found, rate = self.judge, self.found, self.flags.false_positive_rate
        low, high = detector.rate_interval(judge, rate)
        interval = f"{percent(low, 1)} to {percent(high, 1)} with this calibration"
        if judge.set_size is None:
            what, reported, total = "images", found.reported, found.images
        else:
            what, reported, total = (
                f"sets of {judge.set_size} images",
                found.reported_sets,
                found.sets,
            )
        share = percent(reported / max(total, 1), 1)
        text = (
            f"{reported:,} of {total:,} {what} are reported ({share}), where {percent(rate, 1)} "
            f"would be if all were trusted ({interval})"
        )
        if found.known:
            text += f"; {found.known:,} more images were calibrated on and are not judged"
        if found.damaged:
            text += f"; {found.damaged:,} more could not be read"
        return text

    @property
    def context(self) -> dict[str, Any]:
        """The names of the page."""
        suspects, unread = self.found.suspects[:LISTED], self.found.unread[:LISTED]
        return {
            "images": self.title,
            "in_dist": self.in_dist,
            "score": self.flags.score,
            "calibration": len(self.judge.null),
            "set_size": self.judge.set_size,
            "skipped": len(self.images.skipped),
            "skipped_names": listed(self.images.skipped),
            "suspects": self._table(
                "The most suspicious images",
                ["score", "p-value"],
                [(row, [row.score, row.p_value]) for row in suspects],
            ),
            "unread": self._table(
                "Images that could not be read",
                ["reason"],
                [(row, [stream.escape(row.reason)]) for row in unread],
            ),
        }

    def _table(
        self, caption: str, heads: Sequence[str], rows: Sequence[tuple[stream.Row, list]]
    ) -> Table:
        """Make a table of images, with their file names where they have any."""
        with_files = bool(self.images.names)
        cells = [
            [row.index, *([stream.escape(row.file)] if with_files else []), *values]
            for row, values in rows
        ]
        return Table(caption, ["position", *(["file"] if with_files else []), *heads], cells)

    @property
    def figures(self) -> Mapping[str, Callable[[], Figure]]:
        """The figures of the page by name, as functions that draw them."""
        drawn: dict[str, Callable[[], Figure]] = {"scores": self._scores}
        if self.found.suspects:
            drawn["suspects"] = self._suspects
        return drawn

    def _scores(self) -> Figure:
        """Draw the scores of images, or the mean scores of sets, beside those of trusted ones."""
        in_sets = self.judge.set_size is not None
        judged = means_of_sets(self.path) if in_sets else self.found.scores
        trusted = f"{label(self.in_dist)} (calibration)"
        values = {trusted: self.judge.null} | ({self.title: judged} if self.found.images else {})
        return figures.score_histograms(
            values,
            trusted,
            xlabel=f"{'mean of a set, ' * in_sets}{label(self.flags.score)} (nats)",
            of="sets" if in_sets else "images",
        )

    def _suspects(self) -> Figure:
        suspects, name = self.found.suspects, "the most suspicious"
        # Read in the order in which they lie: a compressed file is read from the front.
        pixels = {i: self.images[i : i + 1] for i in sorted(row.index for row in suspects)}
        return figures.image_grid(
            {name: np.concatenate([pixels[row.index] for row in suspects])},
            captions={name: [f"{row.index:,}" for row in suspects]},
        )

    @property
    def extra(self) -> dict[str, Any]:
        """The numbers of the results record."""
        return {
            "images": self.found.images,
            "reported": self.found.reported,
            "known": self.found.known,
            "damaged": self.found.damaged,
            "not read": len(self.images.skipped),
            "sets": self.found.sets,
            "reported_sets": self.found.reported_sets,
            "false_positive_rate": self.flags.false_positive_rate,
            "calibration": len(self.judge.null),
        }


def listed(names: Sequence[str], most: int = 5) -> str:
    """Write the first names of a list."""
    shown = ", ".join(stream.escape(name) for name in names[:most])
    return shown + (", …" if len(names) > most else "")


def means_of_sets(path: Path) -> np.ndarray:
    """Compute the mean score of each set in a file of results, ``(sets,)``.

    The mean is over the images that have their line in the set.
    """
    judged = ((row.set, row.score) for row in stream.rows(path) if not row.reason)
    by_set = itertools.groupby(judged, key=lambda pair: pair[0])
    return np.array([np.mean([score for _, score in of_set]) for _, of_set in by_set])
