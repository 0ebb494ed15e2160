"""Images that outgrow memory are judged as by the detector; a stopped run resumes to the byte."""

import functools
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from typing import Any

import numpy as np
import pytest

from jaxood import data, detector, stream
from jaxood.data import DataError
from tests.data.helpers import noise, png, write_images
from tests.data.malformed import malformed
from tests.helpers import ROOT, TinyScore


@TinyScore
def brightness(images):
    return np.asarray(images, np.float32).mean((1, 2, 3))


@functools.partial(TinyScore, per_image=False)
def among_its_set(images):
    """A batch score: the distance of an image's brightness from the mean of its set."""
    values = brightness(images)
    return np.abs(values - values.mean())


@pytest.fixture
def judge_brightness(rng):
    return detector.fit(brightness, noise(rng, 99, 4, 4, 1))


# --------------------------------------------------------------------------------- reading ahead


def test_the_next_value_is_computed_while_the_present_one_is_used():
    begun = [threading.Event() for _ in range(4)]

    def begin(i):
        begun[i].set()
        return i * i

    squares = []
    for square in stream.ahead(begin, range(4)):
        following = len(squares) + 1
        assert following == 4 or begun[following].wait(timeout=30)
        squares.append(square)
        assert not any(event.is_set() for event in begun[following + 1 :])
    assert squares == [0, 1, 4, 9]
    assert list(stream.ahead(begin, ())) == []


def test_an_error_comes_in_its_place_and_ends_the_thread():
    values = stream.ahead(lambda i: 1 // (2 - i), range(4))
    assert next(values) == 0 and next(values) == 1
    with pytest.raises(ZeroDivisionError):
        next(values)
    assert list(values) == []
    unfinished = stream.ahead(lambda i: i, range(100))
    next(unfinished)
    unfinished.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("read ahead")]


# ---------------------------------------------------------------------------------------- judging


def test_results_are_those_of_the_detector(rng, tmp_path, judge_brightness):
    pixels = noise(rng, 50, 4, 4, 1)
    np.save(tmp_path / "new.npy", pixels)
    images, path = data.open(tmp_path / "new.npy"), tmp_path / "scores.csv"
    stream.judge(judge_brightness, images, path, set_size=8, false_positive_rate=0.3)
    found = list(stream.rows(path))
    assert [row.index for row in found] == list(range(50))
    # All digits of a float32 are written.
    np.testing.assert_array_equal(
        np.array([row.score for row in found], np.float32), brightness(pixels)
    )
    want = detector.p_values(judge_brightness, pixels)
    np.testing.assert_allclose([row.p_value for row in found], want, rtol=1e-5)
    decided = detector.decide(judge_brightness, pixels, false_positive_rate=0.3)
    assert 0 < decided.sum() < 50
    np.testing.assert_array_equal([row.reported for row in found], decided)


