"""Malformed sources of every kind give right pixels or one `DataError`, soon, in little memory.

The message of a failure names the seed and the kind of the source (`tests.data.malformed`).
"""

import resource
import time
import tracemalloc
from functools import partial

import numpy as np
import pytest

from jaxood.data.images import DataError
from tests.data.malformed import Case, malformed, sources

SEEDS = 90
SECONDS = 5
BYTES = 2**30


def _read(case: Case) -> str:
    """Read and examine a whole source; the outcome is "read" or "refused"."""
    try:
        images = case.open()
        pixels, labels = images.rows(0, len(images))
    except DataError as error:
        assert str(error).isprintable(), error
        if not case.alone:
            return "refused"
        images = case.open()
        readable, bad = images.examine(slice(0, len(images)))
        assert list(bad) == [0] and len(readable) == len(images) - 1
        assert case.right is None or np.array_equal(readable, case.right[1:])
        return "refused"
    assert pixels.dtype == np.uint8 and pixels.ndim == 4 and pixels.shape == images.shape
    assert labels is None or np.array_equal(labels, range(4)) or case.right is None
    assert case.right is None or np.array_equal(pixels, case.right)
    half = len(images) // 2
    np.testing.assert_array_equal(images[half : len(images)], pixels[half:])
    np.testing.assert_array_equal(images.examine(slice(0, len(images)))[0], pixels)
    return "read"


def test_whole_sources_are_read(tmp_path):
    for kind, source in sources().items():
        for name, content in source.files.items():
            (tmp_path / kind / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / kind / name).write_bytes(content)
        case = Case(kind, partial(source.open, tmp_path / kind), source.right, source.right_alone)
        assert _read(case) == "read", kind


@pytest.mark.filterwarnings("default")  # a warning is neither an error nor a wrong pixel
def test_malformed_inputs_are_read_right_or_refused_soon_in_little_memory(tmp_path):
    outcomes = []
    peak = _peak_kilobytes()
    tracemalloc.start(1)
    try:
        for seed in range(SEEDS):
            for case in malformed(tmp_path / str(seed), seed):
                tracemalloc.reset_peak()
                start = time.perf_counter()
                try:
                    outcomes.append(_read(case))
                except Exception as error:
                    raise AssertionError(f"{case.what}: {error!r}") from error
                assert time.perf_counter() - start < SECONDS, case.what
                assert tracemalloc.get_traced_memory()[1] < BYTES, case.what
                assert _peak_kilobytes() - peak < BYTES // 1024, case.what
    finally:
        tracemalloc.stop()
    assert len(outcomes) > 1000
    assert min(outcomes.count("read"), outcomes.count("refused")) > 100


def _peak_kilobytes() -> int:
    """The most memory that this process has used, including that of C libraries."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
