"""Images that outgrow memory: read ahead of the device, judged set by set, written as they come.

Memory holds two sets of images at a time, however many there are. The results are a CSV file that
grows; a run that was stopped goes on after the last whole set in it::

    detector = jaxood.detector.fit(score, held_out, set_size=1024)
    images = jaxood.data.open("path/to/images")
    jaxood.stream.judge(detector, images, "scores.csv", set_size=1024)
"""

from __future__ import annotations

import csv
import heapq
import io
import math
import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, TypeVar

import jax
import numpy as np

from jaxood import progress
from jaxood.detector import Detector, check_rate, finite, known, p_values_of
from jaxood.images import Images

A = TypeVar("A")
B = TypeVar("B")


class Row(NamedTuple):
    """A line of the results.

    Attributes:
        index: position of the image.
        file: its file name, or empty.
        score: float32, higher = more OOD.
        p_value: NaN for an image that the detector was calibrated on, which cannot be judged.
        reported: whether the p-value is at most the false-positive rate.
    """

    index: int
    file: str
    score: float
    p_value: float
    reported: bool


class Summary(NamedTuple):
    """What a file of results says.

    Attributes:
        images: how many were judged.
        reported: how many of them are reported as OOD.
        known: how many more were not judged: the detector was calibrated on them.
        suspects: reported images, the most suspicious first.
        scores: float32 ``(k,)``: every k-th score of all, for a histogram.
    """

    images: int
    reported: int
    known: int
    suspects: list[Row]
    scores: np.ndarray


def judge(
    detector: Detector,
    images: Images,
    path: str | os.PathLike[str],
    *,
    set_size: int = 1024,
    false_positive_rate: float = 0.05,
    show_progress: bool = False,
) -> None:
    """Judge any number of images, and write a line for each into a CSV file.

    While the device scores a set of images, a thread reads the next one and carries it to the
    device. The n images are cut into ``n // set_size`` sets of equal size, to within one image (a
    single one where there are fewer): with a batch score these are the sets that the images are
    scored among, so give `detector.fit` the same ``set_size``. A set is written, and on the disk,
    before the next is scored.

    Args:
        detector: from `detector.fit`; its score takes images on the device.
        images: from `data.open`.
        path: the CSV file, whose columns are those of `Row`. If it exists, what is missing is
            added: a torn or unfinished last set is scored again, and the file becomes the same to
            the byte as that of a run that was never stopped, given the same arguments.
        set_size: images read, scored and written at a time.
        false_positive_rate: the share of trusted images that may be reported, at most.
        show_progress: draw a progress bar on stderr.

    Raises:
        ValueError: if ``path`` holds something else, or the results of other images; if the
            detector cannot hold the rate; or a score is NaN.
        DataError: if images are damaged. What was judged before is kept.
    """
    check_rate(detector, false_positive_rate)
    cuts = _cuts(len(images), set_size)
    done = _keep_whole_sets(Path(path), images, cuts)

    def read(span: tuple[int, int]) -> tuple[int, np.ndarray, jax.Array]:
        host = images[slice(*span)]
        return span[0], host, jax.device_put(host)

    spans = (span for span in pairwise(cuts) if span[0] >= done)
    with (
        open(path, "ab") as file,
        closing(ahead(read, spans)) as sets,
        progress.bar("screening", len(images), done=done, show=show_progress) as advance,
    ):
        if file.tell() == 0:
            file.write(_HEADER)
        for start, host, device in sets:
            scores = finite(detector.score(device))
            p_values = p_values_of(scores, detector.null)
            p_values[known(detector, host)] = np.nan
            judged = zip(scores, p_values, p_values <= false_positive_rate, strict=True)
            file.writelines(
                _head(images, index) + f"{score:.9g},{p_value:.6g},{reported:d}\n".encode()
                for index, (score, p_value, reported) in enumerate(judged, start)
            )
            file.flush()
            os.fsync(file.fileno())
            advance(len(host))
            del host, device  # before the next set comes, whose successor is being read already


def ahead(function: Callable[[A], B], arguments: Iterable[A]) -> Generator[B, None, None]:
    """``map`` that computes the next value in a thread while the present one is used.

    Two values are alive at a time. An error of ``function`` is raised where its value would come,
    and closing the iterator ends the thread.
    """
    with ThreadPoolExecutor(1, "read ahead") as thread:
        coming = None
        for argument in arguments:
            ready, coming = coming, thread.submit(function, argument)
            if ready is not None:
                yield ready.result()
                del ready
        if coming is not None:
            yield coming.result()


def rows(path: str | os.PathLike[str]) -> Iterator[Row]:
    """The lines of a file that `judge` wrote, one at a time."""
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        for line in csv.DictReader(file):
            yield Row(
                int(line["index"]),
                line["file"],
                float(line["score"]),
                float(line["p_value"]),
                line["reported"] == "1",
            )


def summary(path: str | os.PathLike[str], *, suspects: int = 32, scores: int = 10_000) -> Summary:
    """Read results once, in memory that does not grow with them.

    Args:
        path: written by `judge`.
        suspects: reported images to list, at most.
        scores: scores to keep, at most.
    """
    judged = reported = unjudged = 0
    worst: list[tuple[float, int, Row]] = []
    kept, stride = [], 1
    for row in rows(path):
        if math.isnan(row.p_value):
            unjudged += 1
            continue
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
    return Summary(judged, reported, unjudged, ranked, np.array(kept, np.float32))


_HEADER = (",".join(Row._fields) + "\n").encode()


def _cuts(n: int, set_size: int) -> list[int]:
    """Where sets begin, and the end of the last."""
    if set_size < 1:
        raise ValueError(f"a set of {set_size} images: give at least 1")
    sets = max(1, n // set_size)
    return [i * n // sets for i in range(sets + 1)]


def _head(images: Images, index: int) -> bytes:
    """The part of an image's line that is known before it is judged."""
    text = io.StringIO()
    name = re.sub(r"[\r\n]", "?", images.names[index]) if images.names else ""
    csv.writer(text, lineterminator="").writerow((index, name, ""))
    return text.getvalue().encode("utf-8", "surrogateescape")


def _keep_whole_sets(path: Path, images: Images, cuts: list[int]) -> int:
    """Cut a file of results off behind its last whole set, and say how many images it holds."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        header = file.readline()
        if header != _HEADER:
            if not _HEADER.startswith(header):
                raise ValueError(f"{path} is not a file of results: choose another")
            header = b""
        cuts_at = set(cuts)
        done, end, position = 0, len(header), len(header)
        for index, line in enumerate(file):
            if not line.endswith(b"\n"):
                break
            if index >= len(images) or not line.startswith(_head(images, index)):
                raise ValueError(
                    f"{path} holds the results of other images (line {index + 2}): choose another "
                    "file"
                )
            position += len(line)
            if index + 1 in cuts_at:
                done, end = index + 1, position
    os.truncate(path, end)
    return done
