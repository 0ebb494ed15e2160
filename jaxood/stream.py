"""Images that outgrow memory: read ahead of the device, judged set by set, written as they come.

Memory holds two sets of images at a time, however many there are. The results are a CSV file that
grows; a run that was stopped goes on after the last whole set in it::

    detector = jaxood.detector.fit(score, held_out)
    images = jaxood.data.open("path/to/images")
    jaxood.stream.judge(detector, images, "scores.csv")
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, TypeVar

import jax
import numpy as np

from jaxood import detector as detectors
from jaxood import integrity, progress, results
from jaxood.data.images import DataError, Images, in_memory
from jaxood.detector import Detector
from jaxood.results import Row, Summary, escape, rows, summary

__all__ = ["Row", "Summary", "ahead", "escape", "judge", "rows", "summary"]

AT_A_TIME = 1024
"""Images that are read at a time, unless the caller says how many."""

A = TypeVar("A")
B = TypeVar("B")


def judge(
    detector: Detector,
    images: Images,
    path: str | os.PathLike[str],
    *,
    set_size: int | None = None,
    false_positive_rate: float = 0.05,
    seed: int = 0,
    show_progress: bool = False,
) -> None:
    """Judge any number of images, and write a line for each into a CSV file.

    While the device scores a set of images, a thread reads the next set and copies it to the
    device. A detector of images takes them in their order. A detector of sets takes them as
    `jaxood.detector.deal` deals them, and lines come in that order. The lines of a set are on the
    disk before the next set is scored. An image that cannot be read, or that the detector was
    calibrated on, gets a line that says so; in a set another image takes its place.

    Args:
        detector: from `jaxood.detector.fit`; its score takes images on the device.
        images: from `jaxood.data.open`.
        path: the CSV file, whose columns are those of `Row`; beside it lies ``<path>.json``, which
            says which images were judged, by which detector and with which settings. If the file
            exists, the missing lines are added: a torn or unfinished last set is scored again, and
            the file becomes the same to the byte as that of a run that was never stopped. The
            images that were judged before are read again, to see that they are the same.
        set_size: images read, scored and written at a time, by default 1024. A detector of sets
            takes its own size, and another is refused.
        false_positive_rate: as in `jaxood.detector.decide`.
        seed: seed of the shuffle that deals images to sets.
        show_progress: draw a progress bar on stderr.

    Raises:
        ValueError: if ``path`` holds something else; if the detector cannot hold the rate, or
            judges sets of another size; or a score is NaN.
        Changed: if ``path`` holds results of other images, of another detector, or with other
            settings.
        Damaged: if lines of ``path`` were altered.
        Locked: if another process writes to ``path``.
        DataError: if images that do not lie in files of their own are damaged, or too few can be
            judged to fill a set. The lines that were written before are kept.
    """
    detectors.check_rate(detector, false_positive_rate)
    path = Path(path)
    order, sets = _sets(detector, len(images), set_size, seed)
    inputs = {
        "detector": detectors.fingerprint(detector),
        "false-positive rate": false_positive_rate,
        "images": list(images.shape),
        "seed": seed,
        "set size": len(sets[0]),
    }
    if order is not None and not images.random_access:
        images = _spooled(images)
    with open(path, "ab") as file, integrity.lock(path):
        done = results.resume(path, images, sets, inputs)

        def fill(number: int) -> tuple[int, _Set, jax.Array]:
            filled = _fill(detector, images, sets[number], order, len(sets[0]))
            return number, filled, jax.device_put(filled.pixels)

        finished = sum(map(len, sets[:done]))
        with (
            closing(ahead(fill, range(done, len(sets)))) as coming,
            progress.bar("screening", len(images), done=finished, show=show_progress) as advance,
        ):
            if os.path.getsize(path) == 0:
                file.write(results.HEADER)
            for number, filled, device in coming:
                lines = _lines(detector, images, filled, device, number, false_positive_rate)
                file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())
                advance(len(filled.own))
                del filled, device  # before the next set comes, whose successor is being read


def _sets(
    detector: Detector, n: int, set_size: int | None, seed: int
) -> tuple[np.ndarray | None, Sequence[np.ndarray]]:
    """Deal images to sets.

    Returns:
        The order in which images are dealt, None where they are judged in their own order; and for
        each set the rising positions of the images that get a line in it. The last set may be
        short: images from the front of the order then fill it up.
    """
    if set_size is not None and set_size < 1:
        raise ValueError(f"a set of {set_size} images: give at least 1")
    if detector.set_size is None:
        size = set_size or AT_A_TIME
        return None, np.split(np.arange(n), range(size, n, size))
    if set_size not in (None, detector.set_size):
        raise ValueError(
            f"the detector was calibrated on sets of {detector.set_size} images and judges no sets "
            f"of {set_size}: leave set_size out, or calibrate with set_size={set_size}"
        )
    order = np.concatenate(list(detectors.deal(n, detector.set_size, seed)))[:n]
    parts = np.split(order, range(detector.set_size, n, detector.set_size))
    return order, [np.sort(part) for part in parts]


class _Set(NamedTuple):
    """A set that is ready to be scored.

    Attributes:
        own: rising positions of the images that get a line in this set.
        readable: pixels of those that could be read, by position.
        reasons: reasons why images of ``own`` are not judged, by position.
        judged: rising positions of the images that are scored: the own ones without a reason, and
            others that fill up the places that are left.
        pixels: uint8 ``(len(judged), h, w, c)``.
    """

    own: np.ndarray
    readable: dict[int, np.ndarray]
    reasons: dict[int, str]
    judged: np.ndarray
    pixels: np.ndarray


def _fill(
    detector: Detector, images: Images, own: np.ndarray, order: np.ndarray | None, size: int
) -> _Set:
    """Read a set of images; in a detector of sets, others replace those that are not judged."""
    pixels, bad = results.read(images, own)
    places = own[~np.isin(own, list(bad))]
    readable = dict(zip(places.tolist(), pixels, strict=True))
    judged, pixels, known = _unknown(detector, places, pixels)
    reasons = bad | dict.fromkeys(known.tolist(), results.KNOWN)
    if order is not None and 0 < len(judged) < size:
        others = order[~np.isin(order, own)]  # from the front
        while len(judged) < size and len(others):
            wanted, others = np.sort(others[: size - len(judged)]), others[size - len(judged) :]
            more, bad = results.read(images, wanted)
            places, more, _ = _unknown(detector, wanted[~np.isin(wanted, list(bad))], more)
            judged, pixels = np.append(judged, places), np.concatenate([pixels, more])
        if len(judged) < size:
            raise DataError(
                f"only {len(judged)} of {len(images)} images can be judged, which do not fill a "
                f"set of {size}: give more images, or calibrate with a smaller set_size"
            )
        rising = np.argsort(judged)
        judged, pixels = judged[rising], pixels[rising]
    return _Set(own, readable, reasons, judged, pixels)


def _unknown(
    detector: Detector, places: np.ndarray, pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Take out the images that the detector was calibrated on.

    Returns:
        The positions and pixels of the others, and the positions of those.
    """
    known = detectors.known(detector, pixels)
    if not known.any():
        return places, pixels, places[:0]
    return places[~known], pixels[~known], places[known]


