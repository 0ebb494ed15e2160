"""The CSV file of results: a line for each image, ended by a digest of the line and the pixels.

`jaxood.stream.judge` writes it. Beside it lies ``<path>.json``, which says which images were
judged, by which detector and with which settings. File names and reasons are written as `escape`
returns them; `rows` returns them as they were.
"""

from __future__ import annotations

import csv
import hashlib
import heapq
import io
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxood import integrity
from jaxood.data.images import Images, printable
from jaxood.integrity import write_file

KNOWN = "the detector was calibrated on this image"
"""The reason why such an image is not judged."""


class Row(NamedTuple):
    """A line of the results.

    Attributes:
        index: position of the image.
        file: its file name, or empty.
        set: number of the set that it was judged in; None for a detector of images.
        score: float32, higher = more OOD; NaN for an image that was not judged.
        p_value: p-value of the image, or of its set; NaN for an image that was not judged.
        reported: whether the p-value is at most the false-positive rate.
        reason: the reason why the image was not judged, `KNOWN` or what is wrong with its file;
            empty for an image that was judged.
        digest: digest of the line and the image's pixels, 16 hexadecimal digits.
    """

    index: int
    file: str
    set: int | None
    score: float
    p_value: float
    reported: bool
    reason: str
    digest: str


class Summary(NamedTuple):
    """A file of results, summed up.

    Attributes:
        images: number of images that were judged.
        reported: number of those that are reported as OOD.
        sets: number of sets that they were dealt to; 0 for a detector of images.
        reported_sets: number of sets that are reported.
        known: number of images that were not judged, since the detector was calibrated on them.
        damaged: number of images that could not be read.
        unread: rows of the first of these.
        suspects: rows of reported images, the most suspicious first.
        scores: float32 ``(k,)``: evenly spaced ones of all scores, for a histogram.
    """

    images: int
    reported: int
    sets: int
    reported_sets: int
    known: int
    damaged: int
    unread: list[Row]
    suspects: list[Row]
    scores: np.ndarray


HEADER = (",".join(Row._fields) + "\n").encode()


# ------------------------------------------------------------------------------------------ reading


def rows(path: str | os.PathLike[str]) -> Iterator[Row]:
    """Read the lines of a file of results, one at a time."""
    with open(path, encoding="utf-8", newline="") as file:
        yield from map(_row, csv.DictReader(file))


def _row(line: Mapping[str, str]) -> Row:
    return Row(
        int(line["index"]),
        unescape(line["file"]),
        int(line["set"]) if line["set"] else None,
        float(line["score"] or math.nan),
        float(line["p_value"] or math.nan),
        line["reported"] == "1",
        unescape(line["reason"]),
        line["digest"],
    )


def summary(path: str | os.PathLike[str], *, suspects: int = 32, scores: int = 10_000) -> Summary:
    """Read results once, in memory that does not grow with them.

    Args:
        path: path of a file of results.
        suspects: the most rows to list, of reported images and of images that could not be read.
        scores: the most scores to keep.

    Returns:
        A `Summary`.
    """
    judged = reported = known = damaged = sets = reported_sets = 0
    unread: list[Row] = []
    worst: list[tuple[float, int, Row]] = []
    kept, stride, last_set = [], 1, None
    for row in rows(path):
        if row.reason:
            known += row.reason == KNOWN
            damaged += row.reason != KNOWN
            if row.reason != KNOWN and len(unread) < suspects:
                unread.append(row)
            continue
        if row.set != last_set:  # the lines of a set are neighbours
            last_set = row.set
            sets += 1
            reported_sets += row.reported
        if judged % stride == 0:
            kept.append(row.score)
            if len(kept) > scores:
                kept, stride = kept[::2], 2 * stride
        judged += 1
        if row.reported:
            reported += 1
            heapq.heappush(worst, (row.score, -row.index, row))
            if len(worst) > suspects:
                heapq.heappop(worst)
    ranked = [row for _, _, row in sorted(worst, reverse=True)]
    kept = np.array(kept, np.float32)
    return Summary(judged, reported, sets, reported_sets, known, damaged, unread, ranked, kept)


# ------------------------------------------------------------------------------------------ writing


def line(
    index: int,
    file: str,
    pixels: np.ndarray | None,
    *,
    set_number: int | None = None,
    score: float = math.nan,
    p_value: float = math.nan,
    reported: bool = False,
    reason: str = "",
) -> bytes:
    """Make a line of the file.

    Args:
        index: as in `Row`.
        file: as in `Row`.
        pixels: uint8 ``(h, w, c)``; None where the image could not be read.
        set_number: as `Row.set`.
        score: as in `Row`.
        p_value: as in `Row`.
        reported: as in `Row`.
        reason: as in `Row`.

    Returns:
        The line with its digest and a line break.
    """
    numbers = ["", ""] if reason else [f"{score:.9g}", f"{p_value:.6g}"]
    place = [index, escape(file), "" if set_number is None else set_number]
    text = io.StringIO()
    cells = [*place, *numbers, int(reported), escape(reason), ""]
    csv.writer(text, lineterminator="").writerow(cells)
    start = text.getvalue().encode()
    return start + _digest(start, pixels) + b"\n"