@pytest.mark.parametrize(("n", "size"), [(8, 8), (15, 8), (29, 8)])
def test_sets_are_dealt_by_a_shuffle_and_all_of_one_size(n, size, rng, tmp_path):
    pixels = noise(rng, n, 4, 4, 1)
    np.save(tmp_path / "new.npy", pixels)
    images, path = data.open(tmp_path / "new.npy"), tmp_path / "scores.csv"
    seen = []

    @functools.partial(TinyScore, per_image=False)
    def score(x):
        seen.append(np.asarray(x))
        return among_its_set(x)

    judge = detector.fit(score, noise(rng, 5 * size + 3, 4, 4, 1), set_size=size)
    assert [len(x) for x in seen] == [size] * 5 and len(judge.null) == 5
    seen.clear()
    stream.judge(judge, images, path, false_positive_rate=0.5)
    assert [len(x) for x in seen] == [size] * -(-n // size)
    batches, found = list(seen), list(stream.rows(path))
    assert sorted(row.index for row in found) == list(range(n))
    dealt = [row.index for row in found]
    assert dealt != sorted(dealt) or n == size
    assert all(dealt[i : i + size] == sorted(dealt[i : i + size]) for i in range(0, n, size))
    for row in found:
        assert row.set is not None
        batch = batches[row.set]
        place = np.flatnonzero((batch == pixels[row.index]).all((1, 2, 3)))
        assert row.score == among_its_set(batch)[place[0]]
    # All images of a set share its p-value, which is that of `detector.p_values`.
    want = detector.p_values(judge, pixels)
    np.testing.assert_allclose([row.p_value for row in found], want[dealt], rtol=1e-5)
    found = stream.summary(path)
    assert found.sets == -(-n // size)
    assert found.reported_sets == sum(p <= 0.5 for p in set_p_values(judge, batches))


def set_p_values(judge, batches):
    means = np.array([among_its_set(x).mean(dtype=np.float64) for x in batches], np.float32)
    return detector.p_values_of(means, judge.null)


def test_a_detector_of_sets_refuses_other_sets(rng, tmp_path):
    np.save(tmp_path / "new.npy", noise(rng, 20, 4, 4, 1))
    images = data.open(tmp_path / "new.npy")
    judge = detector.fit(among_its_set, noise(rng, 40, 4, 4, 1), set_size=8)
    with pytest.raises(ValueError, match="calibrated on sets of 8 images and judges no sets of 10"):
        stream.judge(judge, images, tmp_path / "scores.csv", set_size=10, false_positive_rate=0.5)
    judge = judge._replace(set_size=21)
    with pytest.raises(ValueError, match="20 images do not fill a set of 21"):
        stream.judge(judge, images, tmp_path / "scores.csv", false_positive_rate=0.5)


def test_sets_from_a_compressed_file_are_those_from_a_plain_one(rng, tmp_path):
    pixels = noise(rng, 50, 4, 4, 1)
    np.save(tmp_path / "new.npy", pixels)
    np.savez_compressed(tmp_path / "new.npz", pixels)
    judge = detector.fit(among_its_set, noise(rng, 40, 4, 4, 1), set_size=8)
    for name in ("new.npy", "new.npz"):
        images = data.open(tmp_path / name)
        assert images.random_access == (name == "new.npy")
        stream.judge(judge, images, tmp_path / f"{name}.csv", false_positive_rate=0.5)
    assert (tmp_path / "new.npy.csv").read_bytes() == (tmp_path / "new.npz.csv").read_bytes()


def test_images_may_be_judged_one_at_a_time(rng, tmp_path, judge_brightness):
    np.save(tmp_path / "new.npy", noise(rng, 3, 4, 4, 1))
    stream.judge(judge_brightness, data.open(tmp_path / "new.npy"), tmp_path / "a.csv", set_size=1)
    assert [row.index for row in stream.rows(tmp_path / "a.csv")] == [0, 1, 2]


def test_by_default_1024_images_are_read_at_a_time(rng, tmp_path):
    pixels = noise(rng, 2100, 2, 2, 1)
    np.savez_compressed(tmp_path / "new.npz", pixels)
    images, sizes = data.open(tmp_path / "new.npz"), []
    judge = detector.fit(brightness, noise(rng, 99, 2, 2, 1))
    judge = judge._replace(score=TinyScore(lambda x: sizes.append(len(x)) or brightness(x)))
    stream.judge(judge, images, tmp_path / "scores.csv")
    assert sizes == [1024, 1024, 52]
    # A detector of sets reads as many at a time into its scratch file.
    judge = detector.fit(among_its_set, noise(rng, 210, 2, 2, 1), set_size=70)
    stream.judge(judge, images, tmp_path / "sets.csv", false_positive_rate=0.5)
    batches = [pixels[np.sort(chosen)] for chosen in detector.deal(2100, 70)]
    want = {
        i: s
        for c, x in zip(detector.deal(2100, 70), batches, strict=True)
        for i, s in zip(np.sort(c).tolist(), among_its_set(x), strict=True)
    }
    assert {row.index: row.score for row in stream.rows(tmp_path / "sets.csv")} == want


def test_images_that_were_calibrated_on_are_not_judged(rng, tmp_path):
    pixels = noise(rng, 40, 4, 4, 1)
    judge = detector.fit(brightness, pixels[:20])
    np.save(tmp_path / "new.npy", pixels[10:])
    stream.judge(judge, data.open(tmp_path / "new.npy"), tmp_path / "scores.csv", set_size=7)
    p_values = np.array([row.p_value for row in stream.rows(tmp_path / "scores.csv")])
    assert np.isnan(p_values[:10]).all() and not np.isnan(p_values[10:]).any()
    found = stream.summary(tmp_path / "scores.csv")
    assert (found.images, found.known, found.damaged) == (20, 10, 0)


def test_images_that_cannot_be_judged_have_a_line_and_others_take_their_place(rng, tmp_path):
    """They are damaged, gone, of another size or calibrated on; in sets as well as one by one."""
    pixels = noise(rng, 40, 4, 4, 1)
    write_images(tmp_path / "new", pixels)
    (tmp_path / "new" / "003.png").write_bytes(b"no image")
    (tmp_path / "new" / "020.png").write_bytes(png(noise(rng, 5, 4)))
    images = data.open(tmp_path / "new")
    (tmp_path / "new" / "031.png").unlink()  # the file is deleted after it was listed
    trusted = np.concatenate([noise(rng, 39, 4, 4, 1), pixels[[7]]])
    good = np.delete(pixels, [3, 7, 20, 31], axis=0)
    for set_size, score in ((None, brightness), (8, among_its_set)):
        path, batches = tmp_path / f"{set_size}.csv", []

        def seen(x, score=score, batches=batches):
            batches.append(np.asarray(x))
            return score(x)

        judge = detector.fit(TinyScore(seen, score.per_image), trusted, set_size=set_size)
        batches.clear()
        for _ in range(2):  # the second time the results are found complete
            stream.judge(judge, images, path, false_positive_rate=0.5)
            found = {row.index: row for row in stream.rows(path)}
            assert len(found) == 40
            assert {i for i, row in found.items() if row.reason} == {3, 7, 20, 31}
            assert all(np.isnan(found[i].p_value) and not found[i].reported for i in (3, 7, 20, 31))
            assert "003.png: this is not a readable image" in found[3].reason
            assert "calibrated on" in found[7].reason and "image is (5, 4)" in found[20].reason
            assert "031.png" in found[31].reason
        every = np.concatenate(batches)
        if set_size is None:
            np.testing.assert_array_equal(every, good)
        else:
            assert [len(x) for x in batches] == [8] * 5
            assert all(len(np.unique(x, axis=0)) == 8 for x in batches)
            assert {x.tobytes() for x in every} == {x.tobytes() for x in good}
        found = stream.summary(path)
        assert (found.images, found.known, found.damaged) == (36, 1, 3)
        assert {row.file for row in found.unread} == {"003.png", "020.png", "031.png"}


def test_too_few_good_images_for_a_set_are_an_error_that_says_so(rng, tmp_path):
    write_images(tmp_path / "new", noise(rng, 8, 4, 4, 1))
    images = data.open(tmp_path / "new")
    (tmp_path / "new" / "003.png").write_bytes(b"no image")
    judge = detector.fit(among_its_set, noise(rng, 40, 4, 4, 1), set_size=8)
    with pytest.raises(DataError, match="only 7 of 8 images can be judged"):
        stream.judge(judge, images, tmp_path / "scores.csv", false_positive_rate=0.5)


@pytest.mark.parametrize("set_size", [None, 5])
def test_a_stopped_run_resumes_to_the_byte_wherever_it_was_cut(set_size, rng, tmp_path):
    write_images(tmp_path / "new", noise(rng, 23, 4, 4, 1))
    (tmp_path / "new" / "011.png").write_bytes(b"no image")
    images, path = data.open(tmp_path / "new"), tmp_path / "scores.csv"
    score = among_its_set if set_size else brightness
    judge = detector.fit(score, noise(rng, 99, 4, 4, 1), set_size=set_size)
    options: Any = {"false_positive_rate": 0.1, "set_size": 5}
    stream.judge(judge, images, path, **options)
    whole = path.read_bytes()
    calls = []
    judge = judge._replace(score=TinyScore(lambda x: calls.append(len(x)) or score(x)))
    for length in range(0, len(whole), 23):
        path.write_bytes(whole[:length])
        stream.judge(judge, images, path, **options)
        assert path.read_bytes() == whole
    calls.clear()
    stream.judge(judge, images, path, **options)
    assert path.read_bytes() == whole and not calls  # no image is scored twice


@pytest.mark.filterwarnings("default")  # Pillow warns of what is wrong with a file
def test_every_image_of_a_malformed_source_has_a_line_or_the_source_is_refused(rng, tmp_path):
    lines = refused = 0
    for case in (case for seed in range(8) for case in malformed(tmp_path / str(seed), seed)):
        path = tmp_path / f"{lines}-{refused}.csv"
        try:
            images = case.open()
            judge = detector.fit(brightness, noise(rng, 19, *images.shape[1:]))
            stream.judge(judge, images, path, set_size=3)
        except DataError:
            refused += 1
            continue
        found = list(stream.rows(path))
        assert [row.index for row in found] == list(range(len(images))), case.what
        assert all(bool(row.reason) == np.isnan(row.score) for row in found), case.what
        pixels, bad = images.examine(slice(0, len(images)))
        assert {row.index for row in found if row.reason} == bad.keys(), case.what
        want = brightness(pixels)
        judged = np.array([row.score for row in found if not row.reason], np.float32)
        np.testing.assert_array_equal(judged, want, err_msg=case.what)
        lines += len(found)
    assert lines > 100 and refused > 20


def test_what_was_judged_before_an_error_is_kept(rng, tmp_path, judge_brightness):
    pixels = noise(rng, 12, 4, 4, 1)
    np.save(tmp_path / "new.npy", pixels)
    good = (tmp_path / "new.npy").read_bytes()
    images, path = data.open(tmp_path / "new.npy"), tmp_path / "scores.csv"
    (tmp_path / "new.npy").write_bytes(good[:-30])  # the file is cut short while it is read
    with pytest.raises(DataError, match=r"new.npy: damaged .npy file"):
        stream.judge(judge_brightness, images, path, set_size=4)
    assert len(list(stream.rows(path))) == 8
    (tmp_path / "new.npy").write_bytes(good)
    stream.judge(judge_brightness, data.open(tmp_path / "new.npy"), path, set_size=4)
    assert len(list(stream.rows(path))) == 12
    with pytest.raises(ValueError, match="false-positive rate"):
        stream.judge(judge_brightness, images, path, false_positive_rate=0.001)
    with pytest.raises(ValueError, match="at least 1"):
        stream.judge(judge_brightness, images, path, set_size=0)


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_memory_does_not_grow_with_the_images(suffix, tmp_path, judge_brightness):
    """Ten times as many images, 9 MB more on the disk, take no more memory of Python and NumPy."""
    peaks = []
    for n in (1000, 10_000):
        path = tmp_path / f"{n}.{suffix}"
        pixels = np.random.default_rng(n).integers(0, 256, (n, 32, 32, 1), np.uint8)
        np.save(path, pixels) if suffix == "npy" else np.savez_compressed(path, images=pixels)
        del pixels
        tracemalloc.start()
        stream.judge(judge_brightness, data.open(path), tmp_path / f"{n}.csv", set_size=100)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # By chance there are some sets of 0.1 MB more or less (the reader or the scorer is faster), far
    # less than the further 9,000 images.
    assert peaks[1] < peaks[0] + 9000 * 32 * 32 / 4, peaks


SLOW = """
import signal, sys, time
import numpy as np
from jaxood import data, detector, stream
from tests.helpers import TinyScore

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background lacks

@TinyScore
def score(x):
    time.sleep(float(sys.argv[3]))
    return np.asarray(x, np.float32).mean((1, 2, 3))

judge = detector.fit(score, np.random.default_rng(1).integers(0, 256, (99, 4, 4, 1), np.uint8))
stream.judge(judge, data.open(sys.argv[1]), sys.argv[2], set_size=4)
"""


def test_killed_or_interrupted_it_resumes_to_the_byte(rng, tmp_path):
    np.save(tmp_path / "new.npy", noise(rng, 200, 4, 4, 1))

    def start(name, pause=0.0):
        line = [sys.executable, "-c", SLOW, tmp_path / "new.npy", tmp_path / name, str(pause)]
        return subprocess.Popen(line, cwd=ROOT, stderr=subprocess.DEVNULL)

    whole, broken = tmp_path / "whole.csv", tmp_path / "broken.csv"
    assert start(whole.name).wait() == 0
    for stop in (signal.SIGKILL, signal.SIGINT):
        size = broken.stat().st_size if broken.exists() else 0
        process = start(broken.name, pause=0.5)
        while not broken.exists() or broken.stat().st_size < size + 200:
            time.sleep(0.01)
        process.send_signal(stop)
        assert process.wait(timeout=30) != 0
        assert 0 < broken.stat().st_size < whole.stat().st_size
    assert start(broken.name).wait() == 0
    assert broken.read_bytes() == whole.read_bytes()