def _spooled(images: Images) -> Images:
    """Copy images that are read from the front alone to a scratch file with random access."""
    with tempfile.TemporaryFile() as file:
        for start in range(0, len(images), AT_A_TIME):
            images[start : start + AT_A_TIME].tofile(file)
        pixels = np.memmap(file, np.uint8, "r+", shape=images.shape)  # keeps what is closed
    return in_memory(pixels, None, "the scratch file")


def _lines(
    detector: Detector,
    images: Images,
    filled: _Set,
    device: jax.Array,
    number: int,
    false_positive_rate: float,
) -> Iterator[bytes]:
    """Score a set, and make the lines of its own images."""
    scores, p_values = {}, {}
    if len(filled.judged):
        found = detectors.judge(detector, device)
        scores, p_values = (dict(zip(filled.judged.tolist(), v, strict=True)) for v in found)
    for index in filled.own.tolist():
        name = images.names[int(index)] if images.names else ""
        line = functools.partial(
            results.line,
            index,
            name,
            filled.readable.get(index),
            set_number=None if detector.set_size is None else number,
        )
        if index in filled.reasons:
            yield line(reason=filled.reasons[index])
        else:
            reported = p_values[index] <= false_positive_rate
            yield line(score=scores[index], p_value=p_values[index], reported=reported)


def ahead(function: Callable[[A], B], arguments: Iterable[A]) -> Generator[B, None, None]:
    """Map like ``map``, but compute the next value in a thread while the present one is used.

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