def _digest(start: bytes, pixels: np.ndarray | None) -> bytes:
    """Compute the last cell of a line that starts so."""
    data = b"" if pixels is None else pixels.tobytes()
    return hashlib.blake2b(start + data, digest_size=8).hexdigest().encode()


def resume(
    path: Path, images: Images, sets: Sequence[np.ndarray], inputs: Mapping[str, Any]
) -> int:
    """Check a file of results, and cut it off behind its last whole set.

    Args:
        path: an existing file, empty for new results.
        images: the images that are judged. Those that were judged before are read again.
        sets: positions of the images of each set, in the order of their lines.
        inputs: the detector and the settings that they are judged with, as JSON. They are kept
            beside new results, and compared with those that lie beside old ones.

    Returns:
        The number of whole sets.

    Raises:
        ValueError: if ``path`` holds something else than results.
        Changed: if it holds results of other images, or with other inputs.
        Damaged: if lines of it, or the file beside it, were altered.
    """
    beside = Path(f"{path}.json")
    with path.open("rb") as file:
        header = file.readline()
        if not HEADER.startswith(header):
            raise ValueError(f"{path} is not a file of results: choose another")
        if header != HEADER:
            write_file(beside, (json.dumps(inputs, indent=1) + "\n").encode())
            os.truncate(path, 0)
            return 0
        _check_inputs(path, beside, inputs)
        end, first = file.tell(), 2
        for done, own in enumerate(sets):
            lines = [file.readline() for _ in own]
            if not all(text.endswith(b"\n") for text in lines):
                os.truncate(path, end)
                return done
            _check_lines(path, images, own, lines, first)
            end, first = file.tell(), first + len(own)
        if file.readline():
            raise integrity.Changed(
                f"{path} has more lines than there are images: choose another file"
            )
    return len(sets)


def _check_inputs(path: Path, beside: Path, inputs: Mapping[str, Any]) -> None:
    remedy = "choose another file for these results"
    try:
        before = json.loads(beside.read_text())
        if not isinstance(before, dict):
            raise ValueError("it is no table")
    except (OSError, ValueError, RecursionError) as error:
        raise integrity.Damaged(
            f"{beside}, which says what {path} holds, is missing or damaged: {remedy}"
        ) from error
    integrity.check_same(before, inputs, str(path), remedy)


def _check_lines(
    path: Path, images: Images, own: np.ndarray, lines: Sequence[bytes], first: int
) -> None:
    """Compare the lines of a set with its images; ``first`` is the number of the first line."""
    pixels, bad = read(images, own)
    readable = dict(zip((i for i in own.tolist() if i not in bad), pixels, strict=True))
    for number, (index, text) in enumerate(zip(own.tolist(), lines, strict=True), first):
        try:
            row = _row(next(csv.DictReader([text.decode()], Row._fields, strict=True)))
        except (ValueError, TypeError, KeyError, StopIteration, csv.Error) as error:
            raise integrity.Damaged(
                f"line {number} of {path} is damaged: choose another file"
            ) from error
        name = images.names[int(index)] if images.names else ""
        unread = bool(row.reason) and row.reason != KNOWN
        same = (row.index, row.file, unread) == (index, name, index in bad)
        start = text[: text.rfind(b",") + 1]
        if not same or text != start + _digest(start, readable.get(index)) + b"\n":
            shown = f" ({printable(name)})" if name else ""
            raise integrity.Changed(
                f"line {number} of {path} is not that of image {index}{shown} as it is now: these "
                "are results of other images, or something was changed; choose another file"
            )


def read(images: Images, places: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
    """Read images at rising positions ``(k,)``, with the result of `Images.examine`."""
    parts, bad = [np.empty((0, *images.shape[1:]), np.uint8)], {}
    for run in np.split(places, np.flatnonzero(np.diff(places) != 1) + 1):
        if run.size:
            pixels, reasons = images.examine(slice(int(run[0]), int(run[-1]) + 1))
            parts.append(pixels)
            bad |= reasons
    return parts[1] if len(parts) == 2 else np.concatenate(parts), bad


# ------------------------------------------------------------------------------------------- names


def escape(text: str) -> str:
    r"""Escape characters that a table, a terminal or a spreadsheet would misread.

    A backslash, a character that cannot be printed, a byte that is not UTF-8, and a leading ``=``,
    ``+``, ``-`` or ``@`` become escapes such as ``\\``, ``\n``, ``\udcff`` or ``\x3d``.
    """
    text = printable(text.replace("\\", "\\\\"))
    return re.sub(r"^[=+\-@]", lambda match: f"\\x{ord(match[0]):02x}", text)


def unescape(text: str) -> str:
    """Return the text that `escape` was given."""
    return text.encode("latin-1", "backslashreplace").decode("unicode_escape")
