"""Images that outgrow memory: slices are what `load` gives; results resume to the byte."""

import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc

import numpy as np
import pytest
from conftest import ROOT
from test_data import drawings, write_tfds
from test_files import noise, png, write_idx, write_images

from jaxood import data, detector, stream
from jaxood.data import DataError


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def brightness(images):
    return np.asarray(images, np.float32).mean((1, 2, 3))


def among_its_set(images):
    """A batch score: how much brighter than the mean of the images it arrives with."""
    values = brightness(images)
    return np.abs(values - values.mean())


@pytest.fixture
def judge_brightness(rng):
    return detector.fit(brightness, noise(rng, 99, 4, 4, 1))


# ------------------------------------------------------------------------------ images on the disk


def in_every_format(rng, folder):
    """Seven images in each format, by name: a path that `data.open` reads."""
    colour, gray = noise(rng, 7, 8, 6, 3), noise(rng, 7, 8, 6)
    np.save(folder / "array.npy", colour)
    np.save(folder / "fortran.npy", np.asfortranarray(colour))
    np.savez(folder / "stored.npz", x_test=colour, y_test=np.arange(7))
    np.savez_compressed(folder / "packed.npz", gray)
    write_images(folder / "flat", colour)
    write_images(folder / "classes" / "b", colour[:4])
    write_images(folder / "classes" / "a", colour[4:])
    write_idx(folder / "idx" / "t10k-images-idx3-ubyte", gray)
    write_idx(folder / "gz" / "t10k-images-idx3-ubyte.gz", gray)
    write_idx(folder / "gz" / "t10k-labels-idx1-ubyte.gz", np.arange(7, dtype=np.uint8))
    names = ("array.npy", "fortran.npy", "stored.npz", "packed.npz", "flat", "classes", "idx", "gz")
    return [folder / name for name in names]


def same_in_pieces(name, *arguments):
    """Slices forward and backward are what `load` has there."""
    whole, labels = data.load(name, *arguments)
    images = data.open(name, *arguments)
    assert images.shape == whole.shape and len(images) == len(whole)
    for size in (1, 3, len(whole)):
        starts = range(0, len(whole), size)
        pieces = [images[start : start + size] for start in starts]
        np.testing.assert_array_equal(np.concatenate(pieces), whole)
        for start, piece in reversed(list(zip(starts, pieces, strict=True))):
            np.testing.assert_array_equal(images[start : start + size], piece)
    pixels, some = images.rows(2, 5)
    assert pixels.flags.writeable and pixels.flags.c_contiguous
    np.testing.assert_array_equal(some, None if labels is None else labels[2:5])


def test_slices_of_every_format_are_what_load_gives(rng, tmp_path):
    for path in in_every_format(rng, tmp_path):
        same_in_pieces(path)
        same_in_pieces(f"{path}/rotated/contrast_0.5")


def test_slices_of_registered_sets_are_what_load_gives(rng, tmp_path):
    images, papers = noise(rng, 7, 28, 28, 1), drawings(rng, 7)
    write_tfds(tmp_path / "mnist/3.0.1", {"test": (images, range(7))})
    halves = {"small1": (papers[:4], range(4)), "small2": (papers[2:], range(2, 7))}
    write_tfds(tmp_path / "omniglot/3.0.0", halves)
    same_in_pieces("mnist/rotated_bilinear", "test", tmp_path)
    same_in_pieces("omniglot", "test", tmp_path)
    same_in_pieces("digits/scaled_0.5", "test", tmp_path)


def test_names_of_files(rng, tmp_path):
    write_images(tmp_path / "classes" / "b", noise(rng, 2, 4, 4, 3))
    write_images(tmp_path / "classes" / "a", noise(rng, 1, 4, 4, 3))
    assert data.open(tmp_path / "classes").names == ["a/000.png", "b/000.png", "b/001.png"]
    assert data.open("digits").names is None


def test_slices_must_be_plain():
    images = data.open("digits")
    for wrong in (slice(4, 4), slice(0, 4, 2), slice(10_000, None)):
        with pytest.raises(ValueError, match="start < stop"):
            images[wrong]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damage_shows_when_it_is_read(rng, tmp_path, save):
    path = tmp_path / "a.npz"
    save(path, x_test=noise(rng, 4000, 8, 8, 3))
    whole = bytearray(path.read_bytes())
    whole[len(whole) * 3 // 4] ^= 255
    path.write_bytes(whole)
    images = data.open(path)
    assert len(images[:100]) == 100
    with pytest.raises(DataError, match=r"a\.npz: damaged .npz file"):
        for start in range(100, 4000, 100):
            images[start : start + 100]


def test_an_array_that_ends_too_early(rng, tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, noise(rng, 20, 8, 8, 3))
    path.write_bytes(path.read_bytes()[:-1])
    assert len(data.open(path)[:19]) == 19
    with pytest.raises(DataError, match=r"damaged .npy file .*ends too early.* write it again"):
        data.load(path)


def test_an_image_unlike_the_first_is_refused_in_any_piece(rng, tmp_path):
    write_images(tmp_path / "set", noise(rng, 4, 8, 8, 3))
    (tmp_path / "set" / "003.png").write_bytes(png(noise(rng, 8, 9, 3)))
    images = data.open(tmp_path / "set")
    assert len(images[:3]) == 3
    with pytest.raises(DataError, match=r"003.png: this image is \(8, 9, 3\), those before it"):
        images[3:]


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
        assert not any(event.is_set() for event in begun[following + 1 :])  # and no more than it
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
    # All digits of a float32 are there.
    np.testing.assert_array_equal(
        np.array([row.score for row in found], np.float32), brightness(pixels)
    )
    want = detector.p_values(judge_brightness, pixels)
    np.testing.assert_allclose([row.p_value for row in found], want, rtol=1e-5)
    decided = detector.decide(judge_brightness, pixels, false_positive_rate=0.3)
    assert 0 < decided.sum() < 50
    np.testing.assert_array_equal([row.reported for row in found], decided)


@pytest.mark.parametrize(("n", "sizes"), [(5, [5]), (15, [15]), (16, [8, 8]), (29, [9, 10, 10])])
def test_sets_are_those_that_the_detector_is_fitted_on(n, sizes, rng, tmp_path):
    """None is smaller than set_size, unless there are fewer images at all."""
    np.save(tmp_path / "new.npy", noise(rng, n, 4, 4, 1))
    images = data.open(tmp_path / "new.npy")
    seen = []

    def score(x):
        seen.append(len(x))
        return among_its_set(x)

    judge = detector.fit(score, noise(rng, n, 4, 4, 1), set_size=8)
    fitted, seen[:] = sorted(seen), []
    stream.judge(judge, images, tmp_path / "scores.csv", set_size=8, false_positive_rate=0.5)
    assert sorted(seen) == sizes == fitted
    cuts = np.cumsum(seen)[:-1]
    want = np.concatenate([among_its_set(x) for x in np.split(images[:], cuts)])
    rows = stream.rows(tmp_path / "scores.csv")
    np.testing.assert_array_equal(np.array([row.score for row in rows], np.float32), want)


def test_images_that_were_calibrated_on_are_not_judged(rng, tmp_path):
    pixels = noise(rng, 40, 4, 4, 1)
    judge = detector.fit(brightness, pixels[:20])
    np.save(tmp_path / "new.npy", pixels[10:])
    stream.judge(judge, data.open(tmp_path / "new.npy"), tmp_path / "scores.csv", set_size=7)
    p_values = np.array([row.p_value for row in stream.rows(tmp_path / "scores.csv")])
    assert np.isnan(p_values[:10]).all() and not np.isnan(p_values[10:]).any()
    found = stream.summary(tmp_path / "scores.csv")
    assert (found.images, found.known) == (20, 10)


def test_names_of_files_survive_whatever_is_in_them(rng, tmp_path, judge_brightness):
    folder = tmp_path / "new"
    write_images(folder, noise(rng, 1, 4, 4, 1))
    names = ['a,"b".png', "line\nbreak.png", os.fsdecode(b"\xff.png"), "é.png"]
    for name in names:
        (folder / name).write_bytes((folder / "000.png").read_bytes())
    images = data.open(folder)
    for _ in range(2):  # written, then found complete
        stream.judge(judge_brightness, images, tmp_path / "scores.csv")
        found = [row.file for row in stream.rows(tmp_path / "scores.csv")]
        assert found == [name.replace("\n", "?") for name in sorted(["000.png", *names])]


def test_a_stopped_run_resumes_to_the_byte_wherever_it_was_cut(rng, tmp_path):
    write_images(tmp_path / "new", noise(rng, 23, 4, 4, 1))
    images, path = data.open(tmp_path / "new"), tmp_path / "scores.csv"
    judge = detector.fit(among_its_set, noise(rng, 99, 4, 4, 1), set_size=5)
    stream.judge(judge, images, path, set_size=5)
    whole = path.read_bytes()
    calls = []
    judge = judge._replace(score=lambda x: calls.append(len(x)) or among_its_set(x))
    for length in range(0, len(whole), 9):
        path.write_bytes(whole[:length])
        stream.judge(judge, images, path, set_size=5)
        assert path.read_bytes() == whole
    calls.clear()
    stream.judge(judge, images, path, set_size=5)
    assert path.read_bytes() == whole and not calls  # nothing is scored twice


def test_results_of_something_else_are_refused_and_kept(rng, tmp_path, judge_brightness):
    write_images(tmp_path / "new", noise(rng, 3, 4, 4, 1))
    write_images(tmp_path / "other", noise(rng, 3, 4, 4, 1), suffix="b.png")
    images, path = data.open(tmp_path / "new"), tmp_path / "scores.csv"
    path.write_text("years of work\n")
    with pytest.raises(ValueError, match="not a file of results"):
        stream.judge(judge_brightness, images, path)
    assert path.read_text() == "years of work\n"
    path.unlink()
    stream.judge(judge_brightness, images, path)
    whole = path.read_bytes()
    with pytest.raises(ValueError, match=r"results of other images \(line 2\)"):
        stream.judge(judge_brightness, data.open(tmp_path / "other"), path)
    assert path.read_bytes() == whole


def test_what_was_judged_before_an_error_is_kept(rng, tmp_path, judge_brightness):
    write_images(tmp_path / "new", noise(rng, 12, 4, 4, 1))
    good = (tmp_path / "new" / "009.png").read_bytes()
    (tmp_path / "new" / "009.png").write_bytes(good[:20])
    images, path = data.open(tmp_path / "new"), tmp_path / "scores.csv"
    with pytest.raises(DataError, match=r"009.png: not a readable image"):
        stream.judge(judge_brightness, images, path, set_size=4)
    assert len(list(stream.rows(path))) == 8
    (tmp_path / "new" / "009.png").write_bytes(good)
    stream.judge(judge_brightness, images, path, set_size=4)
    assert len(list(stream.rows(path))) == 12
    with pytest.raises(ValueError, match="false-positive rate"):
        stream.judge(judge_brightness, images, path, false_positive_rate=0.001)
    with pytest.raises(ValueError, match="at least 1"):
        stream.judge(judge_brightness, images, path, set_size=0)


def test_summary(tmp_path):
    """Against the same things from all rows at once."""
    path, n = tmp_path / "scores.csv", 1000
    values = np.random.default_rng(0).permutation(n)
    lines = [f"{i},,{v},{(n - v) / n:.6g},{v >= 900:d}\n" for i, v in enumerate(values)]
    path.write_text("index,file,score,p_value,reported\n" + "".join(lines))
    found = stream.summary(path, suspects=10, scores=99)
    assert (found.images, found.reported, found.known) == (1000, 100, 0)
    assert [row.score for row in found.suspects] == list(range(999, 989, -1))
    assert 50 <= len(found.scores) <= 99
    np.testing.assert_array_equal(found.scores, values[:: n // len(found.scores) + 1])


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_memory_does_not_grow_with_the_images(suffix, tmp_path, judge_brightness):
    """What Python and NumPy hold at most, for ten times the images, 9 MB more on the disk."""
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
    # Some sets of 0.1 MB more or less by chance (who is faster, the reader or the scorer?), and far
    # less than the 9,000 images that there are more.
    assert peaks[1] < peaks[0] + 9000 * 32 * 32 / 4, peaks


SLOW = """
import signal, sys, time
import numpy as np
from jaxood import data, detector, stream

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background lacks

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
